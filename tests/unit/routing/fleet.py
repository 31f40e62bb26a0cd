"""Engines over targets of known speed, for the tests beside this file."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

from triton_router.profiling.figures import UNKNOWN_FIGURE, Figure
from triton_router.profiling.profile import TargetProfile
from triton_router.routing.engine import RoutingEngine
from triton_router.routing.policies import policy_named
from triton_router.routing.rules import RoutingRules
from triton_router.routing.types import Backend, Outcome, RoutingContext, Target, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from triton_router.routing.types import RoutingDecision

CPU, GPU, ANE, MPS = Backend.CPU, Backend.GPU, Backend.NEURAL_ENGINE, Backend.METAL_MPS
REQUEST = RoutingContext(1, 10.0, may_explore=False)


class Spec(NamedTuple):
    """A target that takes ``ms`` whatever the work; None for one of unknown speed."""

    name: str
    ms: float | None
    backend: Backend = CPU
    price: float = 0.0
    power_w: Figure = UNKNOWN_FIGURE
    memory_mb: Figure = UNKNOWN_FIGURE


def engine(
    *specs: Spec,
    policy: str = "latency",
    parameters: Mapping[str, float] | None = None,
    rules: RoutingRules | None = None,
    log_propensities: bool = False,
    rng: Callable[[], float] | None = None,
) -> RoutingEngine:
    """Return an engine whose targets' speeds are known from build time."""
    return RoutingEngine(
        [
            (
                Target(spec.name, spec.name, backend=spec.backend, price_per_hour=spec.price),
                TargetProfile(
                    [] if spec.ms is None else [(1, spec.ms), (100, spec.ms)],
                    power_w=spec.power_w,
                    memory_mb=spec.memory_mb,
                ),
            )
            for spec in specs
        ],
        policy_named(policy, parameters),
        rules=rules or RoutingRules(),
        rng=rng or random.Random(12).random,
        log_propensities=log_propensities,
    )


def chosen(subject: RoutingEngine, context: RoutingContext = REQUEST, now: float = 0.0) -> str:
    """Decide once, release the slot, and return the target's name."""
    decision = subject.decide(context, now)
    subject.finish(decision, Outcome(Verdict.CANCELLED, 0.0), now)
    return decision.target.name


def served(subject: RoutingEngine, latency_ms: float, now: float, context: RoutingContext = REQUEST) -> RoutingDecision:
    """Serve one request in ``latency_ms``."""
    decision = subject.decide(context, now)
    subject.finish(decision, Outcome(Verdict.SUCCESS, latency_ms), now)
    return decision
