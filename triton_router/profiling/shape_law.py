"""What a request takes by itself, by its shape: a law that extrapolates, and corrections where it is off.

    law = b0 + b1 * rows + b2 * work + b3 * work**2 / rows + b4 * [rows > 1],    every b >= 0

``rows`` is the batch size, ``work`` the elements of the largest input: batch times length for texts. A row costs its
part of every fixed-size step, an element its part of the dense layers, and attention looks at rows * length**2 pairs.
A single row often takes a shorter way: a product of a matrix and a vector, one thread, code compiled for a batch of
one. Fitted to relative errors by `NonNegativeFit`; `ShapeCells` corrects it.

What holds: the law never falls where rows and work grow by the same factor, nor where work alone does (for
``rows <= work``). The corrections may: a shape that was measured to be faster than a smaller one is said to be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_router.profiling.cells import ShapeCells, key
from triton_router.profiling.nonnegative import FORGETTING, NonNegativeFit

if TYPE_CHECKING:
    from collections.abc import Callable

FLOOR_MS = 0.01
"""No prediction is below this: a call into another model is never free."""
CEILING_MS = 1e12
"""Nor above this, whatever comes in: 30 years."""
_UNIT_BOUND = 4.0
"""How far the unit of an observation may be from what was measured, as a factor."""
_BASE_SHARE = 0.93
"""The share of the first latency that is taken to be there whatever the work."""
_NOVEL = 0.5
"""An observation that brings more than this share of what is known of a coefficient has nothing to be an outlier
from."""
_LEVEL = 0.003
"""Every observation also counts as this much evidence that rows and work cost nothing: shapes within 5% of each other
say little of what they cost."""
_STEEP = 0.03
"""Likewise for the square, which extrapolates worst."""
_STEP = 0.01
"""Likewise for the step, of which nothing is known before both sides of it were seen."""
_FORGOTTEN = 0.5
"""Observations of several rows below which, after a change, a step is one that nobody has seen."""
_FIRST_SWEEPS = 20
"""Rounds of descent after each of the first ten observations, such as those from build time, which no others may
follow for long. After later ones it is one: the next continues where it stopped."""
_FIRST = 10
_ESTABLISHED = 50
"""Observations before which every shape is strange, and none therefore."""
_LARGEST_WORK = 1e15
_LARGEST_ROWS = 1e9
_MEMO = 16
"""Shapes whose latency is remembered until something is learned."""
_PRIOR_SHARE = 0.05
"""What one point of a prior's curve weighs, in observations."""
_PRIOR_SCALES = (0.125, 1.0, 8.0, 64.0)
"""Where on its curve those points are, as multiples of the first shape that was measured."""


Shape = tuple[float, float]
"""Work and rows of a request."""


