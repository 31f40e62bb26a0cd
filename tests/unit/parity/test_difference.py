"""What counts as a difference between two answers, by type of element."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from triton_router.parity.answer import MAX_ELEMENTS, compared, kept
from triton_router.parity.difference import difference
from triton_router.parity.tolerance import TOLERANCES, allowed, precision

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from triton_router.parity.tolerance import Tolerance

FP32, FP16, INT8 = TOLERANCES["fp32"], TOLERANCES["fp16"], TOLERANCES["int8"]
X = np.random.default_rng(0).standard_normal((4, 16)).astype(np.float32)


def problem(actual: Any, expected: Any, tolerance: Tolerance = FP32) -> str:
    """Return what is wrong with an answer of one output."""
    return difference({"y": np.asarray(actual)}, {"y": np.asarray(expected)}).exceeds(tolerance)


def judged(actual: NDArray[Any], expected: NDArray[Any], tolerance: Tolerance, **inputs: NDArray[Any]) -> str:
    """Return what is wrong with it as live answers are compared: cut to what counts."""
    answers = [kept(inputs, {"y": one}, tolerance) for one in (actual, expected)]
    return compared(*answers, tolerance).exceeds(tolerance)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_noise_below_the_tolerance_is_none_and_above_it_is(dtype: type) -> None:
    """Float outputs of every width are judged by their largest difference as a share of the largest value."""
    right = X.astype(dtype)
    assert not problem(right, right)
    far = (right + np.abs(right).max() * dtype(0.01)).astype(dtype)
    assert "of the largest value" in problem(far, right)
    assert not problem(far, right, FP16)


def test_a_direction_counts_where_elements_say_nothing() -> None:
    """With int8 single elements may be off by far; an output that points elsewhere is wrong."""
    off = X.copy()
    off[0, 0] += 2.0
    assert not problem(off, X, INT8)
    assert "cosine" in problem(np.roll(X, 3), X, INT8)
    assert "cosine" in problem(-X, X, INT8)


@pytest.mark.parametrize("dtype", [np.int8, np.uint64, np.int32, np.bool_])
def test_integers_and_booleans_are_equal_or_not(dtype: type) -> None:
    """One element of a hundred that differs is too many for fp32, and not for int8."""
    right = np.zeros(100, dtype)
    wrong = right.copy()
    wrong[7] = 1
    assert not problem(right, right)
    assert "99.0%" in problem(wrong, right)
    assert not problem(wrong, right, INT8)


def test_strings_are_equal_or_not() -> None:
    """BYTES come as objects; their bytes are compared."""
    right = np.array([b"cat", b"dog"], np.object_)
    assert not problem(right.copy(), right)
    assert "50.0%" in problem(np.array([b"cat", b"cow"], np.object_), right)


def test_nan_equals_itself_at_the_same_place_only() -> None:
    """NaN in both is no difference; NaN or infinity in one of them is a divergence, and named."""
    right = np.array([1.0, np.nan, np.inf, -np.inf], np.float32)
    assert not problem(right.copy(), right)
    assert "where the parent has not" in problem([np.nan, np.nan, np.inf, -np.inf], right.astype(np.float64))
    assert "where the parent is" in problem([1.0, 2.0, np.inf, -np.inf], right.astype(np.float64))
    assert "where the parent is" in problem([1.0, np.nan, np.inf, np.inf], right.astype(np.float64))


@pytest.mark.parametrize("shape", [(0,), (3, 0)])
def test_nothing_equals_nothing(shape: tuple[int, ...]) -> None:
    """Empty outputs of the same shape agree, whatever their type, and none of numpy's reductions is asked of them."""
    for dtype in (np.float32, np.int64, np.object_):
        empty = np.zeros(shape, dtype)
        assert difference({"y": empty}, {"y": empty}, argmax=frozenset({"y"})).exceeds(FP32) == ""
        assert not problem(empty, empty)


