"""How ``triton-router canary`` says how a rollout stands."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from triton_router.cli import output
from triton_router.config.printable import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from triton_router.cli.rollout_source import Observed
    from triton_router.config.rollout_settings import RolloutConfig

_ARM_HEADERS = ("arm", "answers", "failures", "share", "latency ms", "refused", "cancelled")
_TEST_HEADERS = ("test", "e-value", "alarm at", "", "what it sees")
_AUDIT_HEADERS = ("when (UTC)", "who", "what", "share", "why")
_MINUTE_S, _HOUR_S = 60, 3600


class State(NamedTuple):
    """What a status says.

    Attributes:
        model: The routed model.
        rollout: As router.yaml has it.
        phase: As far as is known.
        reports: Of each instance.
        audit: The last changes, oldest first.
    """

    model: str
    rollout: RolloutConfig
    phase: str
    reports: list[Observed]
    audit: list[dict[str, Any]]


def begun(model: str, done: dict[str, Any]) -> str:
    """Return in words what a start has done."""
    rollout = done["rollout"]
    pinned = "".join(f"; {name} is pinned to version {version}" for name, version in done.get("pinned", {}).items())
    return f"rollout {rollout['id']} of {model} begins: {', '.join(rollout['canary'])} gets {course(rollout)}{pinned}"


def course(rollout: Mapping[str, Any]) -> str:
    """Return in words what share a canary gets, or what shares one after the other."""
    if rollout.get("weight") is not None:
        return f"{rollout['weight']:g}% of the requests"
    return (
        f"{' -> '.join(f'{step:g}%' for step in rollout['steps'])} of the requests, {lasting(rollout['hold_s'])} each"
    )


def how_to_end(model: str, repository: Path, lost: Sequence[str]) -> str:
    """Return what ends a rollout that has been decided.

    Args:
        model: The routed model.
        repository: The model repository.
        lost: Names of the targets that get no requests any more.
    """
    them, verb = ("it", "stays") if len(lost) == 1 else ("they", "stay")
    return (
        f"'{_finish(model, repository)}' takes {', '.join(lost)} out of router.yaml; with --keep {them} {verb}, "
        "and the policy chooses among all targets again"
    )


def _finish(model: str, repository: Path, option: str = "") -> str:
    return f"triton-router canary finish {model} {option}--repository {shlex.quote(str(repository))}"


def still_loaded(model: str, repository: Path, left: Mapping[str, Sequence[int]]) -> list[str]:
    """Return what to do about what no target calls any more and stays in memory.

    Args:
        model: The routed model.
        repository: The model repository.
        left: Versions that are called still, by model.
    """
    lines: list[str] = []
    for called, versions in left.items():
        if versions:
            command = _finish(model, repository, "--unload ")
            lines.append(f"other versions of {called} may still be loaded: '{command}' lets go of them")
        else:
            lines.append(f"{called} may still be loaded: triton-router models unload {called}")
    return lines


def as_json(state: State) -> dict[str, Any]:
    """Return a status for machines."""
    return {
        "model": state.model,
        "phase": state.phase,
        "rollout": state.rollout.model_dump(mode="json", exclude_none=True),
        "instances": [{"source": one.source, **one.report} for one in state.reports],
        "audit": state.audit,
    }


def print_status(state: State) -> None:
    """Print a status for people."""
    rollout = state.rollout
    if not state.reports:
        names = ", ".join(rollout.canary)
        print(printable(f"{state.model}: rollout {rollout.id} of {names}, {state.phase} as router.yaml has it"))
        output.note("note: nothing was observed of it yet: no router serves it here, and none has left a file")
    for source, report in state.reports:
        for line in _head(state.model, report):
            print(printable(line))
        output.print_table(_ARM_HEADERS, [_arm(name, arm) for name, arm in report["arms"].items()])
        output.print_table(_TEST_HEADERS, [_test(test) for test in report["tests"]])
        print(printable(f"({source})"))
    if state.audit:
        output.print_table(_AUDIT_HEADERS, [_entry(entry) for entry in state.audit])


def lasting(seconds: float) -> str:
    """Return a duration in words."""
    if seconds < _MINUTE_S:
        return f"{seconds:g}s"
    if seconds < _HOUR_S:
        return f"{seconds / _MINUTE_S:.3g}m"
    return f"{seconds / _HOUR_S:.3g}h"


def _head(model: str, report: dict[str, Any]) -> list[str]:
    steps = "" if report["step"] is None else f", step {report['step']} of {len(report['steps'])}"
    since = "" if report["for_s"] is None else f", for {lasting(round(report['for_s']))}"
    lines = [
        f"{model}: rollout {report['id']} of {', '.join(report['canary'])}",
        f"{report['phase']}{steps}: {_share(report)} of the requests{since}",
    ]
    if report["waiting_for"]:
        lines.append(f"waits for: {report['waiting_for']}")
    if report["reason"]:
        lines.append(f"last change: {report['reason']}")
    if report["alarms"]:
        lines.append(f"alarms: {', '.join(report['alarms'])}")
    if report["compared"]:
        lines.append(f"compared with stable: {report['compared']} answers, {report['diverged']} too far off")
    return lines


def _share(report: dict[str, Any]) -> str:
    share = f"{report['share']:.4%}".replace(".0000%", "%")
    return f"{share} (100% once it has stood this step)" if report["step_share"] == 1.0 else share


def _arm(name: str, arm: dict[str, Any]) -> tuple[object, ...]:
    share, latency = arm["failure_share"], arm["latency_ms"]
    return (
        name,
        arm["answers"],
        arm["failures"],
        "-" if share is None else f"{share:.3%}",
        "-" if latency is None else f"{latency:.3f}",
        arm["refused"],
        arm["cancelled"],
    )


def _test(test: dict[str, Any]) -> tuple[object, ...]:
    return (
        test["name"],
        f"{test['e_value']:.3g}",
        f"{test['bound']:.4g}",
        "ALARM" if test["alarm"] else "",
        test["text"],
    )


def _entry(entry: dict[str, Any]) -> tuple[object, ...]:
    return (
        time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(entry.get("at", 0.0))),
        entry.get("by", ""),
        entry.get("event", ""),
        f"{entry.get('before', 0.0):.4g} -> {entry.get('after', 0.0):.4g}",
        entry.get("reason", ""),
    )
