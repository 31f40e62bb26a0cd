"""What has been observed of a rollout or an experiment: asked of the routers that serve, else read from their files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from triton_router.cli import live, output
from triton_router.config.router_config import ROUTER_FILE
from triton_router.config.routing_of import plan_of, splits_of
from triton_router.experiments.ab_results import Experiment
from triton_router.experiments.rollout import Rollout
from triton_router.experiments.rollout_plan import PAUSED, PROMOTED, ROLLED_BACK, RUNNING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from triton_router.config.rollout_settings import RolloutConfig
    from triton_router.config.router_config import RouterConfig
    from triton_router.config.routing_settings import ExperimentSettings
    from triton_router.telemetry.trial_files import TrialState

AUDIT_ENTRIES = 5
"""Entries of the audit log that a status shows."""


class Observed(NamedTuple):
    """One instance's account.

    Attributes:
        source: Where it comes from.
        report: As the instance gave it.
    """

    source: str
    report: dict[str, Any]


def rollout_reports(args: argparse.Namespace, rollout: RolloutConfig) -> list[Observed]:
    """Return what is known of a rollout: of every instance that serves here, or else of each that has left a file."""
    asked = [one for one in _live_reports(args, "rollout") if one.report["id"] == rollout.id]
    return asked or [
        Observed(_left_at(state), found.report(state.written_at))
        for state in _left_states(args)
        if rollout.id in state.rollouts and (found := _rollout_of(rollout, state.rollouts[rollout.id])) is not None
    ]


def experiment_reports(args: argparse.Namespace, config: RouterConfig, test: ExperimentSettings) -> list[Observed]:
    """Return what is known of an experiment; what several instances have left is added up."""
    asked = [one for one in _live_reports(args, "experiment") if one.report["experiment_id"] == test.experiment_id]
    left = [state for state in ([] if asked else _left_states(args)) if test.experiment_id in state.experiments]
    split = next((one for one in splits_of(config) if one.experiment_id == test.experiment_id), None)
    if asked or not left or split is None:
        return asked
    states = [state.experiments[test.experiment_id] for state in left]
    try:
        found = Experiment.from_state(split, states[0])
    except ValueError as error:
        output.note(f"note: what {_left_at(left[0])} says cannot be used: {error}")
        return []
    return [Observed(_left_at(left[0]), found.report(left[0].written_at, states[1:]))]


def audit_entries(args: argparse.Namespace, rollout: RolloutConfig) -> list[dict[str, Any]]:
    """Return the last entries of the audit log about a rollout, oldest first."""
    from triton_router.telemetry.audit_log import read_audit_log
    from triton_router.telemetry.trial_files import audit_log_of

    path = audit_log_of(state_place(args), args.model)
    try:
        entries = read_audit_log(path)
    except OSError as error:
        output.note(f"note: the audit log {path} cannot be read: {error.strerror}")
        return []
    return [entry for entry in entries if entry.get("rollout") == rollout.id][-AUDIT_ENTRIES:]


def phase_of(args: argparse.Namespace, rollout: RolloutConfig) -> str:
    """Return a rollout's phase: as was decided by hand, else as was observed, else as it begins."""
    if rollout.outcome is not None:
        return PROMOTED if rollout.outcome == "promote" else ROLLED_BACK
    return _phase([one.report["phase"] for one in rollout_reports(args, rollout)]) or (
        PAUSED if rollout.paused else RUNNING
    )


def state_place(args: argparse.Namespace) -> Path:
    """Return the state directory: the one given, that of a router that serves here, or that of ``serve``."""
    from triton_router.serving.launcher.state_place import default_state_directory

    if args.state is not None:
        return args.state
    statuses = live.serving(args.repository / args.model / ROUTER_FILE)
    kept = next((status["trials"]["directory"] for status in statuses if status.get("trials")), "")
    return Path(kept) if kept else default_state_directory([args.repository])


def _live_reports(args: argparse.Namespace, kind: str) -> list[Observed]:
    statuses = live.serving(args.repository / args.model / ROUTER_FILE)
    return [Observed(f"live, server {status['server_pid']}", status[kind]) for status in statuses if status.get(kind)]


def _left_states(args: argparse.Namespace) -> list[TrialState]:
    from triton_router.telemetry.trial_files import TrialFiles

    files = TrialFiles(state_place(args), args.model, "")
    states = sorted(files.others(), key=lambda state: state.written_at, reverse=True)
    for problem in files.problems:
        output.note(f"note: {problem}")
    return states


def _rollout_of(rollout: RolloutConfig, state: dict[str, Any]) -> Rollout | None:
    try:
        return Rollout.from_state(plan_of(rollout), state)
    except ValueError as error:
        output.note(f"note: what is kept of rollout {rollout.id} cannot be used: {error}")
        return None


def _left_at(state: TrialState) -> str:
    return time.strftime("as it was at %Y-%m-%d %H:%M:%S UTC, from the state directory", time.gmtime(state.written_at))


def _phase(phases: Sequence[str]) -> str:
    """Return the phase of several instances: rolled back if one has, promoted if all have."""
    if ROLLED_BACK in phases:
        return ROLLED_BACK
    return next((phase for phase in phases if phase != PROMOTED), phases[0] if phases else "")
