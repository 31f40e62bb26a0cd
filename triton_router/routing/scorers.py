"""Scorers: each rates candidates in [0, 1] by one property; a candidate never loses by being better at it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triton_router.routing.protocols import Candidate
    from triton_router.routing.types import RoutingContext


def latency(_context: RoutingContext, candidates: Sequence[Candidate]) -> list[float]:
    """Rate by predicted latency: best / own. An unproven candidate (0 ms) rates 1, so that it is tried."""
    known = [candidate.expected_latency_ms for candidate in candidates if candidate.expected_latency_ms > 0.0]
    best = min(known, default=1.0)
    return [
        best / candidate.expected_latency_ms if candidate.expected_latency_ms > 0.0 else 1.0 for candidate in candidates
    ]


def least_request(_context: RoutingContext, candidates: Sequence[Candidate]) -> list[float]:
    """Rate by requests in flight: 1 / (1 + in flight)."""
    return [1.0 / (1 + candidate.state.in_flight) for candidate in candidates]


def equal(_context: RoutingContext, candidates: Sequence[Candidate]) -> list[float]:
    """Rate all the same."""
    return [1.0] * len(candidates)
