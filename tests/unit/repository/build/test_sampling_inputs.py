"""Samples: the sizes that are tried, and values that stay valid."""

from __future__ import annotations

import numpy as np
import pytest

from triton_router.repository.build import sampling
from triton_router.repository.build.job import IoSpec, TensorSpec

TEXT = IoSpec(
    inputs=(
        TensorSpec("ids", "INT64", (-1, -1), ("batch", "sequence")),
        TensorSpec("mask", "INT64", (-1, -1), ("batch", "sequence")),
    ),
    outputs=(TensorSpec("y", "FP32", (-1, 4), ("batch", "")),),
    bounds={"batch": (1, 64), "sequence": (2, 24)},
    batch_axis="batch",
)
EXAMPLES = {
    "ids": np.array([[7, 9, 30, 2], [7, 5, 2, 0]]),
    "mask": np.array([[1, 1, 1, 1], [1, 1, 1, 0]]),
}
RNG = np.random.default_rng(0)


def test_batches_and_other_dimensions_vary() -> None:
    """One, two, three and eight rows, and a shorter and a longer sequence, all within the bounds."""
    combinations = sampling.sizes(TEXT, {"batch": 2, "sequence": 16})
    assert {size["batch"] for size in combinations} == {1, 2, 3, 8}
    assert {size["sequence"] for size in combinations} == {8, 16, 24}


def test_a_model_without_dynamic_sizes_has_one_sample() -> None:
    """Fixed shapes leave nothing to vary."""
    fixed = IoSpec((TensorSpec("x", "FP32", (4, 3), ("", "")),), (TensorSpec("y", "FP32", (4, 3), ("", "")),))
    assert sampling.sizes(fixed, {}) == [{}]
    assert sampling.resized(fixed, {"x": np.ones((4, 3))}, {}, RNG)["x"].shape == (4, 3)


@pytest.mark.parametrize("kind", ["BOOL", "INT64", "FP32", "FP64", "BYTES"])
def test_a_scalar_is_invented_as_an_array(kind: str) -> None:
    """ONNX Runtime takes an array without dimensions, not numpy's scalar."""
    io = IoSpec((TensorSpec("x", kind, (), ()),), (TensorSpec("y", kind, (), ()),))
    for limits in ({}, {"x": 9}):
        value = sampling.resized(io, sampling.invented(io, limits, RNG), {}, RNG)["x"]
        assert isinstance(value, np.ndarray)
        assert (value.shape, value.dtype) == ((), sampling.NUMPY_TYPES[kind])


def test_a_dimension_of_zero_stays() -> None:
    """Inputs without elements are resized like others."""
    io = IoSpec((TensorSpec("x", "FP32", (-1, 0), ("b", "")),), (TensorSpec("y", "FP32", (-1, 0), ("b", "")),), {}, "b")
    assert sampling.resized(io, sampling.invented(io, {}, RNG), {"b": 8}, RNG)["x"].shape == (8, 0)


def test_values_stay_within_the_examples() -> None:
    """No token id appears that the examples do not have, and a mask goes with its tokens."""
    inputs = sampling.resized(TEXT, EXAMPLES, {"batch": 8, "sequence": 4}, RNG)
    assert inputs["ids"].shape == inputs["mask"].shape == (8, 4)
    assert set(inputs["ids"].ravel()) <= set(EXAMPLES["ids"].ravel())
    assert ((inputs["ids"] == 0) == (inputs["mask"] == 0)).all()


def test_rows_differ_even_if_there_is_one_example() -> None:
    """Merging equal rows would prove nothing: integers are drawn again, floats get noise within their range."""
    one = {name: value[:1] for name, value in EXAMPLES.items()}
    ids = sampling.resized(TEXT, one, {"batch": 8, "sequence": 4}, RNG)["ids"]
    assert len(np.unique(ids, axis=0)) > 1
    assert set(ids.ravel()) <= {7, 9, 30, 2}
    spec = IoSpec(
        (TensorSpec("x", "FP32", (-1, 3), ("batch", "")),),
        (TensorSpec("y", "FP32", (-1, 3), ("batch", "")),),
        batch_axis="batch",
    )
    x = sampling.resized(spec, {"x": np.array([[0, 0.5, 1]], np.float32)}, {"batch": 8}, RNG)["x"]
    assert len(np.unique(x, axis=0)) == 8
    assert x.dtype == np.float32
    assert x.min() >= 0
    assert x.max() <= 1


@pytest.mark.parametrize("datatype", sorted(sampling.NUMPY_TYPES))
def test_inputs_are_invented_for_every_type(datatype: str) -> None:
    """Each KServe type gives an array of its numpy type; integers stay below the table they index."""
    spec = IoSpec((TensorSpec("x", datatype, (-1, 5), ("n", "")),), ())
    value = sampling.invented(spec, {"x": 4}, RNG)["x"]
    assert value.dtype == sampling.NUMPY_TYPES[datatype]
    assert value.shape[1] == 5
    if np.issubdtype(value.dtype, np.integer):
        assert value.max() < 4


def test_invented_masks_never_hide_everything() -> None:
    """A row of zeros would make attention divide by zero."""
    mask = sampling.invented(TEXT, {}, RNG)["mask"]
    assert (mask[:, 0] == 1).all()
