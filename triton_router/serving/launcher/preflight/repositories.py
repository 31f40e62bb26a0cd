"""Check that what is given as a repository is one: a directory of models, not of repositories, nor a model."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from triton_router.config.router_config import ROUTER_FILE
from triton_router.repository.dependencies import versions_on_disk
from triton_router.repository.model_config import CONFIG_FILE
from triton_router.serving.launcher.preflight.finding import Finding, error, warning

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_NAMED = 3
"""So many directories are offered in a hint."""


def mistaken(repositories: Sequence[Path], control_mode: str) -> dict[Path, Finding]:
    """Return the directories that hold no models, each with what it seems to be.

    Args:
        repositories: As given; those that are not directories are left to who reads them.
        control_mode: Only ``none`` needs models from the start: the other modes take those that come later.
    """
    found: dict[Path, Finding] = {}
    for repository in repositories:
        finding = _mistaken(repository, control_mode) if repository.is_dir() else None
        if finding is not None:
            found[repository] = finding
    return found


def _mistaken(repository: Path, control_mode: str) -> Finding | None:
    if _is_model(repository):
        return error(
            f"{repository} looks like a model, not like a repository of models",
            "Triton would take its directories for models",
            f"did you mean --repository {shlex.quote(str(repository.absolute().parent))}?",
        )
    children = _directories(repository)
    if any(_is_model(child) for child in children):
        return None
    inner = [child for child in children if any(_is_model(path) for path in _directories(child))]
    if inner:
        offered = " or ".join(f"--repository {shlex.quote(str(path))}" for path in inner[:_NAMED])
        return error(
            f"{repository} looks like a directory of repositories, not like a repository of models",
            "Triton would take each of them for a model",
            f"did you mean {offered}?",
        )
    finding = error if control_mode == "none" else warning
    return finding(
        f"no models in {repository}",
        "no directory in it has a config.pbtxt or a version directory such as 1",
        "check --repository; 'triton-router add' puts a model into a repository",
    )


def _is_model(directory: Path) -> bool:
    named = any((directory / name).is_file() for name in (CONFIG_FILE, ROUTER_FILE))
    return named or bool(versions_on_disk(directory))


def _directories(directory: Path) -> list[Path]:
    return [path for path in sorted(directory.iterdir()) if path.is_dir() and not path.name.startswith(".")]
