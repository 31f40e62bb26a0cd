"""From settings to an engine: one way for the router model and for ``triton-router explain``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_router.config.routing_of import routing_of, trials_of
from triton_router.experiments.splitting_engine import SplittingEngine
from triton_router.profiling.figures import UNKNOWN_FIGURE, Figure, Source
from triton_router.profiling.profile import TargetProfile
from triton_router.routing.types import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from triton_router.config.router_config import RouterConfig, TargetConfig
    from triton_router.profiling.roofline import RooflinePrior
    from triton_router.routing.snapshot import TargetSnapshot

_NO_PRIORS: Mapping[str, RooflinePrior] = {}


def configured_engine(
    config: RouterConfig,
    model: str,
    learned: Mapping[str, TargetProfile],
    *,
    rng: Callable[[], float],
    priors: Mapping[str, RooflinePrior] = _NO_PRIORS,
) -> SplittingEngine:
    """Return the engine of a routed model.

    Args:
        config: Its settings.
        model: Its name.
        learned: Profiles by target; the others begin with what was measured at build time.
        rng: Uniform numbers in [0, 1).
        priors: What to expect of targets that nobody has measured.
    """
    targets = _targets(config, learned, priors)
    adjust = _adjustment(config)
    for target, profile in targets:
        adjust(target.name, profile)
    return SplittingEngine(
        targets,
        routing_of(config, model),
        trials_of(config, model),
        model,
        rng=rng,
        log_propensities=config.decision_log is not None,
    )


def reconfigure(
    engine: SplittingEngine,
    config: RouterConfig,
    model: str,
    learned: Mapping[str, TargetProfile],
    *,
    kept: Collection[str],
    priors: Mapping[str, RooflinePrior] = _NO_PRIORS,
) -> list[TargetSnapshot]:
    """Have an engine go on by other settings; what it is to try of them, `SplittingEngine.follow` was told before.

    Args:
        engine: As `configured_engine` made it.
        config: The settings from now on.
        model: Name of the routed model.
        learned: Profiles by target, for those that are new.
        kept: Names of the targets that are the same models as before: what is learned of them stays.
        priors: What to expect of targets that nobody has measured.

    Returns:
        The targets that are new, as they begin.
    """
    return engine.reconfigure(
        *routing_of(config, model), _targets(config, learned, priors), kept=kept, adjust=_adjustment(config)
    )


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


def _targets(
    config: RouterConfig, learned: Mapping[str, TargetProfile], priors: Mapping[str, RooflinePrior]
) -> list[tuple[Target, TargetProfile]]:
    return [
        (target_of(settings), learned.get(settings.name) or _fresh(settings, priors.get(settings.name)))
        for settings in config.targets
    ]


def _adjustment(config: RouterConfig) -> Callable[[str, TargetProfile], None]:
    """Return what brings a target's profile into line with the settings."""
    by_name = {settings.name: settings for settings in config.targets}

    def adjust(name: str, profile: TargetProfile) -> None:
        settings = by_name[name]
        profile.remember(config.router_config.profile_history_size)
        # What was declared may have been edited since the profile was written down; what was measured counts.
        if profile.power_w.source is not Source.MEASURED:
            profile.power_w = _declared(settings.power_w)
        if profile.memory_mb.source is not Source.MEASURED:
            profile.memory_mb = _declared(settings.memory_mb)

    return adjust


def _declared(value: float) -> Figure:
    return Figure(value, Source.ESTIMATED) if value else UNKNOWN_FIGURE
