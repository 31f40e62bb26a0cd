"""How many of the requests that wait for a target go out as one call. Pure.

A call costs ``fixed`` and each request in it ``marginal``. If M requests wait and go out k at a time, a request is
answered after ``(fixed + k marginal)(M/k + 1)/2`` on average, which is least at

    k* = sqrt(M fixed / marginal)

: the square-root law of the economic order quantity (Harris, *How many parts to make at once*, Factory 1913). A
target whose time is all overhead gets everything at once; one that takes its time for each row gets little
more than one request at a time. While more arrives than is answered M grows, and k* with it, so that the
overhead per request falls until the two agree.
"""

from __future__ import annotations

from math import ceil, sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_BATCHED_ALONG = 0.25
"""A call that ended within this share of its time after the one before it was executed together with that one."""

_KEPT = 0.97
"""Weight of evidence that is one call older; half of it is gone after 23."""
_CLIP = 4.0
"""A call that takes this many times as long as expected, or as short, is no more of a surprise than that."""
_FIXED_SHARE = 0.9
_LEAST_SPREAD = 1e-3
"""Of the works' squares, for a fit."""


def merge_size(waiting: int, fixed_ms: float, marginal_ms: float) -> int:
    """Return k* for so many waiting requests, at least 1; a call of unknown cost is taken to be half overhead."""
    if fixed_ms <= 0.0 and marginal_ms <= 0.0:
        return max(1, ceil(sqrt(waiting)))
    if marginal_ms * waiting <= fixed_ms:
        return max(1, waiting)
    return max(1, round(sqrt(waiting * fixed_ms / marginal_ms)))


def in_time(size: int, fixed_ms: float, marginal_ms: float, left_ms: Iterable[float]) -> int:
    """Return how many of ``size`` requests one call can carry so that none is late for its company, at least 1.

    Args:
        size: Most that are wanted.
        fixed_ms: What a call costs.
        marginal_ms: What a request adds to it.
        left_ms: Time left for each waiting request, in their order; infinite without a bound. One that is late
            even if it goes alone bounds nobody.
    """
    tightest = float("inf")
    count = 0
    for left in left_ms:
        if count == size:
            break
        if left > fixed_ms + marginal_ms:
            tightest = min(tightest, left)
        if count and fixed_ms + (count + 1) * marginal_ms > tightest:
            break
        count += 1
    return max(1, count)


class CallCosts:
    """What calls to one target cost it: ``fixed + per_work * work``, learned from every call, under load too.

    What a call costs is the time that the target spent on it: from its beginning, or from the end of the one
    before it if that was later, to its end (Lindley, *The theory of queues with a single server*, 1952). Least
    squares with exponential forgetting, misses clipped. Not safe to call from several threads.

    Args:
        measured: ``(work, latency_ms)`` pairs measured beforehand, which fade as calls are made.
    """

    __slots__ = ("_ended_at", "_fixed", "_per_work", "_sums")

    def __init__(self, measured: Iterable[tuple[float, float]] = ()) -> None:
        # Weighted sums of 1, work, work^2, ms, work * ms.
        self._sums = (0.0, 0.0, 0.0, 0.0, 0.0)
        self._fixed = self._per_work = 0.0
        self._ended_at = 0.0
        for work, latency_ms in measured:
            self._learn(latency_ms, work)

    def observe(self, started_at: float, ended_at: float, work: float) -> None:
        """Learn from a call that succeeded.

        Args:
            started_at: When it was made, in monotonic seconds.
            ended_at: When it was answered.
            work: Elements of its largest input.
        """
        busy_from = max(started_at, self._ended_at)
        self._ended_at = max(ended_at, self._ended_at)
        spent = ended_at - busy_from
        if busy_from > started_at and spent < _BATCHED_ALONG * (ended_at - started_at):
            return
        self._learn(spent * 1e3, work)

    def fixed_and_marginal(self, work: float) -> tuple[float, float]:
        """Return what a call costs and what a request of this work adds, in milliseconds; (0, 0) if unknown."""
        return self._fixed, self._per_work * work

    def _learn(self, ms: float, work: float) -> None:
        expected = self._fixed + self._per_work * work
        if expected:
            ms = min(max(ms, expected / _CLIP), expected * _CLIP)
        else:
            # The first: most of it is taken to be there whatever the work, so that merging is tried.
            self._add(_FIXED_SHARE * ms, 0.0)
        self._add(ms, work)
        self._fit()

    def _add(self, ms: float, work: float) -> None:
        terms = (1.0, work, work * work, ms, work * ms)
        self._sums = tuple(_KEPT * old + new for old, new in zip(self._sums, terms, strict=True))

    def _fit(self) -> None:
        count, work, squares, ms, products = self._sums
        spread = squares - work * work / count
        # Sizes that are all alike say nothing of what work costs: what was known of that stays.
        if spread > _LEAST_SPREAD * squares:
            self._per_work = max(0.0, (products - work * ms / count) / spread)
        self._fixed = (ms - self._per_work * work) / count
        if self._fixed < 0.0:
            self._fixed, self._per_work = 0.0, products / squares
