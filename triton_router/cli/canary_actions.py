"""What ``triton-router canary`` does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from triton_router.cli import canary_report, output
from triton_router.cli.canary import who
from triton_router.cli.canary_start import start
from triton_router.cli.canary_unload import let_go, still_ready, superfluous
from triton_router.cli.connection import connected
from triton_router.cli.rollout_source import audit_entries, phase_of, rollout_reports
from triton_router.cli.router_edit import apply
from triton_router.config import rollout_edits
from triton_router.config.router_config import ROUTER_FILE, load_router_config
from triton_router.errors import InvalidInputError, NotFoundError
from triton_router.experiments.rollout_plan import ENDED, PROMOTED, ROLLED_BACK

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from pathlib import Path

    from triton_router.config.rollout_settings import RolloutConfig
    from triton_router.config.router_config import RouterConfig


def begin(args: argparse.Namespace) -> int:
    """Start a rollout."""
    done = start(args)
    if not args.dry_run:
        _say(args, done, canary_report.begun(args.model, done))
    return 0


def set_share(args: argparse.Namespace) -> int:
    """Set the share, or other steps, or how long they last."""
    changes: dict[str, Any] = {}
    if args.weight is not None:
        changes = {"weight": args.weight, "steps": None}
    elif args.steps is not None:
        changes = {"weight": None, "steps": args.steps}
    if args.hold is not None:
        changes["hold_s"] = args.hold
    if not changes:
        raise InvalidInputError("nothing to set", hint="say --weight, --steps or --hold")
    _, rollout = _running(args)
    share = canary_report.course(rollout.model_dump() | changes)
    # Somebody's promotion by hand would outweigh the share.
    return _amend(args, {**changes, "outcome": None} if rollout.outcome else changes, f"now gets {share}")


def pause(args: argparse.Namespace) -> int:
    """Keep the share as it is."""
    _running(args, but_not=ENDED)
    return _amend(args, {"paused": True}, "is paused: its share stays, and the gate still watches")


def resume(args: argparse.Namespace) -> int:
    """Go on with the steps."""
    _running(args, but_not=ENDED)
    return _amend(args, {"paused": None}, "goes on")


def promote(args: argparse.Namespace) -> int:
    """Give the canary all requests."""
    return _decide(args, "promote", "is promoted: the canary gets all requests")


def abort(args: argparse.Namespace) -> int:
    """Take all requests from the canary."""
    return _decide(args, "abort", "is aborted: the canary gets no requests")


def finish(args: argparse.Namespace) -> int:
    """Take out of router.yaml what the rollout has made superfluous, or with ``--keep`` the rollout alone."""
    if args.unload and not args.dry_run and load_router_config(_path(args)).rollout is None:
        return _unload_after(args)
    config, rollout = _rollout_of(args)
    phase = phase_of(args, rollout)
    if phase not in ENDED:
        raise InvalidInputError(
            f"the rollout {rollout.id!r} of {args.model!r} is {phase}", hint="promote it or abort it first"
        )
    removed: list[rollout_edits.Removed] = []
    lost = [] if args.keep else _lost(config, rollout, phase)
    followed = apply(args, _path(args), lambda splice: removed.append(rollout_edits.finish(splice, lost)))
    if args.dry_run:
        return 0
    kept = [target for target in config.targets if target.name not in lost]
    names = [target.name for target in kept]
    if removed[-1].reference:
        output.note("note: parity.reference was one of them and is gone: see docs/router-yaml.md for what it is now")
    what = f"taken out: {', '.join(lost)}" if lost else f"the policy chooses among all targets: {', '.join(names)}"
    done = {"phase": phase, "removed": lost, "kept": names, "followed": followed}
    _say(args, done, f"rollout {rollout.id} of {args.model} has ended ({phase}); {what}")
    left = superfluous(args.repository, args.model, kept, [target["model"] for target in removed[-1].targets])
    if args.unload and left:
        with connected(args) as control:
            for line in let_go(control, args.repository, left):
                output.note(line)
    elif not args.unload:
        for line in canary_report.still_loaded(args.model, args.repository, left):
            output.hint(line)
    return 0


def status(args: argparse.Namespace) -> int:
    """Print how a rollout stands."""
    config, rollout = _rollout_of(args)
    state = canary_report.State(
        args.model, rollout, phase_of(args, rollout), rollout_reports(args, rollout), audit_entries(args, rollout)
    )
    if args.json:
        output.print_json(canary_report.as_json(state))
    else:
        canary_report.print_status(state)
        if state.phase in ENDED:
            output.hint(canary_report.how_to_end(args.model, args.repository, _lost(config, rollout, state.phase)))
    return 0


def _unload_after(args: argparse.Namespace) -> int:
    """Let go of what an earlier rollout has left loaded, of the models that are called still."""
    targets = load_router_config(_path(args)).targets
    left = superfluous(args.repository, args.model, targets, [target.model for target in targets])
    with connected(args) as control:
        done = let_go(control, args.repository, still_ready(control, left))
    for line in done or [f"nothing to let go of: no version is loaded that {args.model} has no use for"]:
        output.note(line)
    if args.json:
        output.print_json({"model": args.model, "removed": [], "done": done})
    return 0


def _lost(config: RouterConfig, rollout: RolloutConfig, phase: str) -> list[str]:
    """Return who gets no requests once a rollout has ended: the stable targets after a promotion, else the canary."""
    shadow = {config.shadow.target} if config.shadow else set[str]()
    asked = [target.name for target in config.targets if target.name not in shadow]
    return [name for name in asked if (name in rollout.canary) != (phase == PROMOTED)]


def _decide(args: argparse.Namespace, outcome: str, what: str) -> int:
    """Have a rollout end by hand, and say what to do about it then."""
    config, rollout = _rollout_of(args)
    code = _amend(args, {"outcome": outcome, "paused": None}, what)
    if not args.dry_run:
        lost = _lost(config, rollout, PROMOTED if outcome == "promote" else ROLLED_BACK)
        output.hint(canary_report.how_to_end(args.model, args.repository, lost))
    return code


def _amend(args: argparse.Namespace, changes: dict[str, Any], what: str) -> int:
    changes = {**changes, "by": who(args)}
    followed = apply(args, _path(args), lambda splice: rollout_edits.amend(splice, changes))
    if args.dry_run:
        return 0
    rollout = _rollout_of(args)[1]
    done = {"rollout": rollout.model_dump(mode="json", exclude_none=True), "followed": followed}
    _say(args, done, f"rollout {rollout.id} of {args.model} {what}")
    return 0


def _say(args: argparse.Namespace, done: dict[str, Any], line: str) -> None:
    if args.json:
        output.print_json({"model": args.model, **done})
    else:
        output.note(line)
    if done["followed"]:
        output.note("the router that serves it has taken it up")
    else:
        output.note("note: no router of this file could be asked here; one that serves it takes it up within a second")


def _running(
    args: argparse.Namespace, *, but_not: frozenset[str] = frozenset({ROLLED_BACK})
) -> tuple[RouterConfig, RolloutConfig]:
    config, rollout = _rollout_of(args)
    phase = phase_of(args, rollout)
    if phase in but_not:
        raise InvalidInputError(
            f"the rollout {rollout.id!r} of {args.model!r} has ended: {phase}",
            hint="finish it, and begin another one with 'triton-router canary start'",
        )
    return config, rollout


def _rollout_of(args: argparse.Namespace) -> tuple[RouterConfig, RolloutConfig]:
    config = load_router_config(_path(args))
    if config.rollout is None:
        raise NotFoundError(
            f"there is no rollout of {args.model!r} in {_path(args)}",
            hint="begin one with 'triton-router canary start'",
        )
    return config, config.rollout


def _path(args: argparse.Namespace) -> Path:
    path: Path = args.repository / args.model / ROUTER_FILE
    return path


ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "start": begin,
    "set": set_share,
    "status": status,
    "promote": promote,
    "abort": abort,
    "pause": pause,
    "resume": resume,
    "finish": finish,
}
"""What each word after ``canary`` runs."""
