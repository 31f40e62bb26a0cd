"""``triton-router canary``: let a new version, or another variant, take over step by step while it does well."""

from __future__ import annotations

import argparse
import getpass
from pathlib import Path

from triton_router.cli.command import Subparsers, add_parser
from triton_router.cli.connection import add_connection_options, add_repository_option

_DESCRIPTION = """\
Edit the rollout in a routed model's router.yaml, which a serving router follows within a second. 'start --version'
has the server load that version beside the one that serves, and moves nothing before both are up. At each step a gate
compares the canary's errors, latency and answers with the others', goes on, or takes all requests away from it."""

_EXAMPLES = """\
  triton-router canary start minilm --version 2 --steps 1,5,25,50,100 --hold 10m --repository models
  triton-router canary start minilm --target onnx-int8-cpu --weight 10 --repository models
  triton-router canary status minilm --repository models
  triton-router canary pause minilm --repository models        # and resume, set --weight 25
  triton-router canary promote minilm --repository models      # all requests; abort: none
  triton-router canary finish minilm --repository models       # takes what lost out of router.yaml; --keep: nothing"""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def register(subparsers: Subparsers) -> None:
    """Add the parser of this command."""
    parser = add_parser(
        subparsers,
        "canary",
        summary="shift requests to a new version step by step, and back if it is worse",
        description=_DESCRIPTION,
        examples=_EXAMPLES,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    _add_start(actions)
    _add_set(actions)
    _add_action(actions, "status", "how the rollout stands, why, and what it waits for", edits=False)
    _add_action(actions, "promote", "give the canary all requests")
    _add_action(actions, "abort", "take all requests from the canary")
    _add_action(actions, "pause", "keep the share as it is; the gate still watches")
    _add_action(actions, "resume", "go on with the steps")
    finish = _add_action(actions, "finish", "take the rollout, and the targets that lost, out of router.yaml")
    rest = finish.add_mutually_exclusive_group()
    rest.add_argument(
        "--unload",
        action="store_true",
        help="and have the server let go of what nobody calls any more; also after the rollout has ended",
    )
    rest.add_argument("--keep", action="store_true", help="only the rollout: every target gets requests by the policy")
    add_connection_options(finish)


def run(args: argparse.Namespace) -> int:
    """Run the chosen action."""
    from triton_router.cli.canary_actions import ACTIONS

    return ACTIONS[args.action](args)


def _add_start(actions: Subparsers) -> None:
    start = _add_action(actions, "start", "begin a rollout")
    what = start.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--version", type=_version, metavar="N", help="a version of the targets' models: N/ beside the other"
    )
    what.add_argument(
        "--target", action="append", metavar="NAME", help="a target that is there already; may be repeated"
    )
    start.add_argument(
        "--of", action="append", default=[], metavar="TARGET", help="with --version: only of these targets' models"
    )
    start.add_argument(
        "--id", metavar="ID", help="names the rollout: another id is another draw (default: made of the time)"
    )
    _add_shares(start)
    start.add_argument(
        "--wait", type=duration, default=60.0, metavar="T", help="for a server that polls (default: 60s)"
    )
    start.add_argument("--offline", action="store_true", help="no server runs: edit the files, for its next start")
    add_connection_options(start)
    gate = start.add_argument_group("the gate")
    gate.add_argument("--min-requests", type=int, metavar="N", help="answers that each step needs (default: 50)")
    gate.add_argument(
        "--max-error-factor", type=float, metavar="F", help="times as many errors as stable (default: 1.5)"
    )
    gate.add_argument("--max-latency-increase", type=_share, metavar="P", help="10%% or 0.1 (default: 10%%)")
    gate.add_argument("--max-mismatch", type=_share, metavar="P", help="of its answers that differ (default: 1%%)")
    gate.add_argument("--parity", choices=("on", "off"), default="on", help="off: it is meant to answer differently")
    gate.add_argument("--false-alarms", type=_share, metavar="P", help="chance to roll back a good one (default: 5%%)")
    gate.add_argument("--no-rollback", action="store_true", help="only report what the gate finds")


def _add_set(actions: Subparsers) -> None:
    change = _add_action(actions, "set", "set its share, or other steps, by hand")
    _add_shares(change)


def _add_shares(parser: argparse.ArgumentParser) -> None:
    share = parser.add_mutually_exclusive_group()
    share.add_argument(
        "--steps", type=_steps, metavar="P,P,...", help="percent of the requests (default: 1,5,25,50,100)"
    )
    share.add_argument("--weight", type=_percent, metavar="P", help="percent of the requests, and no steps")
    parser.add_argument(
        "--hold", type=duration, metavar="T", help="how long each step lasts: 30s, 10m, 1h (default: 10m)"
    )


def _add_action(actions: Subparsers, name: str, summary: str, *, edits: bool = True) -> argparse.ArgumentParser:
    parser = add_parser(actions, name, summary=summary)
    parser.add_argument("model", metavar="MODEL", help="the routed model")
    add_repository_option(parser, required=True, purpose="the server's model repository")
    if edits:
        parser.add_argument("--by", default=None, metavar="WHO", help="for the audit log (default: your login name)")
        parser.add_argument(
            "--dry-run", "--print", action="store_true", help="print what router.yaml would be, and change nothing"
        )
    parser.add_argument(
        "--state", type=Path, metavar="DIR", help="state directory, for when nobody serves (default: that of 'serve')"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(func=run, action=name)
    return parser


def who(args: argparse.Namespace) -> str:
    """Return who edits: as given, or the user's login name."""
    if args.by is not None:
        return args.by
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"


def duration(text: str) -> float:
    """Return the seconds of ``10m``, ``30s``, ``1h`` or a number of seconds."""
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = _UNITS.get(text[len(number) :] or "s")
    seconds = _number(number) * unit if unit else -1.0
    if not 0 <= seconds <= 365 * 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration of at most a year: write 30s, 10m or 1h")
    return int(seconds) if seconds == int(seconds) else seconds


def _steps(text: str) -> list[float]:
    return [_percent(part) for part in text.split(",")]


def _percent(text: str) -> float:
    value = _number(text.removesuffix("%"))
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 100 percent")
    return int(value) if value == int(value) else value


def _share(text: str) -> float:
    value = _number(text.removesuffix("%"))
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no share: write 10% or 0.1")
    return value / 100 if text.endswith("%") else value


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return -1.0
    return value if value < float("inf") else -1.0


def _version(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a version, such as 2")
    return int(text)
