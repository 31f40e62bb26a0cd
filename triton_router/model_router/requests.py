"""What a caller asks, checked once at the door: a copy, so that later changes of it mean nothing."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from triton_router.errors import InvalidInputError, RequestError
from triton_router.model_router.names import backend_of
from triton_router.routing.types import OptimizationGoal, RoutingContext

if TYPE_CHECKING:
    from triton_router.routing.characteristics import ModelCharacteristics

_BOUNDS = ("work", "max_latency_ms", "min_throughput", "max_memory_mb", "max_power_w")
_LARGEST = 1e300
"""Nothing that is asked is larger."""


def checked(context: RoutingContext) -> RoutingContext:
    """Return a copy of what is asked, with names as the values they stand for.

    Raises:
        RequestError: A value is out of range, or the goal is unknown.
        InvalidInputError: A backend is unknown.
    """
    # Compared, not converted: a whole number may be too large for a float.
    if not (1 <= context.batch_size <= _LARGEST and context.batch_size == int(context.batch_size)):
        raise RequestError(
            f"batch_size cannot be {context.batch_size}", hint="give the number of rows, a whole one from 1 on"
        )
    for name in _BOUNDS:
        value = getattr(context, name)
        if not 0.0 <= value <= _LARGEST:
            raise RequestError(f"{name} cannot be {value}", hint="give a positive number, or 0 for none")
    for name, shape in (context.actual_input_shapes or {}).items():
        if not (all(extent >= 0 for extent in shape) and prod(shape) <= _LARGEST):
            raise RequestError(
                f"the shape of input {name!r} cannot be {list(shape)}", hint="give the shape of this request's tensor"
            )
    allowed = context.allowed_backends
    return replace(
        context,
        pinned=str(backend_of(context.pinned)) if context.pinned else "",
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


_STATED = ("parameter_count", "flop_count", "memory_footprint_bytes", "quantization_bits")


def checked_characteristics(model_name: str, stated: ModelCharacteristics) -> ModelCharacteristics:
    """Return a copy of what is known of a model, with whole numbers of parameters.

    Raises:
        InvalidInputError: A figure is negative or not a number, or it is of another model.
    """
    if stated.model_name not in {"", model_name}:
        raise InvalidInputError(
            f"the characteristics are of model {stated.model_name!r}, not of {model_name!r}",
            hint="register it under that name, or leave model_name empty",
        )
    for name in _STATED:
        value = getattr(stated, name)
        if not 0 <= value <= _LARGEST:
            raise InvalidInputError(f"{name} cannot be {value}", hint="give a positive number, or 0 if it is unknown")
    return replace(stated, parameter_count=int(stated.parameter_count))
