"""Which models of a repository need which others, read from the files themselves.

Triton knows the steps of an ensemble. It does not know the targets of a routed model, which are called by
business logic scripting and stand in ``router.yaml`` alone; loading and unloading go by both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from triton_router.config.cycles import find_cycle
from triton_router.config.router_config import ROUTER_FILE, load_router_config
from triton_router.errors import InvalidInputError, NotFoundError, TritonRouterError
from triton_router.repository.model_config import CONFIG_FILE, read

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class RepositoryModel:
    """One model as it lies on disk.

    Attributes:
        name: The model's directory.
        versions: Its version directories, ascending.
        targets: Models that a routed model calls, without repetition; empty for any other model.
        steps: Models that an ensemble is made of; empty for any other model.
        problem: Why the files could not be read, else empty.
    """

    name: str
    versions: tuple[int, ...] = ()
    targets: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    problem: str = ""

    @property
    def needs(self) -> tuple[str, ...]:
        """Models that this one calls when it serves a request."""
        return (*self.targets, *self.steps)


def describe(repository: Path, name: str) -> RepositoryModel:
    """Read one model of the repository.

    Raises:
        NotFoundError: There is no such repository or model.
        ConfigError: Its ``config.pbtxt`` or ``router.yaml`` is not valid.
    """
    directory = model_directory(repository, name)
    targets: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    if (directory / ROUTER_FILE).is_file():
        targets = _unique(target.model for target in load_router_config(directory / ROUTER_FILE).targets)
    elif (directory / CONFIG_FILE).is_file():  # without one, Triton completes the configuration itself
        steps = _unique(step.model_name for step in read(directory).ensemble_scheduling.step)
    return RepositoryModel(name, versions_on_disk(directory), targets, steps)


def survey(repository: Path) -> dict[str, RepositoryModel]:
    """Read every model of the repository, by name; one that cannot be read carries its problem.

    Raises:
        NotFoundError: There is no such repository.
    """
    _require_repository(repository)
    models: dict[str, RepositoryModel] = {}
    for directory in sorted(path for path in repository.iterdir() if path.is_dir()):
        if directory.name.startswith("."):
            continue
        try:
            models[directory.name] = describe(repository, directory.name)
        except TritonRouterError as error:
            models[directory.name] = RepositoryModel(directory.name, versions_on_disk(directory), problem=error.message)
    return models


def model_directory(repository: Path, name: str) -> Path:
    """Return the directory of a model that exists.

    Raises:
        InvalidInputError: The name is not that of one directory.
        NotFoundError: There is no such repository or model.
    """
    _require_repository(repository)
    if not name or name in {".", ".."} or "/" in name or "\\" in name:
        raise InvalidInputError(f"{name!r} is not a model name", hint="give the name of its directory alone")
    directory = repository / name
    if not directory.is_dir():
        raise NotFoundError(
            f"model {name!r} is not in the repository {repository}",
            hint="it holds: " + (", ".join(sorted(_names(repository))) or "no model at all"),
        )
    return directory


def versions_on_disk(directory: Path) -> tuple[int, ...]:
    """Return the versions that Triton sees in a model's directory: subdirectories with a whole number."""
    numbers = (path.name for path in directory.iterdir() if path.is_dir() and path.name.isascii())
    return tuple(sorted(int(number) for number in numbers if number.isdigit() and not number.startswith("0")))


def cycle_from(repository: Path, model: str) -> list[str]:
    """Return a path from ``model``, through targets and steps, that comes back to itself; empty if there is none.

    A model that is missing or not valid ends its path.
    """

    def needs(name: str) -> tuple[str, ...]:
        try:
            return describe(repository, name).needs
        except (TritonRouterError, OSError):
            return ()

    return find_cycle(model, needs)


def targets_to_load(repository: Path, name: str) -> list[str]:
    """Return the models that must be loaded before ``name`` because Triton does not load them with it.

    These are the targets of every routed model met on the way through targets and steps, in an order in which
    each stands after what it needs itself.

    Raises:
        NotFoundError: ``name``, or a model it needs, is not in the repository.
        ConfigError: The files of one of them are not valid.
    """
    order: list[str] = []
    visited: set[str] = set()

    def visit(current: str, *, by_router: bool) -> None:
        if current not in visited:
            visited.add(current)
            model = describe(repository, current)
            for step in model.steps:
                visit(step, by_router=False)
            for target in model.targets:
                visit(target, by_router=True)
        if by_router and current not in order:
            order.append(current)

    visit(name, by_router=False)
    return [model for model in order if model != name]


def targets_to_unload(models: Mapping[str, RepositoryModel], name: str, loaded: Iterable[str]) -> list[str]:
    """Return the targets below ``name`` that nothing else needs, those to unload first standing first.

    Args:
        models: The repository, as `survey` gives it.
        name: The model that is unloaded.
        loaded: Models that the server has loaded: only these can need a target.
    """
    leaving = {name}
    kept = [models[other] for other in loaded if other in models]
    queue = [name]
    result: list[str] = []
    while queue:
        model = models.get(queue.pop(0))
        if model is None:
            continue
        for step in model.steps:
            if not _needed(step, kept, leaving):
                leaving.add(step)
                queue.append(step)
        for target in model.targets:
            if target not in leaving and not _needed(target, kept, leaving):
                leaving.add(target)
                queue.append(target)
                result.append(target)
    return result


def _needed(name: str, kept: list[RepositoryModel], leaving: set[str]) -> bool:
    return any(name in model.needs for model in kept if model.name not in leaving)


def _require_repository(repository: Path) -> None:
    if not repository.is_dir():
        raise NotFoundError(f"the model repository {repository} is not a directory", hint="check --repository")


def _names(repository: Path) -> list[str]:
    return [path.name for path in repository.iterdir() if path.is_dir() and not path.name.startswith(".")]


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
