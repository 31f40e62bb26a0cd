"""``triton-router status``: what the routed models on this machine are doing right now."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from triton_router.cli import output
from triton_router.cli.command import Subparsers, add_parser
from triton_router.config.printable import printable
from triton_router.errors import NotFoundError

if TYPE_CHECKING:
    import argparse

_HEADERS = (
    "target",
    "requests",
    "share",
    "copies",
    "p50 ms",
    "p90 ms",
    "p99 ms",
    "predicted",
    "measured",
    "in flight",
    "errors",
    "power",
    "state",
)

_EXAMPLES = """\
  triton-router status
  triton-router status minilm --json"""


def register(subparsers: Subparsers) -> None:
    """Add the parser of this command."""
    parser = add_parser(
        subparsers,
        "status",
        summary="live view of routed models: traffic, latency, predictions",
        description="Ask the routed models that run on this machine. 'copies' are those of requests, sent to a target "
        "to learn from; its latencies are those of requests and copies. 'predicted' and 'measured' are mean latencies "
        "in milliseconds over the same ones. 'power' is measured, or as declared (~), or unknown (-). "
        "'state' is ok, failing (since its last answer), resting (left out, and why), on trial (one request "
        "at a time finds out how it is), returning (carrying a growing part of its share), or "
        "removed from router.yaml and finishing what it has in flight, "
        "and the latest change of its speed.",
        examples=_EXAMPLES,
    )
    parser.add_argument("model", nargs="?", metavar="MODEL", help="only this routed model")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print the status."""
    from triton_router.serving.status_socket import read_statuses

    statuses = [status for status in read_statuses(tell=output.note) if args.model in {None, status["model"]}]
    if not statuses:
        raise NotFoundError(
            f"no routed model called {args.model!r} runs on this machine",
            hint="triton-router status lists those that do",
        )
    if args.json:
        # In ASCII, unlike other commands: a server's names are whatever its repository holds.
        print(json.dumps(statuses, indent=2))
        return 0
    for status in statuses:
        print(printable(f"{status['model']}  (policy {status['policy']}, server {status['server_pid']})"))
        output.print_table(_HEADERS, rows(status))
        for line in remarks(status):
            print(printable(line))
    return 0


def rows(status: dict[str, Any]) -> list[tuple[object, ...]]:
    """Return one row per target, in the order of `_HEADERS`."""
    chosen = sum(target["chosen"] for target in status["targets"]) or 1
    return [_row(target, chosen) for target in status["targets"]]


def remarks(status: dict[str, Any]) -> list[str]:
    """Return what else is to be known: what is kept and what is not measured; nothing of older servers."""
    lines: list[str] = []
    settings = status["settings"]
    if settings is not None and settings["problem"]:
        lines.append(f"not followed: {settings['problem']}; the settings of before stay in force")
    sharing = status["sharing"]
    if sharing is not None and sharing["problem"]:
        lines.append(f"sharing: {sharing['problem']}")
    if sharing is not None and sharing["instances"] > 1:
        lines.append(f"shares load and what it learns with {sharing['instances'] - 1} more on this host")
    state = status["state"]
    if state is not None and state["problem"]:
        lines.append(f"not kept: {state['problem']} ({state['errors']} errors)")
    elif state is not None and state["saved_at"]:
        lines.append(f"kept in {state['directory']}")
    if state is not None:
        lines += [f"state: {remark}" for remark in state["remarks"]]
    log = status["decision_log"]
    if log is not None and log["problem"]:
        lines.append(f"decision log {log['file']}: {log['problem']} ({log['dropped']} records dropped)")
    lines += _trials(status)
    lines += _parity(status)
    lines += [f"power of {backend}: {meter}" for backend, meter in status["power"].items()]
    return lines


def _trials(status: dict[str, Any]) -> list[str]:
    """Return how rollout and experiment stand, in a line each."""
    lines: list[str] = []
    rollout, experiment, trials = status["rollout"], status["experiment"], status["trials"]
    if rollout is not None:
        why = rollout["waiting_for"] or rollout["reason"]
        phase = rollout["phase"].replace("_", " ")
        lines.append(
            f"rollout {rollout['id']}: {phase}, {100 * rollout['share']:.4g}% of the requests are canary's; {why}"
        )
    if experiment is not None:
        lines.append(f"experiment {experiment['experiment_id']}: {experiment['verdict']}")
    if trials is not None and trials["problem"]:
        lines.append(f"rollouts: {trials['problem']} ({trials['errors']} errors)")
    if trials is not None:
        lines += [f"rollouts: {remark}" for remark in trials["remarks"]]
    return lines


def _parity(status: dict[str, Any]) -> list[str]:
    """Return what comparisons of answers have found, in a line for each target that differed."""
    parity = status["parity"]
    if parity is None:
        return []
    lines = [f"answers are not compared: {parity['why_off']}"] if parity["why_off"] else []
    lines += [parity["problem"]] if parity["problem"] else []
    for name, found in parity["targets"].items():
        if found["differed"]:
            compared = found["agreed"] + found["differed"]
            lines.append(f"answers of {name}: {found['differed']} of {compared} that were compared differ")
    return lines


def _row(target: dict[str, Any], chosen: int) -> tuple[object, ...]:
    latency = target["latency"]
    predicted = latency["predicted"] or 1
    return (
        printable(target["target"]["name"]),
        target["chosen"],
        f"{target['chosen'] / chosen:.1%}",
        target["mirrored"],
        _ms(latency["p50_ms"]),
        _ms(latency["p90_ms"]),
        _ms(latency["p99_ms"]),
        _ms(latency["predicted_total_ms"] / predicted),
        _ms(latency["measured_total_ms"] / predicted),
        target["in_flight"],
        target["failed"],
        _power(target["power_w"]),
        _state(target) + _drift(target),
    )


def _ms(value: float) -> str:
    return f"{value:.2f}" if value else "-"


def _power(figure: dict[str, Any]) -> str:
    if figure["source"] == "unknown":
        return "-"
    return f"{'' if figure['source'] == 'measured' else '~'}{figure['value']:.4g} W"


def _drift(target: dict[str, Any]) -> str:
    drift = target["last_drift"]
    return f", became {printable(drift['direction'])} x{drift['factor']:.2f}" if drift else ""


def _state(target: dict[str, Any]) -> str:
    if target["removed"]:
        return "removed, finishing"
    stage, why = target["stage"], printable(target["why"])
    if target["resting"] or stage == "trial":
        state = "resting" if target["resting"] else "on trial"
        return f"{state} ({why})" if why else state
    if stage == "returning":
        return "returning"
    failures = target["consecutive_failures"]
    return f"failing ({failures} in a row)" if failures else "ok"
