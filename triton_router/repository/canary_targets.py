"""Which targets a new version of their models makes, and what has to be pinned so that nobody gets it by accident.

A request that names no version goes to the highest one that Triton serves. So whoever calls a model without one gets
the new version as soon as it is loaded: targets are pinned first, and where others would be moved, nothing is done.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from triton_router.config.router_config import ROUTER_FILE, load_router_config
from triton_router.errors import InvalidInputError, NotFoundError
from triton_router.repository import manifest
from triton_router.repository.dependencies import model_directory, survey, versions_on_disk
from triton_router.repository.model_config import CONFIG_FILE, read
from triton_router.repository.version_policy import served_by_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from triton_router.config.router_config import RouterConfig, TargetConfig

_SUFFIX = re.compile(r"-v\d+$")
_MEASURED_OF_A_VERSION = ("measured_latency", "batch_independent")


class CanaryPlan(NamedTuple):
    """What a canary of another version takes.

    Attributes:
        added: Settings of the new targets, as they stand in ``router.yaml``.
        pins: Versions of the targets that name none yet.
        served: Versions that each model has to serve.
        moved: Whether who names no version would get the new one.
        notes: What to know of it, each a sentence.
    """

    added: list[dict[str, Any]]
    pins: dict[str, int]
    served: dict[str, tuple[int, ...]]
    moved: bool
    notes: list[str]


def plan_canary(
    repository: Path,
    config: RouterConfig,
    settings: Sequence[dict[str, Any]],
    version: int,
    *,
    only: Collection[str],
    ready: Callable[[str], tuple[int, ...]],
) -> CanaryPlan:
    """Return what a canary of ``version`` takes.

    Args:
        repository: The model repository.
        config: The routed model's settings.
        settings: Its targets as they stand in ``router.yaml``.
        version: The new one.
        only: Names of the targets to make canaries of; all of those whose model has that version if empty.
        ready: Returns the versions of a model that are served now, ascending.

    Raises:
        NotFoundError: No target's model has that version.
        InvalidInputError: It is served already, or would be to others too.
    """
    stable = _stable(repository, config, version, only)
    models = {target.model for target in stable}
    served = {model: ready(model) or _by_files(repository, model) for model in models}
    for target in stable:
        if version == (target.version or max(served[target.model], default=0)):
            raise InvalidInputError(
                f"version {version} of {target.model!r} is what target {target.name!r} serves already",
                hint=f"if clients are to begin with another one, write version: N at {target.name!r} first",
            )
    pins = {t.name: max(served[t.model]) for t in config.targets if t.model in models and t.version is None}
    pinned = {(t.model, t.version) for t in config.targets if t.model in models and t.version}
    moved = any(version > max(served[model], default=0) for model in models)
    notes = [
        f"{name} gets no canary: its requests go to the others' as the share grows, and none are left to it at 100%"
        for name in _left_out(config, stable)
    ]
    added = [_added(repository, _written(settings, target.name), version, notes) for target in stable]
    return CanaryPlan(
        added,
        pins,
        {m: tuple(sorted({version, *served[m], *(v for model, v in pinned if model == m and v)})) for m in models},
        moved,
        notes,
    )


def refuse_moving_others(repository: Path, model: str, plan: CanaryPlan) -> None:
    """Do nothing if nobody but ``model`` would be moved to the new version.

    Raises:
        InvalidInputError: Another routed model or an ensemble of the repository calls one of the models without naming
            a version.
    """
    if not plan.moved:
        return
    for name, found in survey(repository).items():
        calls = _calls(repository / name) if name != model and not found.problem else set[tuple[str, int | None]]()
        others = {called for called, version in calls if version is None} & set(plan.served)
        if others:
            raise InvalidInputError(
                f"{name!r} calls {min(others)!r} without naming a version, and would get the new one at once",
                hint=f"write the version that {name!r} is to stay with into its {ROUTER_FILE} or {CONFIG_FILE} first",
            )


def called_by_others(repository: Path, model: str, called: str) -> set[int | None]:
    """Return the versions of ``called`` that other routed models and ensembles call; None for whatever is served."""
    found: set[int | None] = set()
    for name, known in survey(repository).items():
        if name != model and not known.problem:
            found |= {version for other, version in _calls(repository / name) if other == called}
    return found


def _stable(repository: Path, config: RouterConfig, version: int, only: Collection[str]) -> list[TargetConfig]:
    unknown = set(only) - {target.name for target in config.targets}
    if unknown:
        raise NotFoundError(
            f"there is no target {min(unknown)!r}", hint=f"it has: {', '.join(t.name for t in config.targets)}"
        )
    shadow = {config.shadow.target} if config.shadow else set[str]()
    asked = [
        target for target in config.targets if target.name not in shadow and target.name in (only or {target.name})
    ]
    there = next((t for t in config.targets if t.version == version and t.model in {a.model for a in asked}), None)
    if there is not None:
        raise InvalidInputError(
            f"target {there.name!r} calls version {version} of {there.model!r} already",
            hint=f"make it the canary: --target {there.name}",
        )
    found = [t for t in asked if version in versions_on_disk(model_directory(repository, t.model))]
    if not found:
        models = dict.fromkeys(target.model for target in asked)
        raise NotFoundError(
            f"no target's model has a version {version}: "
            + "; ".join(f"{model} has {_numbers(repository, model)}" for model in models),
            hint=f"put its files in {repository / next(iter(models)) / str(version)}, or: triton-router add",
        )
    return found


def _added(repository: Path, settings: dict[str, Any], version: int, notes: list[str]) -> dict[str, Any]:
    """Return a target's settings for another version: what was measured of one version says nothing of another."""
    name = f"{_SUFFIX.sub('', settings['name'])}-v{version}"
    kept = {key: value for key, value in settings.items() if key not in _MEASURED_OF_A_VERSION}
    known = manifest.read(repository / settings["model"])
    checks: dict[str, Any] = known["versions"].get(str(version), {}).get("checks", {}) if known else {}
    if checks.get("batch") == "independent":
        kept["batch_independent"] = True
    elif known is None and settings.get("batch_independent"):
        kept["batch_independent"] = True
        notes.append(f"{name} is taken to be batch_independent as {settings['name']} is declared to be")
    if checks.get("latency"):
        kept["measured_latency"] = [
            {"work": int(row["work"]), "latency_ms": max(0.001, round(float(row["latency_ms"]), 3))}
            for row in checks["latency"]
        ]
    return {"name": name, "model": kept.pop("model"), "version": version} | {
        k: v for k, v in kept.items() if k != "name"
    }


