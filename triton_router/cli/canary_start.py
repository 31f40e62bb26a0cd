"""``triton-router canary start``: both versions up, then the rollout; all of it or nothing."""

from __future__ import annotations

import re
import time
from contextlib import ExitStack, nullcontext
from typing import TYPE_CHECKING, Any

from triton_router.cli import live, output
from triton_router.cli.canary import who
from triton_router.cli.connection import connected
from triton_router.cli.rollout_source import phase_of
from triton_router.cli.router_edit import apply, put_back, refuse_in_place
from triton_router.config import rollout_edits
from triton_router.config.editing import edit_router_file, edited_router_file
from triton_router.config.loading import load_yaml
from triton_router.config.router_config import ROUTER_FILE, load_router_config
from triton_router.errors import InvalidInputError, UnavailableError
from triton_router.experiments.rollout_plan import ENDED, PROMOTED
from triton_router.repository.canary_targets import CanaryPlan, plan_canary, refuse_moving_others
from triton_router.repository.version_serving import VersionServing

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path

    from triton_router.config.editing import Change
    from triton_router.config.splicing import Splice
    from triton_router.repository.control import ModelControl

_UNSAFE = re.compile(r"[^A-Za-z0-9._:-]+")
_GATE = ("min_requests", "max_error_factor", "max_latency_increase", "max_mismatch", "false_alarms")


def start(args: argparse.Namespace) -> dict[str, Any]:
    """Begin a rollout and return what it is."""
    path: Path = args.repository / args.model / ROUTER_FILE
    if args.parity == "off" and args.max_mismatch is not None:
        raise InvalidInputError("--parity off compares nothing, so --max-mismatch means nothing", hint="leave one out")
    _refuse_another(path, args)
    if args.target:
        rollout = _rollout(args, args.target, args.target[0])
        followed = apply(args, path, lambda splice: rollout_edits.begin(splice, rollout), or_undo=True)
        return {"rollout": rollout, "added": [], "followed": followed}
    with nullcontext() if args.offline else connected(args) as control:
        return _Start(args, path, control).run()


class _Start:
    """One start of a canary that is another version."""

    def __init__(self, args: argparse.Namespace, path: Path, control: ModelControl | None) -> None:
        self._args, self._path, self._control = args, path, control
        config = load_router_config(path)
        self._plan: CanaryPlan = plan_canary(
            args.repository,
            config,
            load_yaml(path).data["targets"],
            args.version,
            only=args.of,
            ready=control.ready_versions if control else lambda _: (),
        )
        self._rollout = _rollout(args, [target["name"] for target in self._plan.added], f"v{args.version}")

    def run(self) -> dict[str, Any]:
        args, plan = self._args, self._plan
        refuse_moving_others(args.repository, args.model, plan)
        preview = edited_router_file(self._path, self._begin)
        result = {"rollout": self._rollout, "added": plan.added, "pinned": plan.pins}
        if args.dry_run:
            print(preview, end="")
            for model, versions in plan.served.items():
                output.note(f"{model} would serve versions {', '.join(str(version) for version in versions)}")
            return result
        refuse_in_place(self._path, preview)
        for note in plan.notes:
            output.note(f"note: {note}")
        with ExitStack() as undo:
            undo.callback(output.note, "undone: everything is as it was before")
            followed = self._carry_out(undo)
            undo.pop_all()
        return {**result, "followed": followed}

    def _carry_out(self, undo: ExitStack) -> bool:
        if self._plan.moved and self._plan.pins:
            self._pin(undo)
        serving = VersionServing(self._control, self._args.repository, wait_s=self._args.wait)
        undo.callback(_take_back, serving)
        for model, versions in self._plan.served.items():
            output.note(f"{model}: versions {', '.join(str(version) for version in versions)} are to be up")
            serving.serve(model, versions)
        for note in serving.notes:
            output.note(f"note: {note}")
        since = time.time()
        text = self._edit(undo, self._begin)
        names = {target["name"] for target in self._plan.added}

        def has_them(status: dict[str, Any]) -> bool:
            return names <= set(live.versions_called(status))

        return live.await_followed(self._path, has_them, text=text, since=since)

    def _pin(self, undo: ExitStack) -> None:
        """Have the router name the version that it calls, before a higher one is there to be taken for it."""
        pins, since = self._plan.pins, time.time()
        text = self._edit(undo, lambda splice: rollout_edits.pin(splice, pins))

        def calls_them(status: dict[str, Any]) -> bool:
            return pins.items() <= live.versions_called(status).items()

        if live.await_followed(self._path, calls_them, text=text, since=since):
            return
        if self._control is not None and self._control.ready_versions(self._args.model):
            raise UnavailableError(
                f"{self._args.model!r} is served, and nobody can tell whether it has taken up that its targets are "
                "pinned to their version: the new one could get all requests at once",
                hint="run this on the server's machine as its user, or write version: N at the targets and run it then",
            )

    def _begin(self, splice: Splice) -> None:
        rollout_edits.pin(splice, self._plan.pins)
        rollout_edits.begin(splice, self._rollout, self._plan.added)

    def _edit(self, undo: ExitStack, change: Change) -> str:
        """Edit the file, to be put back by ``undo``, and return what it says."""
        edit = edit_router_file(self._path, change)
        undo.callback(put_back, self._path, edit)
        return edit.after


def _take_back(serving: VersionServing) -> None:
    for problem in serving.undo():
        output.note(f"warning: not undone: {problem}")


def _refuse_another(path: Path, args: argparse.Namespace) -> None:
    present = load_router_config(path).rollout
    if present is None:
        return
    phase = phase_of(args, present)
    if phase not in ENDED:
        raise InvalidInputError(
            f"the rollout {present.id!r} of {args.model!r} is {phase}",
            hint="see 'triton-router canary status'; end it with promote or abort, then finish",
        )
    # Whoever was rolled back would be stable beside another canary.
    if phase == PROMOTED or not set(present.canary) <= set(args.target or ()):
        raise InvalidInputError(
            f"the rollout {present.id!r} of {args.model!r} is {phase}, and what lost is still in {ROUTER_FILE}",
            hint=f"take it out first: triton-router canary finish {args.model} --repository {args.repository} "
            "(with --keep the targets stay in service)",
        )


def _rollout(args: argparse.Namespace, canary: Sequence[str], name: str) -> dict[str, Any]:
    """Return the section of ``router.yaml``; what was not asked for is left to its default."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    rollout: dict[str, Any] = {
        "id": args.id or f"{_UNSAFE.sub('-', name).lstrip('._:-')[:100] or 'r'}-{stamp}",
        "canary": list(canary),
    }
    if args.weight is not None:
        rollout["weight"] = args.weight
    else:
        rollout["steps"] = args.steps or [1, 5, 25, 50, 100]
    rollout["hold_s"] = 600 if args.hold is None else args.hold
    rollout["by"] = who(args)
    gate: dict[str, Any] = {key: getattr(args, key) for key in _GATE if getattr(args, key) is not None}
    if args.parity == "off":
        gate["max_mismatch"] = 1
    if args.no_rollback:
        gate["rollback"] = False
    return {**rollout, "gate": gate} if gate else rollout
