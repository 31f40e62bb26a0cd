"""``triton-router explain``: what would be chosen for a request, and why, without a server."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from triton_router.cli.arguments import milliseconds
from triton_router.cli.command import Subparsers, add_parser
from triton_router.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triton_router.config.router_config import RouterConfig
    from triton_router.experiments.splitting_engine import SplittingEngine
    from triton_router.profiling.profile import TargetProfile
    from triton_router.routing.types import RoutingContext
    from triton_router.telemetry.snapshot_file import Snapshot

_DESCRIPTION = """\
Decide as the routed model would, from its router.yaml and what it has learned, by the same engine, and show each
target's prediction, its score by scorer and how probable it is to be chosen, or why it is not considered. Nothing
is in flight: what load would change, it does not show."""

_EXAMPLES = """\
  triton-router explain minilm --repository models --batch 8
  triton-router explain minilm --repository models --shape 8,128 --goal power
  triton-router explain minilm --repository models --max-latency-ms 20 --backends cpu,gpu --json
  triton-router explain minilm --repository models --snapshot a.json --snapshot b.json   # of two instances, added up"""

GOALS = ("latency", "throughput", "power", "balanced")
_WAITS_NOTHING = 0.0


class Evidence(NamedTuple):
    """What an explanation rests on.

    Attributes:
        profiles: By target; those not in it are known from their build alone.
        snapshots: Where they come from.
        notes: What to know of it besides, each a sentence.
    """

    profiles: dict[str, TargetProfile]
    snapshots: list[Snapshot]
    notes: list[str]


