"""From settings to an engine: one way for the router model and for ``triton-router explain``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_router.profiling.profile import TargetProfile
from triton_router.routing.engine import RoutingEngine
from triton_router.routing.policies import policy_named
from triton_router.routing.rules import RoutingRules
from triton_router.routing.types import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from triton_router.config.router_config import RouterConfig, TargetConfig


def configured_engine(
    config: RouterConfig, model: str, learned: Mapping[str, TargetProfile], *, rng: Callable[[], float]
) -> RoutingEngine:
    """Return the engine of a routed model.

    Args:
        config: Its settings.
        model: Its name.
        learned: Profiles by target; the others begin with what was measured at build time.
        rng: Uniform numbers in [0, 1).
    """
    del model  # rules by name are to come
    return RoutingEngine(
        [(target_of(settings), learned.get(settings.name) or profile_of(settings)) for settings in config.targets],
        policy_named(config.policy),
        rules=RoutingRules(explore=config.explore),
        rng=rng,
    )


def target_of(settings: TargetConfig) -> Target:
    """Return a target as the engine knows it."""
    return Target(settings.name, settings.model, settings.version, settings.backend, settings.variant)


def profile_of(settings: TargetConfig) -> TargetProfile:
    """Return the profile of a target that nothing has been learned of yet."""
    return TargetProfile((point.work, point.latency_ms) for point in settings.measured_latency)
