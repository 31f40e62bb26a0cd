"""What is kept of an answer to be compared: what counts of it, and no more than can be compared cheaply.

An answer is read on the thread that has just sent it, so that this costs a bounded time whatever a model answers. Both
answers are cut in the same way: equal ones stay equal.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from triton_router.parity.difference import Difference, difference

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from triton_router.parity.tolerance import Tolerance

    Array = NDArray[Any]

MAX_ELEMENTS = 1 << 16
"""Of a larger output, about so many elements are compared, evenly spread over it."""
MOST_STRINGS = 1 << 12
"""Likewise of one of strings, each of which costs a fifth of a microsecond..."""
MOST_TEXT = 1 << 20
"""... and about so many of their letters: how long a string is, nobody declares. Both answers wait in memory."""
_MASK = "attention_mask"


class Answer(NamedTuple):
    """One answer.

    Attributes:
        outputs: By name, copied; of large ones a part.
        layout: Type and shape of each, as they were.
    """

    outputs: Mapping[str, Array]
    layout: Mapping[str, tuple[str, tuple[int, ...]]]


def meant(inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> dict[str, Array]:
    """Leave out of each output what stands at padding: callers ignore it, and rounding may change it at will.

    Padding is where an input called ``attention_mask`` is 0, in outputs that begin with that input's dimensions.
    """
    mask = inputs.get(_MASK)
    if mask is None or not mask.ndim or not mask.any():
        return dict(outputs)
    there = np.flatnonzero(mask)
    return {
        name: _picked(value, there, mask.ndim) if value.shape[: mask.ndim] == mask.shape else value
        for name, value in outputs.items()
    }


def kept(inputs: Mapping[str, Array], outputs: Mapping[str, Array], tolerance: Tolerance) -> Answer:
    """Return what is to be compared of an answer, in memory of its own.

    Args:
        inputs: What was asked.
        outputs: What was answered.
        tolerance: Says which outputs do not count.
    """
    counted = {name: value for name, value in outputs.items() if name not in tolerance.ignore}
    layout = {name: (str(value.dtype), value.shape) for name, value in counted.items()}
    values = {name: _part(value, ranked=name in tolerance.argmax) for name, value in meant(inputs, counted).items()}
    return Answer(values, layout)


def compared(actual: Answer, expected: Answer, tolerance: Tolerance) -> Difference:
    """Return how two answers to the same question differ."""
    for name in actual.layout.keys() & expected.layout.keys():
        mine, theirs = actual.layout[name], expected.layout[name]
        if mine != theirs:
            return Difference(
                problem=f"output {name!r} is {mine[0]}{list(mine[1])}, the reference's is {theirs[0]}{list(theirs[1])}"
            )
    return difference(actual.outputs, expected.outputs, argmax=tolerance.argmax)


def _picked(value: Array, there: Array, leading: int) -> Array:
    """Return what stands at these positions of the leading dimensions; of too many, some that are evenly spread."""
    rest = value.shape[leading:]
    most = max(1, MAX_ELEMENTS // max(1, prod(rest)))
    return value.reshape(prod(value.shape[:leading]), *rest)[there[:: -(-there.size // most)]]


def _part(value: Array, *, ranked: bool) -> Array:
    if value.dtype == np.object_:
        return _strings(value)
    return _rows(value) if ranked else _spread(value)


def _strings(value: Array) -> Array:
    """Return strings, of too many some that are evenly spread, and of those that are long together a part of each."""
    few = value.reshape(-1)[:: max(1, -(-value.size // MOST_STRINGS))]
    room = MOST_TEXT // max(1, few.size)
    own = np.empty(few.size, np.object_)
    own[:] = [_letters(one, room) for one in few]
    return own


def _letters(one: object, room: int) -> object:
    """Return a string; of a longer one its length and letters that are evenly spread over it."""
    if isinstance(one, bytes) and len(one) > room:
        return b"%d:" % len(one) + one[:: -(-len(one) // room)]
    if isinstance(one, str) and len(one) > room:
        return f"{len(one)}:{one[:: -(-len(one) // room)]}"
    return one


def _spread(value: Array) -> Array:
    if value.size <= MAX_ELEMENTS:
        return value.copy()
    return value.reshape(-1)[:: -(-value.size // MAX_ELEMENTS)].copy()


def _rows(value: Array) -> Array:
    """Return rows, none of them cut; the first ones if they are too many."""
    if value.size <= MAX_ELEMENTS or not value.ndim:
        return value.copy()
    rows = value.reshape(-1, value.shape[-1])
    return rows[: max(1, MAX_ELEMENTS // value.shape[-1])].copy()
