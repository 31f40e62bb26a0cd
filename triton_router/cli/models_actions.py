"""What ``triton-router models`` does once it is connected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_router.cli import output
from triton_router.errors import InvalidInputError, ModelFileError, NotFoundError, TritonRouterError
from triton_router.repository.dependencies import describe, survey, targets_to_load, targets_to_unload

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from triton_router.repository.control import ModelControl, VersionChoice, VersionStatus
    from triton_router.repository.dependencies import RepositoryModel


def show_list(control: ModelControl, args: argparse.Namespace) -> int:
    """Print every model of the server."""
    on_disk = _survey(args.repository)
    rows = control.index()
    roles = _roles(on_disk)
    if args.json:
        output.print_json([_as_dict(row) | _details(on_disk.get(row.model)) for row in rows])
        return 0
    headers = ["model", "version", "state", "reason", *(["role"] if args.repository else [])]
    table: list[list[object]] = []
    for row in rows:
        problem = on_disk[row.model].problem if row.model in on_disk else ""
        role = [roles.get(row.model, "")] if args.repository else []
        table.append([row.model, row.version or "-", row.state, row.reason or problem, *role])
    output.print_table(headers, table)
    if not rows:
        output.hint("the server's repository is empty; add a model with: triton-router add MODEL --name NAME")
    return 0


def load(control: ModelControl, args: argparse.Namespace) -> int:
    """Load a model after the targets that Triton would not load with it."""
    model: str = args.model
    choice: VersionChoice | None = args.version
    failures: list[TritonRouterError] = []
    loaded: dict[str, tuple[int, ...]] = {}
    for target in _prerequisites(args.repository, model, choice):
        try:
            loaded[target] = control.load(target)
        except ModelFileError as error:  # the router serves with the targets that remain
            failures.append(error)
            output.print_error(error)
    loaded[model] = _load_one(control, model, choice)
    if args.json:
        output.print_json({"loaded": [{"model": name, "versions": list(ready)} for name, ready in loaded.items()]})
    else:
        output.print_table(["loaded", "versions"], [[name, _join(ready)] for name, ready in loaded.items()])
    if not args.repository and control.config(model).get("backend") == "router":
        output.hint(f"{model} is a routed model: its targets are loaded first when --repository DIR is given")
    if failures:
        raise ModelFileError(
            f"{len(failures)} of the targets of {model!r} could not be loaded; {model!r} serves without them",
            hint=f"correct them and run 'triton-router models load {model}' again",
        )
    return 0


def _load_one(control: ModelControl, model: str, choice: VersionChoice | None) -> tuple[int, ...]:
    if choice is not None:
        return control.load_versions(model, choice)
    before = control.ready_versions(model)
    pinned = before and "specific" in control.config(model).get("version_policy", {})
    ready = control.load(model)
    if pinned and ready != before:
        output.note(
            f"note: {model} served {_join(before)} by an override; its files have changed since, "
            f"so Triton went by config.pbtxt again and serves {_join(ready)}"
        )
    return ready


def unload(control: ModelControl, args: argparse.Namespace) -> int:
    """Unload a model, and the targets that only it needs."""
    if args.targets and not args.repository:
        raise InvalidInputError(
            "--targets needs --repository: the targets stand in router.yaml",
            hint="add --repository DIR, the directory the server was started with",
        )
    targets: list[str] = []
    if args.targets:
        serving = [row.model for row in control.index() if row.ready]
        wanted = targets_to_unload(_survey(args.repository), args.model, serving)
        targets = [target for target in wanted if target in serving]
    gone = control.unload(args.model, *targets, dependents=True)
    if args.json:
        output.print_json({"unloaded": list(gone)})
    elif gone:
        output.print_table(["unloaded"], [[name] for name in gone])
    else:
        output.note(f"{args.model} was not loaded")
    return 0


def show_versions(control: ModelControl, args: argparse.Namespace) -> int:
    """Print the versions of one model."""
    rows = [row for row in control.versions(args.model) if row.version]
    known = {row.version for row in rows}
    entry = _describe(args.repository, args.model)
    unknown = [version for version in entry.versions if version not in known] if entry else []
    result = sorted(
        [(row.version or 0, row.state, row.reason) for row in rows]
        + [(version, "NOT_LOADED", "in the repository") for version in unknown]
    )
    if args.json:
        keys = ("version", "state", "reason")
        output.print_json({"model": args.model, "versions": [dict(zip(keys, row, strict=True)) for row in result]})
        return 0
    output.print_table(["version", "state", "reason"], result)
    if not result:
        output.hint(f"{args.model} is not loaded; see what lies on disk with --repository DIR")
    return 0


def _prerequisites(repository: Path | None, model: str, choice: VersionChoice | None) -> list[str]:
    """Return the targets to load first, having refused a version that does not exist."""
    entry = _describe(repository, model)
    if repository is None or entry is None:
        return []
    missing = [] if choice is None or isinstance(choice, str) else sorted(set(choice) - set(entry.versions))
    if missing:
        raise NotFoundError(
            f"model {model!r} has no version {_join(missing)} in {repository}; it has: {_join(entry.versions)}",
            hint=f"put the files in {repository / model / str(missing[0])}/, or choose a version that is there",
        )
    return targets_to_load(repository, model)


def _survey(repository: Path | None) -> dict[str, RepositoryModel]:
    return survey(repository) if repository else {}


def _describe(repository: Path | None, model: str) -> RepositoryModel | None:
    return describe(repository, model) if repository else None


def _roles(on_disk: dict[str, RepositoryModel]) -> dict[str, str]:
    """Say in words what each model is."""
    roles: dict[str, list[str]] = {name: [] for name in on_disk}
    for name, model in on_disk.items():
        if model.problem:
            roles[name].append("unreadable")
        if model.targets:
            roles[name].append("routes to " + ", ".join(model.targets))
        if model.steps:
            roles[name].append("ensemble of " + ", ".join(model.steps))
        for target in model.targets:
            roles.setdefault(target, []).append(f"target of {name}")
    return {name: "; ".join(parts) for name, parts in roles.items()}


def _details(model: RepositoryModel | None) -> dict[str, object]:
    if model is None:
        return {}
    return {"targets": list(model.targets), "steps": list(model.steps), "versions_on_disk": list(model.versions)}


def _as_dict(row: VersionStatus) -> dict[str, object]:
    return {"model": row.model, "version": row.version, "state": row.state, "reason": row.reason}


def _join(versions: Sequence[int]) -> str:
    return ", ".join(str(version) for version in versions)


ACTIONS: dict[str, Callable[[ModelControl, argparse.Namespace], int]] = {
    "list": show_list,
    "load": load,
    "unload": unload,
    "versions": show_versions,
}
"""What each word after ``models`` runs."""