def test_shape_type_and_names_have_to_be_the_same() -> None:
    """What cannot be compared is a divergence that says why."""
    assert "float32[4, 16]" in problem(X, X[:2])
    assert "float64" in problem(X.astype(np.float64), X)
    assert "outputs" in difference({"y": X}, {"z": X}).problem
    assert "[4, 16]" in judged(X, X[:2], FP32)
    assert "float64" in judged(X.astype(np.float64), X, FP32)


def test_enormous_values_are_compared_like_others() -> None:
    """Doubles whose squares overflow still have a direction, and opposite ones are infinitely far apart."""
    right = np.array([1e300, -1e300, 5e299])
    assert not problem(right * (1 + 1e-9), right)
    assert problem(-right, right)
    assert difference({"y": np.array([1.7e308])}, {"y": np.array([-1.7e308])}).relative == np.inf


def test_where_only_the_largest_element_counts_its_place_is_compared() -> None:
    """Scores may move by far while each row's winner stays; another winner in one row of four is a quarter."""
    tolerance = FP32.of_outputs(argmax=frozenset({"y"}), ignore=frozenset())
    assert not judged(X * 3 + 1, X, tolerance)
    other = X.copy()
    other[2, (X[2].argmax() + 1) % 16] = 100.0
    assert "75.0%" in judged(other, X, tolerance)


def test_outputs_that_do_not_count_may_be_anything() -> None:
    """An ignored output may differ in shape, or be missing."""
    tolerance = FP32.of_outputs(argmax=frozenset(), ignore=frozenset({"y"}))
    assert not judged(X[:1], X, tolerance)
    assert not difference({}, {"y": X}, ignore=frozenset({"y"})).problem


def test_padding_does_not_count() -> None:
    """Outputs that begin with the dimensions of ``attention_mask`` count where that is not 0."""
    wrong = X.copy()
    wrong[:, 8:] += 5.0
    mask = np.ones((4, 16), np.int64)
    mask[:, 8:] = 0
    assert not judged(wrong, X, FP32, attention_mask=mask)
    assert judged(wrong, X, FP32, attention_mask=np.ones((4, 16), np.int64))


def test_a_large_output_is_compared_in_part() -> None:
    """What is kept of it is bounded and copied; a difference everywhere is found, and shapes still have to agree."""
    large = np.random.default_rng(1).standard_normal((1000, 1000)).astype(np.float32)
    answer = kept({}, {"y": large}, FP32)
    assert 0 < answer.outputs["y"].size <= MAX_ELEMENTS
    assert not np.shares_memory(answer.outputs["y"], large)
    assert not judged(large, large, FP32)
    assert judged(-large, large, FP32)
    assert "[999, 1000]" in judged(large[:-1], large, FP32)


@pytest.mark.parametrize(
    ("variant", "row"),
    [
        ("onnx", "fp32"),
        ("pt2", "fp32"),
        ("onnx-int8", "int8"),
        ("onnx-fp16", "fp16"),
        ("coreml", "fp16"),
        ("tensorrt", "fp16"),
        ("coreml-int8", "int8"),
        ("", "fp32"),
    ],
)
def test_a_variant_is_allowed_what_its_precision_takes(variant: str, row: str) -> None:
    """The name of a variant says how it computes; where nothing does, it has to be as good as fp32."""
    assert precision(variant) == row
    assert allowed(variant, "onnx", same_device=True) is TOLERANCES[row]


def test_of_two_the_less_precise_and_the_other_device_decide() -> None:
    """A reference that is int8 itself cannot ask for more; another device computes fp32 with the bits of fp16."""
    assert allowed("onnx", "onnx-int8", same_device=True) is INT8
    assert allowed("onnx", "onnx", same_device=False) is FP16
    assert allowed("onnx-int8", "onnx", same_device=False) is INT8


def test_bounds_that_somebody_sets_replace_the_table() -> None:
    """Each by itself; the others stay."""
    set_by_hand = FP32.adjusted(relative=0.5)
    assert (set_by_hand.relative, set_by_hand.cosine) == (0.5, FP32.cosine)
    assert FP32.adjusted() is FP32
