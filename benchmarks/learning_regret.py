"""Replays recorded timings through routers: regret against an oracle, and how a slow-down and its end are followed.

Requests come one at a time, of any shape with the same probability. What a choice costs is the mean of that shape's
timings on that variant; what the router hears is one of them, drawn by chance. The oracle knows every mean.
"""

from __future__ import annotations

import random
from collections import defaultdict
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.learning_peers import PEERS, Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.learning_peers import Router
    from benchmarks.learning_timings import Timing

FIRST = 1000
LATER = 3000
SLOW = 1000
"""Requests while the best variant is three times as slow."""
BACK = 6000
"""Requests after its recovery, at most, until traffic must have returned."""
_FACTOR = 3.0
_WINDOW = 20
"""Traffic has moved when of so many requests that should go elsewhere, no more than a tenth does not."""


class Replay(NamedTuple):
    """One router, one seed.

    Attributes:
        first: Regret over the first 1,000 requests, as a share of the oracle's time.
        later: Over the next 3,000.
        moved: Requests after the slow-down until traffic had moved.
        returned: Requests after the recovery until it was back; `BACK` if it never was.
        copied: Time spent on copies, as a share of the time spent serving, over all of it.
    """

    first: float
    later: float
    moved: int
    returned: int
    copied: float


class Costs:
    """Timings of one family, requests alone, by shape and variant."""

    def __init__(self, rows: Sequence[Timing]) -> None:
        cells: dict[tuple[Request, str], list[float]] = defaultdict(list)
        for row in rows:
            if row.callers == 1:
                cells[Request(row.batch, row.length, row.work), row.variant].append(row.latency_ms)
        self.variants = sorted({variant for _, variant in cells})
        self.requests = sorted({request for request, _ in cells})
        self._samples = {request: [cells[request, variant] for variant in self.variants] for request in self.requests}
        self._means = {request: [fmean(s) for s in samples] for request, samples in self._samples.items()}
        totals = [sum(self._means[r][i] for r in self.requests) for i in range(len(self.variants))]
        self.best = totals.index(min(totals))

    def means(self, request: Request, *, slow: bool) -> list[float]:
        """Return what each variant takes on average."""
        means = self._means[request]
        return [m * _FACTOR if slow and i == self.best else m for i, m in enumerate(means)]

    def draw(self, request: Request, index: int, rng: random.Random, *, slow: bool) -> float:
        """Return what a variant takes this time."""
        return rng.choice(self._samples[request][index]) * (_FACTOR if slow and index == self.best else 1.0)


def replay(costs: Costs, name: str, seed: int) -> Replay:
    """Drive one router through learning, a slow-down and its end."""
    run = _Run(costs, PEERS[name](costs.variants, seed), random.Random(seed))
    first = run.regret(FIRST)
    later = run.regret(LATER)
    moved, returned = run.until_followed(SLOW, slow=True), run.until_followed(BACK, slow=False)
    return Replay(first, later, moved, returned, run.copied_ms / run.served_ms)


class _Run:
    def __init__(self, costs: Costs, router: Router, rng: random.Random) -> None:
        self._costs = costs
        self._router = router
        self._rng = rng
        self._now = 0.0
        self.served_ms = 0.0
        self.copied_ms = 0.0

    def regret(self, count: int) -> float:
        spent = ideal = 0.0
        for _ in range(count):
            means, index = self._step(slow=False)
            spent += means[index]
            ideal += min(means)
        return spent / ideal - 1.0

    def until_followed(self, count: int, *, slow: bool) -> int:
        """Return after how many requests the router takes the best variant again, of those that changed."""
        right: list[tuple[int, bool]] = []
        for step in range(count):
            means, index = self._step(slow=slow)
            before = self._costs.means(self._last, slow=not slow)
            if before.index(min(before)) != means.index(min(means)):
                # Within 5% of the best counts as the best: the engine takes such for equal.
                right.append((step, means[index] <= 1.05 * min(means)))
            if len(right) >= _WINDOW and sum(ok for _, ok in right[-_WINDOW:]) >= 0.9 * _WINDOW and not slow:
                return right[-_WINDOW][0]
        for at in range(len(right) - _WINDOW):
            if sum(ok for _, ok in right[at : at + _WINDOW]) >= 0.9 * _WINDOW:
                return right[at][0]
        return count

    def _step(self, *, slow: bool) -> tuple[list[float], int]:
        self._last = request = self._rng.choice(self._costs.requests)
        index = self._router.choose(request, self._now)
        latency = self._costs.draw(request, index, self._rng, slow=slow)
        self._now += latency / 1000.0
        self._router.learn(latency, self._now)
        self.served_ms += latency
        copy = self._router.copy()
        if copy is not None:
            latency = self._costs.draw(request, copy.index, self._rng, slow=slow)
            self._now += latency / 1000.0
            copy.learn(latency, self._now)
            self.copied_ms += latency
        return self._costs.means(request, slow=slow), index
