"""What a finished rollout leaves in memory, and how the server lets go of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_router.repository.canary_targets import called_by_others
from triton_router.repository.version_serving import VersionServing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from triton_router.config.router_config import TargetConfig
    from triton_router.repository.control import ModelControl


def superfluous(
    repository: Path, model: str, targets: Sequence[TargetConfig], models: Iterable[str]
) -> dict[str, tuple[int, ...]]:
    """Return the models of which a version may no longer be called, each with the versions that are.

    A model that somebody calls without a version is left out: nobody can tell which one that needs.

    Args:
        repository: The model repository.
        model: The routed model.
        targets: Those that it has still.
        models: What it calls, or has called.
    """
    found: dict[str, tuple[int, ...]] = {}
    for called in dict.fromkeys(models):
        own = {target.version for target in targets if target.model == called}
        versions = own | called_by_others(repository, model, called)
        if None not in versions:
            found[called] = tuple(sorted(version for version in versions if version))
    return found


def still_ready(control: ModelControl, left: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return those models of which a server has more than the versions that are called."""
    return {
        model: versions for model, versions in left.items() if not set(control.ready_versions(model)) <= {*versions}
    }


def let_go(control: ModelControl, repository: Path, left: Mapping[str, Sequence[int]]) -> list[str]:
    """Have a server serve no more than the versions that are called, and return what was done, in words."""
    serving = VersionServing(control, repository, wait_s=0.0)
    done: list[str] = []
    for model, versions in left.items():
        if versions:
            serving.serve_only(model, versions)
            done.append(f"{model} serves version {', '.join(str(version) for version in versions)} alone")
        elif control.ready_versions(model):
            control.unload(model)
            done.append(f"{model} is unloaded")
    return done
