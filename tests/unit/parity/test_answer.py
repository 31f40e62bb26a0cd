"""What is kept of an answer: a bounded part, the same of equal ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from triton_router.parity.answer import MAX_ELEMENTS, compared, kept
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
