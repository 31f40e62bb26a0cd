"""Filters: each rejects a target for one reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from triton_router.routing.protocols import TargetState
    from triton_router.routing.types import RoutingContext


def resting(_context: RoutingContext, state: TargetState, now: float) -> str:
    """Reject a target that failed several times in a row, until its pause is over and one request has found it well."""
    health = state.health
    if health.is_out(now):
        return "resting after consecutive failures"
    return "on probation, and being tried" if state.in_flight and health.is_on_probation else ""


def unproven_and_busy(_context: RoutingContext, state: TargetState, _now: float) -> str:
    """Reject a target of unknown speed that is already being tried: one request finds out, not a herd."""
    return "unproven, and being tried" if state.in_flight and not state.profile.is_proven else ""