def register(subparsers: Subparsers) -> None:
    """Add the parser of this command."""
    parser = add_parser(
        subparsers,
        "explain",
        summary="what would be chosen for a request, and why",
        description=_DESCRIPTION,
        examples=_EXAMPLES,
    )
    parser.add_argument("model", metavar="MODEL", help="the routed model")
    parser.add_argument("--repository", type=Path, required=True, metavar="DIR", help="model repository")
    learned = parser.add_mutually_exclusive_group()
    learned.add_argument(
        "--state", type=Path, metavar="DIR", help="state directory (default: that of 'serve' for the repository)"
    )
    learned.add_argument(
        "--snapshot",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a snapshot instead; several of different instances are added up",
    )
    parser.add_argument("--batch", type=_positive, metavar="N", help="rows of the request (default: 1)")
    parser.add_argument(
        "--shape", type=_shape, metavar="N,N...", help="shape of its largest input, batch dimension included"
    )
    parser.add_argument(
        "--text-bytes", type=_positive, metavar="N", help="bytes of its strings, all together, where it has any"
    )
    parser.add_argument("--goal", choices=GOALS, default="balanced", help="its own wish (default: the policy's)")
    parser.add_argument(
        "--key", default="", metavar="KEY", help="what its caller stays with in a rollout or experiment (default: none)"
    )
    parser.add_argument("--max-latency-ms", type=milliseconds, metavar="MS", help="its latency bound")
    parser.add_argument("--backends", metavar="NAME,...", help="backends that may serve it")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Explain, and print it."""
    from triton_router.cli import explain_report, output
    from triton_router.cli.request_size import guesses
    from triton_router.config.configured_engine import configured_engine
    from triton_router.config.router_config import ROUTER_FILE, load_router_config
    from triton_router.hardware.calibration import read_calibration
    from triton_router.hardware.machine import machine_name
    from triton_router.serving.explanation_json import as_json
    from triton_router.serving.target_priors import target_priors

    config = load_router_config(args.repository / args.model / ROUTER_FILE)
    evidence = _evidence(args, config)
    context, notes = _context(args, config)
    calibration = read_calibration(_state_place(args), machine_name())
    priors = target_priors(args.repository / args.model, config.targets, calibration)
    engine = configured_engine(config, args.model, evidence.profiles, rng=lambda: 0.5, priors=priors)
    observed = [] if args.snapshot else _go_on(args, engine)
    explanation = engine.explain(context, _WAITS_NOTHING)
    notes += guesses(context, evidence.profiles)
    are_measured = any(target.measured_latency for target in config.targets)
    basis = explain_report.basis(evidence.snapshots, evidence.profiles, time.time(), are_measured=are_measured)
    if args.json:
        output.print_json(
            {
                "model": args.model,
                "rows": context.batch_size,
                "work": context.work,
                "basis": basis,
                "notes": [*evidence.notes, *observed, *notes],
                **as_json(explanation),
            }
        )
    else:
        for note in (*evidence.notes, *observed, *notes):
            output.note(f"note: {note}")
        unit = "bytes of text" if args.text_bytes else "elements"
        explain_report.print_report(args.model, explanation, context, basis, unit)
    return 0 if explanation.chosen is not None else 1


def _go_on(args: argparse.Namespace, engine: SplittingEngine) -> list[str]:
    """Have a rollout be where the routers that serve have brought it; return what cannot be used, for people."""
    from triton_router.telemetry.trial_files import TrialFiles

    files = TrialFiles(_state_place(args), args.model, "")
    state = engine.rollout_state()
    problems: list[str] = []
    if state is not None and files.path.exists():
        name = str(state["id"])
        known = [other for other in files.others() if name in other.rollouts]
        latest = max(known, key=lambda other: other.written_at, default=None)
        try:
            engine.resume(rollout=latest.rollouts[name] if latest else None)
        except ValueError as error:
            problems.append(f"what is known of rollout {name} cannot be used: {error}")
    engine.step(time.time())
    return [*files.problems, *problems]


def _evidence(args: argparse.Namespace, config: RouterConfig) -> Evidence:
    import socket

    from triton_router.hardware.machine import machine_name
    from triton_router.telemetry.inheritance import inherit, profiles_in
    from triton_router.telemetry.snapshot_file import read_snapshot
    from triton_router.telemetry.state_directory import StateDirectory

    notes: list[str] = []
    if args.snapshot:
        snapshots = [read_snapshot(path) for path in args.snapshot]
        for snapshot in snapshots:
            profiles_in(snapshot, expected_model=args.model)
    else:
        if args.state and not args.state.is_dir():
            raise NotFoundError(
                f"there is no state directory {args.state}", hint="leave --state out for that of 'serve'"
            )
        found = StateDirectory(_state_place(args), args.model, socket.gethostname()).find(set_aside=False)
        notes += found.problems
        snapshots = found.to_begin_with
    inheritance = inherit(snapshots, config.targets, None if args.snapshot else machine_name())
    return Evidence(inheritance.profiles, snapshots, [*notes, *inheritance.left])


def _state_place(args: argparse.Namespace) -> Path:
    from triton_router.serving.launcher.state_place import default_state_directory

    given: Path | None = args.state
    return given or default_state_directory([args.repository])


def _context(args: argparse.Namespace, config: RouterConfig) -> tuple[RoutingContext, list[str]]:
    from triton_router.cli.request_size import absent_models, refuse_what_triton_would, rows_of, work_of
    from triton_router.routing.types import OptimizationGoal, RoutingContext
    from triton_router.serving.overrides import backends, caller

    refuse_what_triton_would(args, config)
    rows = rows_of(args, config)
    work, note = work_of(args, config, rows)
    return (
        RoutingContext(
            batch_size=rows,
            work=work,
            key=caller("--key", args.key) if args.key else "",
            max_latency_ms=args.max_latency_ms or 0.0,
            optimization_goal=OptimizationGoal(args.goal),
            allowed_backends=None if args.backends is None else backends("--backends", args.backends),
        ),
        [*absent_models(args, config), *([note] if note else [])],
    )


def _positive(text: str) -> int:
    value = int(text) if text.isascii() and text.isdigit() else 0
    if not 0 < value < 1 << 31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on, such as 8")
    return value


def _shape(text: str) -> tuple[int, ...]:
    parts: Sequence[str] = text.split(",")
    if not all(part.isascii() and part.isdigit() and 0 < int(part) < 1 << 31 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a shape, such as 8,128")
    return tuple(int(part) for part in parts)
