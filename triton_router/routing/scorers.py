"""Scorers: each rates candidates in [0, 1] by one property; a candidate never loses by being better at it.

Where they rate a cost, the score is best / own: 1 for the cheapest, 1/n for one n times as dear. A candidate whose
cost is unknown rates 1, so that it is tried, unless said otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_router.profiling.figures import Source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triton_router.routing.protocols import Candidate
    from triton_router.routing.types import RoutingContext

UNKNOWN_SCORE = 0.5
"""What scorers of declared properties give a candidate that declares nothing, where another one does."""


CAUTION = 0.1
"""By what share a prediction is taken to be worse than it says when nothing confirms it."""


def latency(_context: RoutingContext, candidates: Sequence[Candidate]) -> list[float]:
    """Rate by predicted latency, the delay to others included, and doubtful predictions a little lower.

        cost = (expected + others) * (1 + CAUTION * (1 - confidence))
        others = alone * hindered * pressure * (1 + steadiness * waste)
        hindered = queueing * here + hindrance * elsewhere
        pressure = 1 + mean of ``hindered`` over the device's latest requests
        steadiness = max(1, (1 + mean) / (1 + variance))**2 - 1, both of ``hindered`` over more of them
        waste = 1 - least / alone, where ``least`` is what the fastest target of the device takes alone

    ``here`` and ``elsewhere`` are how many requests are in flight at the target and at others of its device,
    ``queueing`` and ``hindrance`` by what share of its own time the request delays one of these. Were each request to
    look after itself only, a loaded processor would be shared out to its slower variants until all were equally slow,
    or do less than comes in and never be done (Pigou, *The Economics of Welfare*, 1920: marginal social cost).

    How much a request costs the others depends on how busy the device is: in an M/M/1 queue, one that takes D and
    finds n others costs D (n + 1) itself and D (n + 1) L those who come later, where L is the mean number there
    (Krishnan, *Joining the right queue: a state-dependent decision rule*, 1990). Taken here is D n (1 + L), which is as
    much on average, and nothing where nothing is in flight.

    That holds where requests come whatever happens. Clients that wait for their answers and then ask again come back
    the sooner, and what one of them gains by passing a queue, others lose at once: by Little's law N of them wait
    N / throughput on average, and on a busy device nothing counts but the work that is done for each request. Such
    clients are known by how little the number in flight varies: not at all where they never pause, but by L + L**2 in
    an M/M/1 queue, where ``steadiness`` is 0 therefore. What a slower target of the same device wastes is charged by
    the square of that ratio, which lets four such clients wait 1.01 times as long as with the fastest target alone,
    and not 1.15 times; what a choice between devices costs is not changed by it.
    """
    doubt = 1.0 + CAUTION
    return _shares([(c.expected_latency_ms + c.others_ms) * (doubt - CAUTION * c.confidence) for c in candidates])


def least_latency(_context: RoutingContext, candidates: Sequence[Candidate]) -> list[float]:
    """Rate by the request's own predicted latency, whatever that costs others."""
    return _shares([c.expected_latency_ms for c in candidates])


def throughput(_context: RoutingContext, candidates: Sequence[Candidate]) -> list[float]:
    """Rate by when the device would be done with everything it has, this request included.

        cost = (1 + device_in_flight) * alone

    Giving each job to the machine that finishes it first keeps all of them busy (Graham, *Bounds on Multiprocessing
    Timing Anomalies*, 1969); the load is shared out in proportion to what each device can do.
    """
    return _shares([(1 + c.device.in_flight + c.device.peers_in_flight) * c.alone_ms for c in candidates])


def power(_context: RoutingContext, candidates: Sequence[Candidate]) -> list[float]:
    """Rate by the energy of the request: power drawn times time taken. Of unknown energy: `UNKNOWN_SCORE`.

    Where that of none is known, as if all drew alike: by the time taken alone.
    """
    energies = [c.profile.energy_j(c.alone_ms) for c in candidates]
    known = [0.0 if energy.source is Source.UNKNOWN else energy.value for energy in energies]
    return _declared(known if any(known) else [c.alone_ms for c in candidates])


def cost(_context: RoutingContext, candidates: Sequence[Candidate]) -> list[float]:
    """Rate by price: the device's price per hour times the time that the request takes.

    What is free rates 1; where everything is, by the request's own predicted latency.
    """
    prices = [c.target.price_per_hour * c.alone_ms for c in candidates]
    return _shares(prices if any(prices) else [c.expected_latency_ms for c in candidates])


def complexity(_context: RoutingContext, candidates: Sequence[Candidate]) -> list[float]:
    """Rate by how well the device's arithmetic suits the model's size, before anything is measured.

    The time is a roofline's (profiling/roofline.py). Of unknown arithmetic: `UNKNOWN_SCORE`.
    """
    return _declared([c.complexity_ms for c in candidates])


def resources(_context: RoutingContext, candidates: Sequence[Candidate]) -> list[float]:
    """Rate by how free the device is: 1 / (1 + requests in flight there)."""
    return [1.0 / (1 + c.device.in_flight + c.device.peers_in_flight) for c in candidates]


def least_request(_context: RoutingContext, candidates: Sequence[Candidate]) -> list[float]:
    """Rate by requests in flight: 1 / (1 + in flight)."""
    return [1.0 / (1 + c.in_flight + c.peers_in_flight) for c in candidates]


def equal(_context: RoutingContext, candidates: Sequence[Candidate]) -> list[float]:
    """Rate all the same."""
    return [1.0] * len(candidates)


def _shares(costs: list[float]) -> list[float]:
    best = min(costs)
    if best > 0.0:
        return [best / cost for cost in costs]
    best = min([cost for cost in costs if cost > 0.0], default=1.0)
    return [best / cost if cost > 0.0 else 1.0 for cost in costs]


def _declared(costs: list[float]) -> list[float]:
    if not any(costs):
        return [1.0] * len(costs)
    return [score if cost > 0.0 else UNKNOWN_SCORE for score, cost in zip(_shares(costs), costs, strict=True)]
