"""The model repository that the dispatch benchmark serves: each sibling direct, behind a naive router, behind ours."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelParameter

from triton_router.repository.model_config import CONFIG_FILE, read, render

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_HERE = Path(__file__).resolve().parent
MODELS = _HERE / "models"
_NAIVE = _HERE.parent / "tests" / "yardsticks" / "naive_router"


@dataclass(frozen=True, slots=True)
class Case:
    """One workload.

    Attributes:
        name: Its row in the report.
        siblings: Models called directly; the naive router forwards to the first.
        inputs: Requests to draw from.
    """

    name: str
    siblings: tuple[str, ...]
    inputs: tuple[dict[str, NDArray[np.generic]], ...]

    @property
    def naive(self) -> str:
        """Name of the naive router in front of the first sibling."""
        return f"naive-{self.name}"

    @property
    def ours(self) -> str:
        """Name of the routed model over all siblings."""
        return f"routed-{self.name}"

    @property
    def unmerged(self) -> str:
        """Name of the same with merging switched off."""
        return f"unmerged-{self.name}"


def synthetic_cases() -> list[Case]:
    """Return the workloads that need no model file."""
    row = np.ones((1, 16), np.float32)
    megabyte = np.ones((1, 262_144), np.float32)
    return [
        Case("tiny", ("tiny",), ({"X": row},)),
        Case("batched", ("batched",), ({"X": row},)),
        Case("unbatched", ("unbatched",), ({"X": row},)),
        Case("megabyte", ("megabyte",), ({"X": megabyte},)),
    ]


def minilm_case(repository: Path) -> Case:
    """Return the workload on the real MiniLM that ``triton-router add`` built into ``repository``."""
    rng = np.random.default_rng(1)
    requests: list[dict[str, NDArray[np.generic]]] = []
    for rows in (1, 1, 1, 2, 4):
        ids = rng.integers(1000, 20_000, (rows, 16))
        requests.append({"input_ids": ids, "attention_mask": np.ones_like(ids)})
    settings = yaml.safe_load((repository / "minilm" / "router.yaml").read_text())
    targets = [target["model"] for target in settings["targets"]]
    # The fastest first: it is what the naive router, which cannot choose, is given.
    targets.sort(key=lambda model: "int8" not in model)
    return Case("minilm", tuple(targets), tuple(requests))


def build(directory: Path, cases: Sequence[Case], minilm: Path | None) -> None:
    """Write the repository for ``cases`` into ``directory``, which does not exist yet."""
    directory.mkdir(parents=True)
    for case in cases:
        source = minilm if case.name == "minilm" and minilm else MODELS
        for sibling in case.siblings:
            shutil.copytree(source / sibling, directory / sibling, ignore=shutil.ignore_patterns("__pycache__"))
        _write_naive(directory, case)
        _write_routed(directory, case, source, merges=True)
        _write_routed(directory, case, source, merges=False)


def _write_naive(directory: Path, case: Case) -> None:
    shutil.copytree(_NAIVE, directory / case.naive, ignore=shutil.ignore_patterns("__pycache__"))
    sibling = read(directory / case.siblings[0])
    config = ModelConfig(
        name=case.naive,
        backend="python",
        max_batch_size=sibling.max_batch_size,
        input=sibling.input,
        output=sibling.output,
        instance_group=[{"kind": "KIND_CPU", "count": 1}],
        parameters={"target": ModelParameter(string_value=case.siblings[0])},
    )
    (directory / case.naive / CONFIG_FILE).write_text(render(config))


def _write_routed(directory: Path, case: Case, source: Path, *, merges: bool) -> None:
    routed = directory / (case.ours if merges else case.unmerged)
    (routed / "1").mkdir(parents=True)
    if case.name == "minilm":
        config = read(source / "minilm")
        config.name = routed.name
        (routed / CONFIG_FILE).write_text(render(config))
        settings = yaml.safe_load((source / "minilm" / "router.yaml").read_text())
    else:
        (routed / CONFIG_FILE).write_text('backend: "router"\n')
        settings = {
            "targets": [
                {"name": sibling, "model": sibling, "batch_independent": True, "instances": 1}
                for sibling in case.siblings
            ]
        }
    (routed / "router.yaml").write_text(yaml.safe_dump({**settings, "merge": {"enabled": merges}}))
