"""How far off predictions were lately: quantiles that hold whatever the noise looks like.

Kept are the last ``kept`` ratios measured / predicted, of predictions made before the answer was known. An answer
exceeds the k-th smallest of n such ratios with probability 1 - k / (n + 1) if it is like them (split conformal
prediction: Vovk, Gammerman & Shafer, *Algorithmic Learning in a Random World*, 2005), so the quantile for probability
p is the ratio of rank (n + 1) * p, interpolated, which covers p on average.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right, insort
from math import exp, log
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

KEPT = 64
_GUESS = 0.5
"""Spread (of the log ratio, one standard deviation's worth) that is assumed where there is no evidence: while there
is none at all, and beyond the largest ratio."""
_ENOUGH = 9
"""Ratios from which a 90th percentile can be read at all."""
_LARGEST = 16.0
"""Bound on a log ratio."""


class Residuals:
    """The last log ratios, in their order and sorted.

    Args:
        ring: Those to begin with, oldest first.
        kept: How many are kept.
    """

    __slots__ = ("_kept", "_sorted", "ring")

    def __init__(self, ring: Sequence[float] = (), kept: int = KEPT) -> None:
        self._kept = kept
        self.ring = array("d", ring[-kept:])
        self._sorted = array("d", sorted(self.ring))

    @property
    def is_ready(self) -> bool:
        """Whether quantiles come from evidence, not from a guess."""
        return len(self._sorted) >= _ENOUGH

    def add(self, miss: float) -> None:
        """Note one log(measured / predicted)."""
        miss = min(_LARGEST, max(-_LARGEST, miss))
        self.ring.append(miss)
        insort(self._sorted, miss)
        if len(self.ring) > self._kept:
            del self._sorted[bisect_left(self._sorted, self.ring.pop(0))]

    def resize(self, kept: int) -> None:
        """Keep this many from now on."""
        self._kept = kept
        self.ring = self.ring[-kept:]
        self._sorted = array("d", sorted(self.ring))

    def forget_last(self, count: int) -> None:
        """Drop the newest: they belonged to a change, not to the noise."""
        del self.ring[max(0, len(self.ring) - count) :]
        self._sorted = array("d", sorted(self.ring))

    def miss_at(self, probability: float) -> float:
        """Return the log ratio that an answer stays below with ``probability`` (0..1)."""
        count = len(self._sorted)
        if count < _ENOUGH:
            return _guess(probability)
        rank = (count + 1) * probability - 1.0
        low = int(rank)
        if rank <= 0.0:
            return self._sorted[0]
        if low >= count - 1:
            return self._sorted[-1]
        below, above = self._sorted[low], self._sorted[low + 1]
        return below + (rank - low) * (above - below)

    def probability_below(self, miss: float) -> float:
        """Return how likely a log ratio is at most ``miss``."""
        count = len(self._sorted)
        if count < _ENOUGH:
            return 1.0 / (1.0 + exp(min(50.0, max(-50.0, -miss / _GUESS))))
        beyond = miss - self._sorted[-1]
        if beyond > 0.0:
            # No answer was that late. Without a tail no bound, however wide, would ever be kept to with 99.9%.
            return 1.0 - 0.5 / (count + 1) * exp(-beyond / _GUESS)
        below = (bisect_left(self._sorted, miss) + bisect_right(self._sorted, miss)) / 2.0
        return (below + 0.5) / (count + 1)

    def merge(self, other: Residuals) -> None:
        """Take the newest of both, as many of either while there are enough."""
        mine, theirs = self.ring, other.ring
        kept = self._kept
        take = max(kept // 2, kept - len(theirs), 1)
        kept_mine = mine[-take:]
        kept_theirs = theirs[-(kept - len(kept_mine)) :] if len(kept_mine) < kept else []
        aged = [(-age, miss) for ring in (kept_mine, kept_theirs) for age, miss in enumerate(reversed(ring))]
        self.ring = array("d", [miss for _, miss in sorted(aged)])
        self._sorted = array("d", sorted(self.ring))


def _guess(probability: float) -> float:
    """Return the quantile of a logistic distribution: wide, and closed in form."""
    probability = min(0.999, max(0.001, probability))
    return _GUESS * log(probability / (1.0 - probability))
