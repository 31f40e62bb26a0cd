"""Verdicts on merging and on differences from the parent, on plain numpy functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from triton_router.parity.difference import difference
from triton_router.parity.tolerance import TOLERANCES, precision
from triton_router.repository.build.batching import batch_difference, verdict
from triton_router.repository.build.samples import Sample, load, save

if TYPE_CHECKING:
    from pathlib import Path

    from triton_router.repository.build.samples import Tensors

X = np.random.default_rng(0).standard_normal((8, 16)).astype(np.float32)
SAMPLES = [Sample({"x": X[:rows]}, {}) for rows in (1, 3, 8)]


def _row_wise(inputs: Tensors) -> Tensors:
    return {"y": np.tanh(inputs["x"]) * 2}


def _branching(inputs: Tensors) -> Tensors:
    sign = 1 if inputs["x"].sum() > 0 else -1
    return {"y": inputs["x"] * np.float32(sign)}


def _scaled_by_batch(inputs: Tensors) -> Tensors:
    step = np.abs(inputs["x"]).max() / 127
    return {"y": (np.round(inputs["x"] / step) * step).astype(np.float32)}


def _fails_alone(inputs: Tensors) -> Tensors:
    if len(inputs["x"]) == 1:
        raise RuntimeError("batch of one")
    return inputs


def test_a_row_wise_function_is_independent() -> None:
    """Rows that know nothing of each other may be merged."""
    assert verdict(batch_difference(_row_wise, SAMPLES), "fp32", "untested") == "independent"


def test_a_branch_on_the_batch_is_dependent() -> None:
    """A data-dependent branch over the whole batch is found, at any precision and whatever the parent is."""
    found = batch_difference(_branching, SAMPLES)
    assert verdict(found, "fp32", "untested") == "dependent"
    assert verdict(found, "int8", "independent") == "dependent"


def test_scales_that_span_the_batch_are_quantisation() -> None:
    """Dynamic int8 changes a little with its batch: excused only as int8 of an independent parent."""
    found = batch_difference(_scaled_by_batch, SAMPLES)
    assert verdict(found, "int8", "independent") == "quantisation"
    assert verdict(found, "int8", "dependent") == "dependent"
    assert verdict(found, "fp32", "independent") == "dependent"


def test_a_model_that_refuses_a_part_is_dependent() -> None:
    """What cannot be called with one row cannot be merged and taken apart."""
    assert verdict(batch_difference(_fails_alone, SAMPLES), "fp32", "untested") == "dependent"


def test_one_row_proves_nothing() -> None:
    """Without a sample of two rows there is no verdict."""
    assert batch_difference(_row_wise, SAMPLES[:1]) is None
    assert verdict(None, "fp32", "untested") == "untested"


@pytest.mark.parametrize(
    ("variant", "row"), [("onnx", "fp32"), ("pt2", "fp32"), ("onnx-fp16", "fp16"), ("onnx-int8", "int8")]
)
def test_each_variant_has_its_row(variant: str, row: str) -> None:
    """A variant's name says how exact it has to be."""
    assert precision(variant) == row


@pytest.mark.parametrize(
    ("actual", "words"),
    [
        ({"y": X + 0.1}, "differs by"),
        ({"y": X[:4]}, "float32[4, 16]"),
        ({"y": X.astype(np.float64)}, "float64"),
        ({"z": X}, "has the outputs ['z']"),
        ({"y": np.where(X > 2, np.nan, X)}, "NaN"),
    ],
)
def test_what_fp32_does_not_excuse(actual: Tensors, words: str) -> None:
    """Wrong numbers, shapes, types, names and NaN are each named."""
    assert words in difference(actual, {"y": X}).exceeds(TOLERANCES["fp32"])


def test_integers_are_compared_exactly() -> None:
    """A class index may not differ in fp32; in int8 one of five may."""
    expected = {"label": np.arange(10)}
    other = {"label": np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 0])}
    assert "agree" in difference(other, expected).exceeds(TOLERANCES["fp32"])
    assert not difference(other, expected).exceeds(TOLERANCES["int8"])


def test_the_same_nan_is_no_difference() -> None:
    """Where the parent answers NaN or infinity, so may the variant."""
    value = {"y": np.array([1.0, np.nan, np.inf])}
    assert not difference(value, value).exceeds(TOLERANCES["fp32"])


def test_int8_keeps_its_direction() -> None:
    """Large single errors pass as int8; an unrelated answer does not."""
    noise = np.random.default_rng(1).standard_normal(X.shape).astype(np.float32)
    assert not difference({"y": X + 0.2 * noise}, {"y": X}).exceeds(TOLERANCES["int8"])
    assert "cosine" in difference({"y": noise}, {"y": X}).exceeds(TOLERANCES["int8"])


def test_samples_survive_the_disk(tmp_path: Path) -> None:
    """Names with slashes and dots, and every element type, come back as they were."""
    text = np.array([["a", ""], ["\x00ü", "\n"]], np.object_)
    sample = Sample({"a/b.c": X, "flag": np.array([True]), "text": text}, {"y": np.arange(3, dtype=np.uint8)})
    save(tmp_path / "s.npz", sample)
    read = load(tmp_path / "s.npz")
    assert read.work == X.size
    assert set(read.inputs) == {"a/b.c", "flag", "text"}
    assert (read.inputs["text"].dtype, read.inputs["text"].tolist()) == (np.object_, text.tolist())
    assert not difference({**read.inputs, **read.outputs}, {**sample.inputs, **sample.outputs}).absolute
