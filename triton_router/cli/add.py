"""``triton-router add``: from one model file to a routed model in a Triton repository."""

from __future__ import annotations

import argparse
import math
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from triton_router.cli import output
from triton_router.cli.arguments import count, positive
from triton_router.cli.command import Subparsers, add_parser

if TYPE_CHECKING:
    from types import FrameType

    from triton_router.repository.add import AddRequest

_DESCRIPTION = """\
Analyse MODEL, plan its variants, build each in a child process with limits, check each against the model's own
answers, and install those that pass: one Triton model per target, and the routed model that clients call."""

_EXAMPLES = """\
  triton-router add model.onnx --name minilm --repository models
  triton-router add examples.minilm.model:factory --name minilm --repository models --targets onnx-cpu,pt2-cpu
  triton-router add model.pt2 --sha256 "$(sha256sum model.pt2 | cut -d' ' -f1)" --name m --repository models
  triton-router add model.onnx --name minilm --repository models --dry-run"""

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def register(subparsers: Subparsers) -> None:
    """Add the parser of this command."""
    parser = add_parser(
        subparsers,
        "add",
        summary="compile a model into variants and put it into a repository as a routed model",
        description=_DESCRIPTION,
        examples=_EXAMPLES,
    )
    parser.add_argument("model", metavar="MODEL", help="MODEL.onnx, MODEL.pt2 or package.module:factory")
    parser.add_argument("--name", required=True, help="name that clients call")
    parser.add_argument("--repository", type=Path, required=True, metavar="DIR", help="Triton model repository")
    parser.add_argument("--targets", type=_names, metavar="A,B", help="make only these targets")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and write nothing")
    parser.add_argument("--version", type=positive, metavar="N", help="version to write (default: the next one)")
    parser.add_argument("--sha256", metavar="HEX", help="digest that the file must have; permits a .pt2 from elsewhere")
    parser.add_argument(
        "--hardware", type=_names, metavar="A,B", help="what the server has: cpu, gpu, ane, mps (default: this machine)"
    )
    parser.add_argument("--max-batch-size", type=count, metavar="N", help="largest batch; 0 turns batching off")
    parser.add_argument("--memory-limit", type=_bytes, metavar="BYTES", help="memory of one build step, such as 8G")
    parser.add_argument("--time-limit", type=_seconds, metavar="SECONDS", help="time of one build step")
    parser.add_argument(
        "--allow-domain",
        action="append",
        default=[],
        metavar="DOMAIN",
        help="ONNX operator domain to accept beside ONNX's own; may be repeated",
    )
    parser.add_argument(
        "--example-inputs", type=Path, metavar="FILE.npz", help="real inputs, one array per input, for checks"
    )
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Plan, and unless ``--dry-run`` build and install."""
    # These bring the builder; --help stays quick without it.
    from triton_router.cli.add_progress import progress
    from triton_router.cli.add_report import print_added, print_plan
    from triton_router.repository.add import add, make_plan

    request = _request(args)
    # A terminated run cleans up after itself as one that Ctrl-C ended does.
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with progress() as bar:
            planned = make_plan(request, bar)
            added = None if args.dry_run else add(request, planned, bar)
    finally:
        signal.signal(signal.SIGTERM, previous)
    if added is None:
        print_plan(planned, as_json=args.json)
        return 0
    print_added(request, planned, added, as_json=args.json)
    if not args.json:
        output.hint(f"triton-router serve --repository {request.repository}")
    return 0


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _request(args: argparse.Namespace) -> AddRequest:
    from dataclasses import replace

    from triton_router.repository.add import AddRequest
    from triton_router.repository.sandbox import Limits

    limits = Limits()
    if args.memory_limit is not None:
        limits = replace(limits, memory_bytes=args.memory_limit)
    if args.time_limit is not None:
        limits = replace(limits, wall_seconds=args.time_limit)
    return AddRequest(
        model=args.model,
        name=args.name,
        repository=args.repository,
        targets=args.targets,
        version=args.version,
        sha256=args.sha256,
        hardware=args.hardware,
        max_batch_size=args.max_batch_size,
        example_inputs=args.example_inputs,
        allowed_domains=tuple(args.allow_domain),
        limits=limits,
    )


def _names(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    if not names:
        raise argparse.ArgumentTypeError("give at least one name")
    return names


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+)([kmg]?)i?b?", text.strip().lower())
    if match is None or int(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: give bytes, or 512M, or 8G")
    return int(match[1]) * _UNITS[match[2]]