def _left_out(config: RouterConfig, stable: Sequence[TargetConfig]) -> list[str]:
    """Return the targets that serve now and have no canary."""
    not_serving = {config.shadow.target} if config.shadow else set[str]()
    return [t.name for t in config.targets if t not in stable and t.name not in not_serving]


def _written(settings: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    found = dict(next(one for one in settings if one["name"] == name))
    found.pop("version", None)
    return found


def _by_files(repository: Path, model: str) -> tuple[int, ...]:
    """Return what Triton would serve of a model that it does not serve now."""
    directory = model_directory(repository, model)
    on_disk = versions_on_disk(directory)
    if not (directory / CONFIG_FILE).exists():
        return on_disk[-1:]
    return served_by_policy(read(directory), on_disk)


def _calls(directory: Path) -> set[tuple[str, int | None]]:
    """Return the models that a routed model or an ensemble calls, each with its version, None where none is named."""
    if (directory / ROUTER_FILE).is_file():
        return {(target.model, target.version) for target in load_router_config(directory / ROUTER_FILE).targets}
    if (directory / CONFIG_FILE).is_file():
        steps = read(directory).ensemble_scheduling.step
        return {(step.model_name, step.model_version if step.model_version > 0 else None) for step in steps}
    return set()


def _numbers(repository: Path, model: str) -> str:
    return ", ".join(str(number) for number in versions_on_disk(model_directory(repository, model))) or "none"
