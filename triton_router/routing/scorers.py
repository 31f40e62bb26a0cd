"""Scorers: each rates candidates in [0, 1] by one property; a candidate never loses by being better at it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triton_router.routing.protocols import Candidate
    from triton_router.routing.types import RoutingContext


def latency(_context: RoutingContext, candidates: Sequence[Candidate]) -> list[float]:
    """Rate by predicted latency, the delay to others included: best / own.

        cost = expected + device_in_flight * alone

    A request delays each of those it shares a device with by what it needs itself. Were each to look after itself
    only, a loaded CPU would be shared out to its slower variants until all were equally slow (Pigou, *The Economics
    of Welfare*, 1920: the marginal social cost). An unproven candidate (0 ms) rates 1, so that it is tried.
    """
    costs = [c.expected_latency_ms + c.device_in_flight * c.alone_ms for c in candidates]
    best = min([cost for cost in costs if cost > 0.0], default=1.0)
    return [best / cost if cost > 0.0 else 1.0 for cost in costs]


def least_request(_context: RoutingContext, candidates: Sequence[Candidate]) -> list[float]:
    """Rate by requests in flight: 1 / (1 + in flight)."""
    return [1.0 / (1 + candidate.state.in_flight) for candidate in candidates]


def equal(_context: RoutingContext, candidates: Sequence[Candidate]) -> list[float]:
    """Rate all the same."""
    return [1.0] * len(candidates)
