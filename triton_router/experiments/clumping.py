"""By how much more latencies vary than they would if each had nothing to do with the one before it.

A target that pauses for ten seconds makes a hundred answers slow at once: that is one event, and a test that takes it
for a hundred finds differences where there are none. So the difference between the arms is also measured in batches of
1, 2, 4, ... looks, and their scatter compared with what independent answers would have: the method of batch means
(Law & Carson 1979; Flegal & Jones 2010), with the largest ratio of all batch lengths that occurred often enough.

    ratio = sum of (u - h d)^2 / expected,   u = h (difference of means),   h = n m / (n + m),   d = sum of u / sum of h

Each share has a d of its own: a canary that gets slow with the load that a larger share brings is no clump.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from triton_router.profiling.validation import number, row

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_SCALES = 8
"""Batches of up to 128 looks."""
FEWEST = 6
"""Batches of a length before their scatter says anything."""
_MOST = 4000.0
_SUMS = 8
_SETTLED = 5
_LARGE = 1e24
_LEAST = 1e-9
_WHERE = "the scatter of batches"


class Clumping:
    """Scatter of batches of several lengths; it adds up over instances."""

    __slots__ = ("_open", "_settled", "_sums")

    def __init__(self) -> None:
        # Of each length, at the present share: batches, u, u^2, u h, h, h^2, h^2 / n, h^2 / m.
        self._sums = [[0.0] * _SUMS for _ in range(_SCALES)]
        # Of each length, at the shares before: batches, degrees of freedom, scatter, h^2 / n, h^2 / m.
        self._settled = [[0.0] * _SETTLED for _ in range(_SCALES)]
        # Of each length: looks, n, sum, m, sum.
        self._open = [[0.0] * 5 for _ in range(_SCALES)]

    def note(self, canary: tuple[int, float], stable: tuple[int, float]) -> None:
        """Note number and sum of the log ratios since the last look, of each arm."""
        for scale, batch in enumerate(self._open):
            batch[0] += 1.0
            batch[1] += canary[0]
            batch[2] += canary[1]
            batch[3] += stable[0]
            batch[4] += stable[1]
            # One without both arms goes on until there are.
            if batch[0] >= 1 << scale and batch[1] and batch[3]:
                self._close(self._sums[scale], batch)
                self._open[scale] = [0.0] * 5

    def settle(self) -> None:
        """Note that another share begins, at which the arms may differ otherwise."""
        self._settled = [_plus(*both) for both in zip(self._settled, map(_scatter, self._sums), strict=True)]
        self._sums = [[0.0] * _SUMS for _ in range(_SCALES)]
        self._open = [[0.0] * 5 for _ in range(_SCALES)]

    def ratio(self, canary_variance: float, stable_variance: float) -> float:
        """Return by what factor the variance of means is larger than that of independent latencies, at least 1.

        Infinite before there are enough batches to tell.
        """
        worst = inf
        for settled, sums in zip(self._settled, self._sums, strict=True):
            count, freedom, scatter, per_canary, per_stable = _plus(settled, _scatter(sums))
            if freedom < FEWEST - 1:
                break
            expected = canary_variance * per_canary + stable_variance * per_stable
            worst = max(1.0 if worst == inf else worst, scatter * count / freedom / expected)
        return worst

    def plus(self, others: Iterable[Clumping]) -> Clumping:
        """Return the sum of this and others; what is open stays with each."""
        result = Clumping()
        for one in (self, *others):
            for at, both in enumerate(one.state()):
                result._sums[at] = _plus(result._sums[at], both[:_SUMS])
                result._settled[at] = _plus(result._settled[at], both[_SUMS:])
        return result

    def state(self) -> list[list[float]]:
        """Return it as plain data."""
        return [[*sums, *settled] for sums, settled in zip(self._sums, self._settled, strict=True)]

    @classmethod
    def from_state(cls, value: object) -> Clumping:
        """Return the scatter of a state, or raise ValueError."""
        clumping = cls()
        both = [row(one, _WHERE, _SUMS + _SETTLED) for one in row(value, _WHERE, _SCALES)]
        clumping._sums = [_sums(one[:_SUMS]) for one in both]
        clumping._settled = [_settled(one[_SUMS:]) for one in both]
        return clumping

    def _close(self, sums: list[float], batch: list[float]) -> None:
        _, n, total, m, stable_total = batch
        h = n * m / (n + m)
        u = h * (total / n - stable_total / m)
        for at, value in enumerate((1.0, u, u * u, u * h, h, h * h, h * h / n, h * h / m)):
            sums[at] += value
        if sums[0] >= _MOST:
            sums[:] = [0.5 * one for one in sums]


def _plus(one: Sequence[float], other: Sequence[float]) -> list[float]:
    return [a + b for a, b in zip(one, other, strict=True)]


def _scatter(sums: Sequence[float]) -> list[float]:
    count, u, squares, mixed, h, h_squares, per_canary, per_stable = sums
    if not count:
        return [0.0] * _SETTLED
    d = u / h
    scatter = max(0.0, squares - 2.0 * d * mixed + d * d * h_squares)
    return [count, max(0.0, count - 1.0), scatter, per_canary, per_stable]


def _sums(value: object) -> list[float]:
    sums = [number(one, _WHERE, -_LARGE, _LARGE) for one in row(value, _WHERE, _SUMS)]
    count, _, squares, _, h, h_squares, per_canary, per_stable = sums
    if not 0.0 <= count <= _MOST or min(squares, h, h_squares, per_canary, per_stable) < 0.0:
        raise ValueError(f"{_WHERE} has sums that no batches have")
    if count and min(h, per_canary) < _LEAST:
        raise ValueError(f"{_WHERE} has batches without answers")
    return sums


def _settled(value: Sequence[object]) -> list[float]:
    settled = [number(one, _WHERE, 0.0, _LARGE) for one in value]
    count, freedom, _, per_canary, _ = settled
    if freedom > count or (count and per_canary < _LEAST):
        raise ValueError(f"{_WHERE} has sums that no batches have")
    return settled
