"""Grouping, joining and separating the requests of one batch."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from triton_router.serving.backends.base import strings_to_text, text_to_strings
from triton_router.serving.rows import groups, joined, separated

requests = st.lists(
    st.tuples(st.integers(1, 5), st.integers(1, 3), st.sampled_from(["float32", "int64"])), min_size=1, max_size=12
)


def tensors(rows: int, length: int, dtype: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Return a request whose values tell requests apart."""
    return {"x": (np.arange(rows * length).reshape(rows, length) + 100 * seed).astype(dtype)}


@given(requests, st.integers(0, 8))
def test_groups_hold_every_request_once_and_only_what_fits_together(
    shapes: list[tuple[int, int, str]], limit: int
) -> None:
    """Same datatype and row shape, within the batch limit unless one request alone exceeds it, in order."""
    found = groups([tensors(*shape) for shape in shapes], limit)
    assert sorted(index for group in found for index in group) == list(range(len(shapes)))
    for group in found:
        assert group == sorted(group)
        assert len({shapes[index][1:] for index in group}) == 1
        assert len(group) == 1 or sum(shapes[index][0] for index in group) <= limit


@given(st.lists(st.integers(0, 4), min_size=1, max_size=8))
def test_separating_undoes_joining(rows: list[int]) -> None:
    """Each request gets its own rows back, zero rows included."""
    sent = [tensors(count, 3, "float32", seed) for seed, count in enumerate(rows)]
    parts = separated(joined(sent), rows)
    assert parts is not None
    for part, original in zip(parts, sent, strict=True):
        np.testing.assert_array_equal(part["x"], original["x"])


def test_an_output_without_the_batch_in_front_is_not_cut() -> None:
    """Cutting it would give rows to the wrong requests."""
    assert separated({"y": np.zeros(3)}, [1, 1]) is None
    assert separated({"y": np.float32(1).reshape(())}, [1]) is None


def test_a_single_request_is_not_copied() -> None:
    """Its tensors are the ones that came in."""
    sent = tensors(2, 2, "float32")
    assert joined([sent])["x"] is sent["x"]


def test_inputs_that_disagree_about_the_batch_run_alone() -> None:
    """Such a request is the model's to refuse, not a reason to fail its neighbours."""
    odd = {"a": np.zeros((2, 1)), "b": np.zeros((3, 1))}
    even = {"a": np.zeros((2, 1)), "b": np.zeros((2, 1))}
    assert groups([odd, even, odd, even], 8) == [[0], [1, 3], [2]]


@given(st.lists(st.text(), min_size=1, max_size=6))
def test_text_survives_both_ways(words: list[str]) -> None:
    """BYTES to text and back gives the same bytes, also for the empty string."""
    array = np.empty((len(words), 1), dtype=np.object_)
    array[:, 0] = [word.encode("utf-8", "surrogatepass") for word in words]
    back = text_to_strings(strings_to_text("x", array))
    assert back.shape == array.shape
    assert back.ravel().tolist() == array.ravel().tolist()