class ShapeLaw:
    """Learns and predicts what requests take that have the device to themselves, in milliseconds.

    Attributes:
        remembered: Returns what was predicted of a shape since something was learned last, or None.
    """

    __slots__ = ("_factors", "_memo", "cells", "count", "fit", "remembered")

    def __init__(self) -> None:
        self.fit = NonNegativeFit()
        self.cells = ShapeCells()
        self.count = 0
        # What was predicted, and by what the cells correct the law, until something is learned.
        self._memo: dict[Shape, float] = {}
        self.remembered = self._memo.get
        self._factors: dict[int, float] = {}

    def predict(self, work: float, rows: float) -> float:
        """Return the expected latency in milliseconds; meaningless while nothing has been observed."""
        return self.predict_shape((work, rows))

    def predict_shape(self, shape: Shape) -> float:
        """Return the same of a shape, ``(work, rows)``, that several targets are asked about."""
        value = self._memo.get(shape)
        if value is None:
            value = self._corrected(shape)
            if len(self._memo) >= _MEMO:
                self._memo.clear()
            self._memo[shape] = value
        return value

    def law(self, work: float, rows: float) -> float:
        """Return the law's part alone."""
        _, b1, b2, b3, _ = self.fit.beta
        value = self.fixed(rows) + b1 * rows + b2 * work + b3 * work * work / rows
        # Written so that NaN ends at the ceiling too.
        return max(value, FLOOR_MS) if value < CEILING_MS else CEILING_MS

    def fixed(self, rows: float) -> float:
        """Return what the law says that a call of so many rows costs whatever they carry."""
        beta = self.fit.beta
        return beta[0] + beta[4] if rows > 1.0 else beta[0]

    def familiarity(self, work: float, rows: float) -> float:
        """Return the evidence for this very shape, in observations."""
        return self.cells.weight(key(work, rows))

    def is_strange(self, work: float, rows: float) -> bool:
        """Whether the shape is unlike those that the law was fitted to, so that it is a guess there."""
        return self.count >= _ESTABLISHED and self.cells.is_strange(work, rows)

    def is_novel(self, work: float, rows: float, share: float = _NOVEL) -> bool:
        """Whether an observation of this shape says more of a coefficient than ``share`` of all evidence before it."""
        value = self.law(work, rows)
        share *= value * value
        known = self.fit.information
        quadratic = work * work / rows
        return (
            share * known[5] < rows * rows
            or share * known[9] < work * work
            or share * known[12] < quadratic * quadratic
        )

    def is_over_step(self, work: float, rows: float) -> bool:
        """Whether an observation of this shape, of several rows, says more of the step than half of all before it."""
        value = self.law(work, rows)
        return rows > 1.0 and _NOVEL * value * value * self.fit.information[14] < 1.0

    def observe(self, latency_ms: float, work: float, rows: float, share: float = 1.0) -> None:
        """Learn from one latency (at least `FLOOR_MS`) of a `sane` shape; ``share`` is its weight, up to 1."""
        if self.count:
            unit = unit_of(latency_ms, self.law(work, rows))
        else:
            unit = latency_ms
            slope = (1.0 - _BASE_SHARE) * latency_ms / work if work > 0.0 else 0.0
            self.fit.beta = (latency_ms - slope * work, 0.0, slope, 0.0, 0.0)
        self.count += 1
        self._add(latency_ms, work, rows, unit, share)
        self.fit.descend(1 if self.count > _FIRST else _FIRST_SWEEPS)
        self.cells.observe(key(work, rows), latency_ms, work, rows, share)
        self._forget()

    def expect(self, curve: Callable[[float, float], float], latency_ms: float, work: float, rows: float) -> None:
        """Take the first measured latency, and light evidence that other shapes follow a prior's curve through it."""
        work, rows = sane(work, rows)
        scale = latency_ms / max(FLOOR_MS, curve(work, rows))
        for factor in _PRIOR_SCALES:
            more = max(1.0, rows * factor)
            work_there = work * more / rows
            there = max(FLOOR_MS, scale * curve(work_there, more))
            self._add(there, work_there, more, there, _PRIOR_SHARE)
        self.fit.descend(_FIRST_SWEEPS * 5)
        self.count += 1

    def rescale(self, factor: float, kept: float) -> None:
        """Everything takes ``factor`` times as long: keep a share of the evidence of before, scaled.

        A step of which hardly any is left is forgotten: single rows never show it to be wrong, so that each change
        would scale it further.
        """
        self.fit.rescale(factor, kept)
        unit = self.fixed(2.0)
        if factor != 1.0 and unit * unit * self.fit.information[14] < _FORGOTTEN:
            self.fit.forget_last()
        self.cells.rescale(factor, kept)
        self._forget()

    def merge(self, other: ShapeLaw) -> None:
        """Take in what another instance has learned of the same target."""
        self.fit.merge(other.fit)
        self.cells.merge(other.cells)
        self.count += other.count
        self._forget()

    def _forget(self) -> None:
        self._memo.clear()
        self._factors.clear()

    def _corrected(self, shape: Shape) -> float:
        work, rows = sane(*shape)
        value = self.law(work, rows)
        at = key(work, rows)
        cell = self.cells.cells.get(at)
        if cell is None:
            return value
        factor = self._factors.get(at)
        if factor is None:
            factor = self._factors[at] = cell.correction(self.law(cell.work, cell.rows))
        value *= factor
        return value if FLOOR_MS < value < CEILING_MS else FLOOR_MS if value <= FLOOR_MS else CEILING_MS

    def _add(self, latency: float, work: float, rows: float, unit: float, share: float) -> None:
        if share == 1.0:
            weight = 1.0 / unit
            forgetting = FORGETTING
        else:
            weight = share**0.5 / unit
            forgetting = FORGETTING**share
        x1 = rows * weight
        x2 = work * weight
        x3 = work * work / rows * weight
        x4 = weight if rows > 1.0 else 0.0
        doubt = (0.0, _LEVEL * x1 * x1, _LEVEL * x2 * x2, _STEEP * x3 * x3, _STEP * x4 * x4)
        self.fit.add(latency * weight, (weight, x1, x2, x3, x4), doubt, forgetting)


def unit_of(latency_ms: float, predicted_ms: float) -> float:
    """Return what a miss is measured in, so that a 1 ms request weighs as much as a 100 ms one.

    It is the prediction, within a factor of the measurement: no prediction, however wrong, makes evidence against it
    weightless.
    """
    return min(max(predicted_ms, latency_ms / _UNIT_BOUND), latency_ms * _UNIT_BOUND)


def sane(work: float, rows: float) -> tuple[float, float]:
    """Return a shape whose squares are finite: none that a request has is changed."""
    work = min(work, _LARGEST_WORK) if work > 0.0 else 0.0
    rows = min(rows, _LARGEST_ROWS) if rows > 1.0 else 1.0
    return work, rows
