"""What is asked of a simulated fleet, and when: the same for every policy that is compared."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from math import exp, log, pi, sin
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from triton_router.errors import InvalidInputError
from triton_router.simulation.scenario import ClosedLoop, Diurnal, Recorded
from triton_router.telemetry.decision_reading import read_decision_log

if TYPE_CHECKING:
    from random import Random

    from triton_router.simulation.scenario import Poisson, Scenario


class Luck(NamedTuple):
    """What chance has in store for one request, the same wherever it goes.

    Attributes:
        normal: A standard normal number.
        tail: In [0, 1): an unusually slow answer where it is below the target's share of those.
        failure: In [0, 1): a failure where it is below the target's probability of one.
    """

    normal: float
    tail: float
    failure: float


class Request(NamedTuple):
    """One request. Its arrival is in seconds, or negative where a client sends it after its last answer."""

    number: int
    arrives: float
    rows: int
    work: float
    max_latency_ms: float
    luck: Luck


def requests_of(scenario: Scenario, count: int, rng: Random) -> list[Request]:
    """Return the first ``count`` requests of a scenario, or all there are of a recorded trace if that is fewer.

    Raises:
        NotFoundError: There is no such trace.
        InvalidInputError: It is no decision log, or holds no requests.
    """
    arrivals = scenario.arrivals
    if isinstance(arrivals, Recorded):
        return _recorded(arrivals, count, rng)
    times = [-1.0] * count if isinstance(arrivals, ClosedLoop) else _times(arrivals, count, rng)
    bounds = list(accumulate(shape.share for shape in scenario.shapes))
    found: list[Request] = []
    for number, at in enumerate(times):
        shape = scenario.shapes[min(bisect_right(bounds, rng.random() * bounds[-1]), len(bounds) - 1)]
        rows = _drawn(shape.rows, rng)
        work = float(rows * _drawn(shape.elements, rng))
        found.append(Request(number, at, rows, work, shape.max_latency_ms, drawn_luck(rng)))
    return found


def _recorded(arrivals: Recorded, count: int, rng: Random) -> list[Request]:
    records = [
        record
        for record in read_decision_log(Path(arrivals.path)).records
        if not record.mirrored and record.attempts == 1
    ]
    if not records:
        raise InvalidInputError(f"{arrivals.path} holds nothing but mirrored requests", hint="record some traffic")
    begin = records[0].decided_at
    return [
        Request(number, r.decided_at - begin, max(1, r.rows), r.work, r.max_latency_ms, drawn_luck(rng))
        for number, r in enumerate(records[:count])
    ]


def _times(arrivals: Poisson | Diurnal, count: int, rng: Random) -> list[float]:
    """Draw arrivals; those of a swinging rate by thinning (Lewis & Shedler, 1979)."""
    swing, period = (arrivals.swing, arrivals.period_s) if isinstance(arrivals, Diurnal) else (0.0, 1.0)
    times: list[float] = []
    now = 0.0
    while len(times) < count:
        now += rng.expovariate(arrivals.per_second * (1.0 + swing))
        if not swing or rng.random() * (1.0 + swing) < 1.0 + swing * sin(2.0 * pi * now / period):
            times.append(now)
    return times


def _drawn(bounds: tuple[int, int], rng: Random) -> int:
    low, high = bounds
    if low == high:
        return low
    return min(high, int(exp(log(low) + rng.random() * (log(high + 1) - log(low)))))


def drawn_luck(rng: Random) -> Luck:
    """Draw what chance has in store for a request."""
    return Luck(rng.gauss(0.0, 1.0), rng.random(), rng.random())
