"""What a smooth law misses: a small table of shapes with their own measured latencies.

Steps where shapes recompile, a flat start on a GPU, a kernel that dislikes one batch size: none is a sum of smooth
terms. So each shape (rows and work, quantised) keeps a recency-weighted mean of the logarithm of its latency, and

    off = mean log latency - log law(representative shape)
    latency = law(shape) * exp(n / (n + SHRINK * doubt) * off),    doubt = min(1, s^2 / (s^2 + off^2) + 1 / n)

an empirical-Bayes shrinkage towards the law (Efron & Morris, 1975): a shape never seen falls back on the law, one
seen often goes by its own measurements. What the law misses has heavy tails: where it is off by more than noise of
``s`` explains, and again and again, the shape is believed sooner (Dawid, *Posterior expectations for large
observations*, 1973). The means are of latencies, not of corrections: they stay true while the law
moves, and those of two instances add up.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, exp, log, log2

CAPACITY = 20
"""Most shapes that are kept; the least seen goes first."""
SHRINK = 2.0
"""Observations of a shape that weigh as much as the law does."""
_NOISE = 0.2
"""How far off (in logarithms) a shape may seem to be by chance."""
MEMORY = 0.9
"""Weight of a shape's evidence that is one observation older."""
_AGEING = 0.98
"""How evidence fades, for the choice of who goes, with each observation of any shape."""
_SETTLED = 3.0
"""Evidence from which a shape, with those like it, is none the law only guesses at; in observations..."""
_STRANGE = 0.2
"""... or as a share of all evidence: after a change there is little of any."""
_NOTHING = 1e-3
"""Evidence below this is none; what answers alone have said is less after four changes without another."""
_BOUND = 3.0
"""No correction is beyond a factor of exp(3) = 20."""
_ROWS = 4.0
_WORK = 4.0
"""Buckets per doubling: rows are exact up to 8, shapes within 19% of work share one."""


class Cell:
    """One shape.

    Attributes:
        weight: Evidence, in observations.
        latency: Mean of the logarithm of its latency in ms.
        work: Mean work.
        rows: Mean rows.
        seen: When it was last observed, in observations of the table.
    """

    __slots__ = ("latency", "rows", "seen", "weight", "work")

    def __init__(self, weight: float, latency: float, work: float, rows: float, seen: int) -> None:
        self.weight = weight
        self.latency = latency
        self.work = work
        self.rows = rows
        self.seen = seen

    def correction(self, law_ms: float) -> float:
        """Return the factor by which the law, which says ``law_ms`` at the mean shape, is off."""
        weight = self.weight
        off = self.latency - log(law_ms)
        by_chance = _NOISE * _NOISE / (_NOISE * _NOISE + off * off)
        doubt = min(1.0, by_chance + 1.0 / weight) if weight > 1.0 else 1.0
        off *= weight / (weight + SHRINK * doubt)
        return exp(off if -_BOUND < off < _BOUND else _BOUND if off > 0.0 else -_BOUND)


@lru_cache(maxsize=1024)
def key(work: float, rows: float) -> int:
    """Return the bucket of a shape: the upper edge belongs to it, as shapes are padded up to powers of two."""
    octave = ceil(_WORK * log2(work) - 1e-9) if work > 1.0 else 0
    return octave * 512 + (int(_ROWS * log2(rows) + 0.5) if rows > 1.0 else 0)


class ShapeCells:
    """The table."""

    __slots__ = ("cells", "clock")

    def __init__(self) -> None:
        self.cells: dict[int, Cell] = {}
        self.clock = 0

    def weight(self, at: int) -> float:
        """Return the evidence for the shape in bucket ``at``, in observations."""
        cell = self.cells.get(at)
        return cell.weight if cell else 0.0

    def is_strange(self, work: float, rows: float) -> bool:
        """Whether little of the evidence is for shapes within a factor of two of this one."""
        near = total = 0.0
        for cell in self.cells.values():
            total += cell.weight
            if (
                cell.work <= 2.0 * work
                and work <= 2.0 * cell.work
                and cell.rows <= 2.0 * rows
                and rows <= 2.0 * cell.rows
            ):
                near += cell.weight
        return near < _SETTLED and near < _STRANGE * total

    def observe(self, at: int, latency_ms: float, work: float, rows: float, share: float) -> None:
        """Learn from one latency (positive) of a shape in bucket ``at``; ``share`` is its weight, up to 1."""
        self.clock += 1
        cell = self.cells.get(at)
        if cell is None:
            if len(self.cells) >= CAPACITY:
                self._evict()
            self.cells[at] = Cell(share, log(latency_ms), work, rows, self.clock)
            return
        cell.weight = weight = cell.weight * (MEMORY if share == 1.0 else MEMORY**share) + share
        rate = share / weight
        cell.latency += rate * (log(latency_ms) - cell.latency)
        cell.work += rate * (work - cell.work)
        cell.rows += rate * (rows - cell.rows)
        cell.seen = self.clock

    def rescale(self, factor: float, kept: float) -> None:
        """Multiply every latency by ``factor``, and what the evidence for it weighs by ``kept``.

        A shape of which hardly any is left is forgotten: it would be scaled for ever, and never seen to be wrong.
        """
        by = log(factor)
        for cell in self.cells.values():
            cell.weight *= kept
            cell.latency += by
        self.cells = {at: cell for at, cell in self.cells.items() if cell.weight >= _NOTHING}

    def merge(self, other: ShapeCells) -> None:
        """Take in another table of the same target."""
        latest = max(self.clock, other.clock)
        merged = {at: _aged(cell, latest - self.clock) for at, cell in self.cells.items()}
        for at, cell in other.cells.items():
            theirs = _aged(cell, latest - other.clock)
            mine = merged.get(at)
            merged[at] = theirs if mine is None else _joined(mine, theirs)
        self.clock = latest
        keep = sorted(merged, key=lambda at: (-self._value(merged[at]), at))[:CAPACITY]
        self.cells = {at: merged[at] for at in keep}

    def _evict(self) -> None:
        del self.cells[min(self.cells, key=lambda at: self._value(self.cells[at]))]

    def _value(self, cell: Cell) -> float:
        return cell.weight * _AGEING ** (self.clock - cell.seen)


def _aged(cell: Cell, by: int) -> Cell:
    return Cell(cell.weight, cell.latency, cell.work, cell.rows, cell.seen + by)


def _joined(a: Cell, b: Cell) -> Cell:
    weight = a.weight + b.weight
    share = b.weight / weight if weight > 0.0 else 0.5
    return Cell(
        weight,
        a.latency + share * (b.latency - a.latency),
        a.work + share * (b.work - a.work),
        a.rows + share * (b.rows - a.rows),
        max(a.seen, b.seen),
    )
