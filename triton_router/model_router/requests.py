"""What a caller asks, checked once at the door: a copy, so that later changes of it mean nothing."""

from __future__ import annotations

from dataclasses import replace
from math import isfinite

from triton_router.errors import RequestError
from triton_router.model_router.names import backend_of
from triton_router.routing.types import OptimizationGoal, RoutingContext

_BOUNDS = ("work", "max_latency_ms", "min_throughput", "max_memory_mb", "max_power_w")


def checked(context: RoutingContext) -> RoutingContext:
    """Return a copy of what is asked, with names as the values they stand for.

    Raises:
        RequestError: A value is out of range, or the goal is unknown.
        InvalidInputError: A backend is unknown.
    """
    if not isfinite(context.batch_size) or context.batch_size < 1:
        raise RequestError(f"batch_size cannot be {context.batch_size}", hint="give the number of rows, 1 or more")
    for name in _BOUNDS:
        value = getattr(context, name)
        if not (isfinite(value) and value >= 0.0):
            raise RequestError(f"{name} cannot be {value}", hint="give a positive number, or 0 for none")
    allowed = context.allowed_backends
    return replace(
        context,
        optimization_goal=_goal(context.optimization_goal),
        allowed_backends=None if allowed is None else frozenset(backend_of(name) for name in allowed),
    )


def _goal(goal: OptimizationGoal | str) -> OptimizationGoal:
    if isinstance(goal, OptimizationGoal):
        return goal
    found = OptimizationGoal.__members__.get(goal)
    if found:
        return found
    try:
        return OptimizationGoal(goal)
    except ValueError as error:
        known = ", ".join(OptimizationGoal.__members__)
        raise RequestError(f"unknown optimization goal {goal!r}", hint=f"use one of {known}") from error
