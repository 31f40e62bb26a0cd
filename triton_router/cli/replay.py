"""``triton-router replay``: what another policy would have done on a recorded trace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from triton_router.cli import output
from triton_router.cli.arguments import positive, share
from triton_router.cli.command import Subparsers, add_parser
from triton_router.config.printable import printable

if TYPE_CHECKING:
    import argparse

    from triton_router.simulation.estimators import Estimate
    from triton_router.simulation.replay import Replay
    from triton_router.telemetry.decision_reading import DecisionTrace

_HEADERS = (
    "policy",
    "decisions",
    "agrees",
    "logged ms",
    "dr ms",
    "snips ms",
    "ips ms",
    "evidence",
    "verdict",
    "targets",
)
_MOST_SHARES = 4
_MANY = 0.1
"""Decisions about which nothing can be said, to those about which something is, from which on that is said."""

_EXAMPLES = """\
  triton-router replay minilm.jsonl --policy throughput
  triton-router replay minilm.jsonl --policy latency --policy slo --json"""


def register(subparsers: Subparsers) -> None:
    """Add the parser of this command."""
    parser = add_parser(
        subparsers,
        "replay",
        summary="what another policy would have done, from a decision log",
        description="Estimate, from the logged propensities, the mean latency that other policies would have measured "
        "(with 95% confidence intervals). 'agrees' is how often a policy would have chosen what was chosen, 'evidence' "
        "how many decisions' worth the estimates rest on. A verdict of 'poor' means: do not believe them.",
        examples=_EXAMPLES,
    )
    parser.add_argument("log", type=Path, metavar="LOG", help="a decision log")
    parser.add_argument(
        "--policy", action="append", required=True, metavar="NAME", help="the policy in question; may be repeated"
    )
    parser.add_argument("--explore", type=share, default=0.0, metavar="X", help="share it explores with (default: 0)")
    parser.add_argument("--limit", type=positive, metavar="N", help="most decisions to read (default: 200000)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Replay a log, and print what came of it."""
    from triton_router.routing.policies import policy_named
    from triton_router.simulation.replay import replay
    from triton_router.telemetry.decision_reading import MOST_RECORDS, read_decision_log

    limit = MOST_RECORDS if args.limit is None else args.limit
    policies = [policy_named(name) for name in dict.fromkeys(args.policy)]
    trace = read_decision_log(args.log, limit=limit)
    for text in trace.notes:
        output.note(f"note: {text}")
    replays = [replay(trace, policy, explore=args.explore) for policy in policies]
    for one in replays:
        if one.left.unknown_latency > _MANY * one.decisions:
            output.note(
                f"note: {one.policy}: {one.left.unknown_latency} decisions say nothing, because a target that it might "
                f"have chosen had not answered yet; {one.decisions} do"
            )
        for complaint in one.complaints:
            output.note(f"warning: {one.policy}: {complaint}")
    if any(one.complaints for one in replays):
        output.hint("log a policy that tries more: a higher 'explore', or policy 'random' for a while")
    if args.json:
        output.print_json(_json(trace, replays))
    else:
        print(printable(f"{trace.model}  (logged under {trace.policy}, {len(trace.records)} decisions)"))
        output.print_table(_HEADERS, [_row(one) for one in replays])
    return 0


def _row(one: Replay) -> tuple[object, ...]:
    shares = [f"{name} {share:.0%}" for name, share in list(one.shares.items())[:_MOST_SHARES]]
    return (
        one.policy,
        one.decisions,
        f"{one.agreement:.1%}",
        _estimate(one.logged),
        _estimate(one.dr),
        _estimate(one.snips),
        _estimate(one.ips),
        f"{one.overlap.effective:.0f}",
        "poor" if one.complaints else "good",
        printable(", ".join(shares)),
    )


def _estimate(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    return f"{estimate.mean:.2f} ({estimate.low:.2f}..{estimate.high:.2f})"


def _json(trace: DecisionTrace, replays: list[Replay]) -> dict[str, object]:
    from dataclasses import asdict

    return {
        "model": trace.model,
        "logged_policy": trace.policy,
        "records": len(trace.records),
        "notes": trace.notes,
        "policies": [
            {
                **asdict(one),
                **{name: _interval(getattr(one, name)) for name in ("logged", "dr", "snips", "ips")},
                "overlap": one.overlap._asdict(),
            }
            for one in replays
        ],
    }


def _interval(estimate: Estimate | None) -> dict[str, float | None] | None:
    """Return an estimate for JSON, which knows no infinity."""
    if estimate is None:
        return None
    return {name: value if abs(value) != float("inf") else None for name, value in estimate._asdict().items()}
