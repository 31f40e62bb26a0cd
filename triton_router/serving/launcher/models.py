"""The models that a server will load, as they lie on disk, with what could not be read about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from triton_router.config.router_config import ROUTER_FILE, RouterConfig, load_router_config
from triton_router.config.routing_of import refuse_nobody
from triton_router.errors import NotFoundError, TritonRouterError
from triton_router.repository.dependencies import versions_on_disk
from triton_router.repository.model_config import CONFIG_FILE, ModelConfig, read

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

ROUTER_BACKEND = "router"
_PLATFORMS = {
    "onnxruntime_onnx": "onnxruntime",
    "tensorrt_plan": "tensorrt",
    "pytorch_libtorch": "pytorch",
    "tensorflow_savedmodel": "tensorflow",
    "tensorflow_graphdef": "tensorflow",
}
_FILES = {"model.onnx": "onnxruntime", "model.plan": "tensorrt", "model.pt": "pytorch", "model.py": "python"}


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model of a repository.

    Attributes:
        name: Its directory's name.
        directory: Where it lies.
        config: Its config.pbtxt; None if there is none, which Triton completes itself, or it is not valid.
        versions: Version directories, ascending.
        router: Its router.yaml; None for a model that is not routed, or if it is not valid.
        problem: The first thing about its files that is not valid.
    """

    name: str
    directory: Path
    config: ModelConfig | None
    versions: tuple[int, ...]
    router: RouterConfig | None = None
    problem: TritonRouterError | None = None

    @property
    def routed(self) -> bool:
        """Whether it is a routed model, or was meant to be one."""
        return (self.directory / ROUTER_FILE).is_file() or self.backend == ROUTER_BACKEND

    @property
    def backend(self) -> str:
        """Name of its backend; ``ensemble`` for ensembles, empty where Triton has to find out."""
        config = self.config
        if config is not None and (config.backend or config.platform):
            return config.backend or _PLATFORMS.get(config.platform, config.platform)
        if config is not None and config.HasField("ensemble_scheduling"):
            return "ensemble"
        present = (
            name for version in self.versions for name in _FILES if (self.version_directory(version) / name).exists()
        )
        return _FILES.get(next(present, ""), "")

    @property
    def targets(self) -> tuple[str, ...]:
        """Models it calls as a router."""
        return tuple(dict.fromkeys(target.model for target in self.router.targets)) if self.router else ()

    @property
    def steps(self) -> tuple[str, ...]:
        """Models it is made of as an ensemble."""
        steps = self.config.ensemble_scheduling.step if self.config is not None else ()
        return tuple(dict.fromkeys(step.model_name for step in steps))

    @property
    def instances(self) -> int:
        """How many instances Triton makes of it on the CPU; a GPU server may make more."""
        groups = self.config.instance_group if self.config is not None else ()
        # Triton gives models of this backend name two instances by default, whoever implements it.
        return sum(max(1, group.count) for group in groups) or (2 if self.backend == "onnxruntime" else 1)

    def version_directory(self, version: int) -> Path:
        """Return where one version lies."""
        return self.directory / str(version)


def read_models(repositories: Sequence[Path]) -> list[ServedModel]:
    """Read every model of the repositories.

    Raises:
        NotFoundError: A repository is not a directory.
    """
    models: list[ServedModel] = []
    for repository in repositories:
        if not repository.is_dir():
            raise NotFoundError(
                f"the model repository {repository} is not a directory",
                hint="check --repository; 'triton-router add' creates one",
            )
        models += [
            _read_model(path)
            for path in sorted(repository.iterdir())
            if path.is_dir() and not path.name.startswith(".")
        ]
    return models


def closure(models: Mapping[str, ServedModel], names: Iterable[str]) -> list[str]:
    """Return ``names`` and every model they need, through targets and steps, each once and after what it needs."""
    order: list[str] = []
    seen: set[str] = set()

    def visit(name: str) -> None:
        if name in seen:
            return
        seen.add(name)
        model = models.get(name)
        for needed in (*model.steps, *model.targets) if model is not None else ():
            visit(needed)
        order.append(name)

    for name in names:
        visit(name)
    return order


def _read_model(directory: Path) -> ServedModel:
    config: ModelConfig | None = None
    router: RouterConfig | None = None
    problem: TritonRouterError | None = None
    try:
        if (directory / CONFIG_FILE).is_file():
            config = read(directory)
        if (directory / ROUTER_FILE).is_file():
            router = load_router_config(directory / ROUTER_FILE)
            refuse_nobody(router, directory.name)
    except TritonRouterError as error:
        problem = error
    return ServedModel(directory.name, directory, config, versions_on_disk(directory), router, problem)
