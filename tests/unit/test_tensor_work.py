"""How much work a tensor is."""

from __future__ import annotations

import numpy as np
import pytest

from triton_router.tensor_work import string_bytes, work_of


def strings(*values: object) -> np.ndarray:
    return np.array(values, np.object_)


def test_numbers_count_by_elements_and_strings_by_bytes() -> None:
    """Text counts as it is encoded, in whatever form numpy holds it."""
    assert work_of(np.zeros((2, 3), np.float32)) == 6
    assert work_of(strings(b"four", b"seven.")) == 10
    assert work_of(np.array(["four", "\N{SNOWMAN}"])) == work_of(strings("four", "\N{SNOWMAN}")) == 7
    assert work_of(np.array([b"four"])) == 4


@pytest.mark.parametrize("shape", [(2, 0), (0,)])
def test_nothing_is_no_work(shape: tuple[int, ...]) -> None:
    """An empty tensor has none."""
    assert string_bytes(np.empty(shape, np.object_)) == 0


def test_an_empty_string_is_some_work() -> None:
    """It has to be looked at: more of them are more work."""
    assert string_bytes(strings(b"", b"")) == 2


def test_of_many_strings_a_few_tell_the_length_of_all() -> None:
    """A hundred thousand of mixed lengths are told to within a tenth, whatever their order."""
    rng = np.random.default_rng(5)
    lengths = rng.integers(1, 200, 100_000)
    for order in (lengths, np.sort(lengths)):
        values = strings(*(b"x" * int(n) for n in order)).reshape(100, 1000)
        assert string_bytes(values) == pytest.approx(int(lengths.sum()), rel=0.1)
