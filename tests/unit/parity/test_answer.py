"""What is kept of an answer: a bounded part, the same of equal ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from triton_router.parity.answer import MAX_ELEMENTS, MOST_STRINGS, MOST_TEXT, compared, kept
from triton_router.parity.tolerance import TOLERANCES

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXACT = TOLERANCES["fp32"]


class Counted(np.ndarray):
    """An array that counts the elements that are taken out of it."""

    taken = 0

    def __getitem__(self, key: object) -> NDArray[np.float32]:
        found = np.asarray(self)[key]  # type: ignore[index]
        Counted.taken += found.size
        return found


@pytest.mark.parametrize("rest", [(8, 10), (8,), (), (0,), (MAX_ELEMENTS,)])
def test_what_stands_at_padding_does_not_count_whatever_the_shape(rest: tuple[int, ...]) -> None:
    """Of the tokens that are there all counts, or of too many a part; nothing that stands behind them."""
    mask = np.array([[1, 1, 0], [1, 0, 0]])
    values = np.random.default_rng(1).normal(size=(2, 3, *rest)).astype(np.float32)
    noise = np.where(mask.reshape(2, 3, *(1 for _ in rest)) != 0, values, 1e6).astype(np.float32)
    one, other = (kept({"attention_mask": mask}, {"Y": value}, EXACT) for value in (values, noise))
    assert not compared(one, other, EXACT).exceeds(EXACT)
    wrong = kept({"attention_mask": mask}, {"Y": -values}, EXACT)
    assert bool(compared(wrong, one, EXACT).exceeds(EXACT)) is bool(values.size)


def test_a_large_answer_is_thinned_before_it_is_copied() -> None:
    """With padding as without: it is read on the thread that answers clients, whatever a model answers."""
    values = np.zeros((64, 64, 1000), np.float32).view(Counted)
    Counted.taken = 0
    answer = kept({"attention_mask": np.ones((64, 64), np.int64)}, {"Y": values}, EXACT)
    assert 0 < answer.outputs["Y"].size <= MAX_ELEMENTS
    assert Counted.taken <= 2 * MAX_ELEMENTS


@pytest.mark.parametrize("count", [1, 7, MOST_STRINGS, 50 * MOST_STRINGS])
@pytest.mark.parametrize("argmax", [False, True])
def test_long_strings_are_thinned_as_well(count: int, argmax: bool) -> None:
    """However long they are and however many, what is kept of an output is bounded, and none of theirs is held."""
    values = np.array([b"x" * (1000 + 3 * MOST_TEXT // min(count, 100))] * count, dtype=object).reshape(count, 1)
    tolerance = EXACT.of_outputs(argmax=frozenset({"Y"} if argmax else ()), ignore=frozenset())
    answer = kept({}, {"Y": values}, tolerance)
    texts = answer.outputs["Y"].reshape(-1)
    assert 0 < texts.size <= MOST_STRINGS
    assert sum(map(len, texts)) <= MOST_TEXT + MOST_STRINGS * 32
    assert not compared(answer, kept({}, {"Y": values.copy()}, tolerance), tolerance).exceeds(tolerance)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"a" * 10, b"a" * 9 + b"b"),
        (b"a" * MOST_TEXT, b"a" * (MOST_TEXT - 1) + b"b"),
        (b"a" * 4 * MOST_TEXT, b"a" * 2 * MOST_TEXT + b"b" * 2 * MOST_TEXT),
        (b"a" * 4 * MOST_TEXT, b"a" * (4 * MOST_TEXT + 1)),
        ("a" * 4 * MOST_TEXT, "a" * (4 * MOST_TEXT + 1)),
        (b"", b"0:"),
        (1, 2),
    ],
    ids=["short", "as much as is kept", "from the middle on", "one more", "one more, as text", "none", "no text"],
)
def test_strings_that_differ_do_so_when_they_are_thinned(one: object, other: object) -> None:
    """In a letter where all of it is kept, in length or from some letter on where it is not."""
    answers = [kept({}, {"Y": np.array([[value]], dtype=object)}, EXACT) for value in (one, other)]
    assert compared(answers[0], answers[1], EXACT).agreement == 0.0
