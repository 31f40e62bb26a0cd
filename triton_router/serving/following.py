"""Has everything that serves a routed model follow other settings, all of them or none."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from triton_router.config import configured_engine
from triton_router.config.cycles import refuse_cycle, router_cycle
from triton_router.config.loading import parse_yaml
from triton_router.config.router_config import ROUTER_FILE, validate_router_config
from triton_router.config.routing_of import trials_of
from triton_router.config.running_changes import refuse_unfollowable
from triton_router.hardware.power import readers
from triton_router.serving import assembly
from triton_router.serving.contradictions import refuse_contradiction
from triton_router.serving.joining import refuse_unsuitable
from triton_router.serving.target_priors import target_priors
from triton_router.telemetry.snapshot_file import identity_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from triton_router.config.router_config import RouterConfig
    from triton_router.experiments.splitting_engine import SplittingEngine
    from triton_router.hardware.calibration import Calibration
    from triton_router.hardware.power_sampling import PowerSampling
    from triton_router.serving.dispatch import Dispatcher
    from triton_router.serving.parity_guard import ParityGuard
    from triton_router.serving.target_watch import TargetWatch
    from triton_router.telemetry.decision_log import DecisionLog
    from triton_router.telemetry.metrics import MetricsFlusher
    from triton_router.telemetry.snapshot_file import TargetIdentity
    from triton_router.telemetry.snapshot_keeper import SnapshotKeeper
    from triton_router.telemetry.trial_keeper import TrialKeeper


@dataclass(frozen=True, slots=True)
class RoutedModel:
    """One routed model.

    Attributes:
        name: What clients call.
        directory: Where its files lie.
        config: Its ``config.pbtxt``, completed.
        calibration: What this machine's processor was measured to do.
    """

    name: str
    directory: Path
    config: dict[str, Any]
    calibration: Calibration | None


@dataclass(frozen=True, slots=True)
class Followers:
    """What follows the settings."""

    engine: SplittingEngine
    dispatcher: Dispatcher
    metrics: MetricsFlusher
    power: PowerSampling
    watch: TargetWatch
    guard: ParityGuard
    keeper: SnapshotKeeper | None
    trials: TrialKeeper
    log: DecisionLog | None


class Following:
    """The settings in force. `follow` is for one thread.

    Args:
        model: Whose settings.
        config: Those that everything was made by.
        followers: What was made.
        tell: Writes a line to the server's log.

    Attributes:
        config: The settings in force.
    """

    def __init__(
        self, model: RoutedModel, config: RouterConfig, followers: Followers, tell: Callable[[str], None]
    ) -> None:
        self.config = config
        self._model = model
        self._followers = followers
        self._tell = tell
        # Of every target there ever was: one that comes back is known still.
        self._identities = {settings.name: identity_of(settings) for settings in config.targets}

    def follow(self, text: str) -> None:
        """Go on by the settings in a file's text.

        Raises:
            ConfigError: They are not valid, or a model that serves cannot follow them; nothing has changed.
        """
        path = self._model.directory / ROUTER_FILE
        config = validate_router_config(parse_yaml(text, source=str(path)))
        if config == self.config:
            return
        refuse_unfollowable(self.config, config, str(path))
        refuse_contradiction(config, self._model.config)
        refuse_cycle(router_cycle(self._model.directory.parent, self._model.directory.name))
        self._refuse_strangers(config)
        self._change(config)
        self._tell(f"routed model {self._model.name!r} follows the settings of {path} as they are now")

    def _refuse_strangers(self, config: RouterConfig) -> None:
        model = self._model
        before = {target.model for target in self.config.targets}
        new = sorted({target.model for target in config.targets} - before)
        unknown = refuse_unsuitable(model.directory.parent, new, before, model.config, streaming=config.streaming)
        if unknown:
            self._tell(f"nobody has checked whether {', '.join(new)} can serve what {model.name!r} serves: {unknown}")

    def _change(self, config: RouterConfig) -> None:
        followers, keeper = self._followers, self._followers.keeper
        identities = {settings.name: identity_of(settings) for settings in config.targets}
        known = self._identities
        kept = {name for name, identity in identities.items() if name in known and known[name].may_be(identity)}
        new = [settings for settings in config.targets if settings.name not in kept]
        learned = keeper.known_of(new) if keeper else {}
        priors = target_priors(self._model.directory, config.targets, self._model.calibration)
        with (
            followers.trials.following(trials_of(config, self._model.name)),
            keeper.changing(config.targets, config.state.interval_s) if keeper else nullcontext(),
        ):
            added = configured_engine.reconfigure(
                followers.engine, config, self._model.name, learned, kept=kept, priors=priors
            )
        if followers.log:
            followers.log.go_by(config)
        followers.metrics.expect(added)
        followers.metrics.publish(
            interval_s=config.router_config.metrics_interval, publishes=config.router_config.enable_metrics
        )
        assembly.reconfigure(followers.dispatcher, self.config, config, self._model.config)
        followers.power.add(readers(frozenset(settings.backend for settings in config.targets)))
        followers.watch.follow(config.targets, config.health.check_interval_s)
        followers.guard.go_by(config)
        self._identities = _latest(self._identities, identities)
        self.config = config


_MOST_REMEMBERED = 1024


def _latest(before: dict[str, TargetIdentity], now: dict[str, TargetIdentity]) -> dict[str, TargetIdentity]:
    """Return what is known of every target's identity; the longest gone are forgotten."""
    everything = {name: identity for name, identity in before.items() if name not in now} | now
    return dict(list(everything.items())[-_MOST_REMEMBERED:])
