"""What has been observed of a rollout or an experiment: asked of the routers that serve, else read from their files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from triton_router.cli import live
from triton_router.config.router_config import ROUTER_FILE
from triton_router.experiments.rollout_plan import PAUSED, PROMOTED, ROLLED_BACK, RUNNING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from triton_router.config.rollout_settings import RolloutConfig
    from triton_router.config.routing_settings import ExperimentSettings


class Observed(NamedTuple):
    """One instance's account.

    Attributes:
        source: Where it comes from.
        report: As the instance gave it.
    """

    source: str
    report: dict[str, Any]


def live_reports(args: argparse.Namespace, kind: str) -> list[Observed]:
    """Return what the processes that serve a model here report of its ``rollout`` or ``experiment``."""
    statuses = live.serving(args.repository / args.model / ROUTER_FILE)
    return [Observed(f"live, server {status['server_pid']}", status[kind]) for status in statuses if status.get(kind)]


def rollout_reports(args: argparse.Namespace, rollout: RolloutConfig) -> list[Observed]:
    """Return what is known of a rollout."""
    return [one for one in live_reports(args, "rollout") if one.report["id"] == rollout.id]


def experiment_reports(args: argparse.Namespace, test: ExperimentSettings) -> list[Observed]:
    """Return what is known of an experiment."""
    return [one for one in live_reports(args, "experiment") if one.report["experiment_id"] == test.experiment_id]


def phase_of(args: argparse.Namespace, rollout: RolloutConfig) -> str:
    """Return a rollout's phase: as was decided by hand, else as was observed, else as it begins."""
    if rollout.outcome is not None:
        return PROMOTED if rollout.outcome == "promote" else ROLLED_BACK
    return _phase([one.report["phase"] for one in rollout_reports(args, rollout)]) or (
        PAUSED if rollout.paused else RUNNING
    )


def _phase(phases: Sequence[str]) -> str:
    """Return the phase of several instances: rolled back if one has, promoted if all have."""
    if ROLLED_BACK in phases:
        return ROLLED_BACK
    return next((phase for phase in phases if phase != PROMOTED), phases[0] if phases else "")
