"""From settings to an engine: one way for the router model and for ``triton-router explain``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_router.config.routing_of import routing_of, splits_of
from triton_router.experiments.splitting_engine import SplittingEngine
from triton_router.profiling.figures import UNKNOWN_FIGURE, Figure, Source
from triton_router.profiling.profile import TargetProfile
from triton_router.routing.engine import RoutingEngine
from triton_router.routing.types import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from triton_router.config.router_config import RouterConfig, TargetConfig
    from triton_router.profiling.roofline import RooflinePrior

_NO_PRIORS: Mapping[str, RooflinePrior] = {}


def configured_engine(
    config: RouterConfig,
    model: str,
    learned: Mapping[str, TargetProfile],
    *,
    rng: Callable[[], float],
    priors: Mapping[str, RooflinePrior] = _NO_PRIORS,
) -> RoutingEngine:
    """Return the engine of a routed model.

    Args:
        config: Its settings.
        model: Its name.
        learned: Profiles by target; the others begin with what was measured at build time.
        rng: Uniform numbers in [0, 1).
        priors: What to expect of targets that nobody has measured.
    """
    profiles = {
        settings.name: learned.get(settings.name) or _fresh(settings, priors.get(settings.name))
        for settings in config.targets
    }
    targets = [
        (target_of(settings), _configured(profiles[settings.name], config, settings)) for settings in config.targets
    ]
    policy, rules = routing_of(config, model)
    logged = config.decision_log is not None
    split = next((split for split in splits_of(config) if split.covers(model)), None)
    if split:
        return SplittingEngine(targets, (policy, rules), split, model, rng=rng, log_propensities=logged)
    return RoutingEngine(targets, policy, rules=rules, rng=rng, log_propensities=logged)


def target_of(settings: TargetConfig) -> Target:
    """Return a target as the engine knows it."""
    return Target(
        settings.name,
        settings.model,
        settings.version,
        settings.backend,
        settings.variant,
        price_per_hour=settings.price_per_hour,
        device=settings.device,
    )


def _fresh(settings: TargetConfig, prior: RooflinePrior | None) -> TargetProfile:
    return TargetProfile(((point.work, point.latency_ms) for point in settings.measured_latency), prior=prior)


def _configured(profile: TargetProfile, config: RouterConfig, settings: TargetConfig) -> TargetProfile:
    profile.remember(config.router_config.profile_history_size)
    # What was declared may have been edited since the profile was written down; what was measured counts.
    if profile.power_w.source is not Source.MEASURED:
        profile.power_w = _declared(settings.power_w)
    if profile.memory_mb.source is not Source.MEASURED:
        profile.memory_mb = _declared(settings.memory_mb)
    return profile


def _declared(value: float) -> Figure:
    return Figure(value, Source.ESTIMATED) if value else UNKNOWN_FIGURE
