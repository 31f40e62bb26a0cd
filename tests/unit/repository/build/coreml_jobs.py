"""Builds Core ML packages of small real models in one process, so that torch and coremltools start once.

Run by test_coreml_build.py: ``python coreml_jobs.py DIRECTORY`` writes ``DIRECTORY/results.json``.
"""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from triton_router.repository.build import coreml, samples
from triton_router.repository.build.coreml_check import check
from triton_router.repository.build.job import BuildJob, IoSpec, TensorSpec
from triton_router.repository.coreml_package import METADATA_KEY, Package

if TYPE_CHECKING:
    from collections.abc import Callable

    from triton_router.repository.build.samples import Tensors

BATCH, LENGTH = torch.export.Dim("batch", min=1, max=8), torch.export.Dim("length", min=2, max=32)


class Cnn(nn.Module):
    """Every kind of layer that coremltools cannot evaluate by itself and pictures need."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.SiLU(),
            nn.MaxPool2d(2, padding=1),
            nn.Conv2d(8, 8, 3, groups=8, dilation=2, padding=2),
            nn.InstanceNorm2d(8),
            nn.ConvTranspose2d(8, 4, 3, stride=2, padding=1),
            nn.AvgPool2d(3, 1, 1),
            nn.Flatten(),
            nn.LazyLinear(5),
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.body(pixels)


class Lstm(nn.Module):
    """A bidirectional LSTM and a linear layer over its states."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 8, batch_first=True, bidirectional=True)
        self.head = nn.Linear(16, 3)

    def forward(self, steps: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(steps)[0])


class Encoder(nn.Module):
    """A text encoder as BERT builds it: embedding, masked attention, layer norm, and a mask made by new_ones."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Embedding(50, 16), nn.LayerNorm(16)
        self.query, self.key, self.value = (nn.Linear(16, 16) for _ in range(3))
        self.forwards = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.embed(input_ids))
        allowed = (attention_mask[:, None, :] > 0) & attention_mask.new_ones(attention_mask.shape[1], 1).bool()
        scores = self.query(x) @ self.key(x).transpose(-1, -2) / 4.0
        scores = torch.where(allowed, scores, torch.finfo(scores.dtype).min)
        return self.forwards(x + torch.softmax(scores, dim=-1) @ self.value(x))


class Conditional(nn.Module):
    """Data-dependent control flow."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, (x,))


def _sampled(x: torch.Tensor) -> torch.Tensor:
    return nn.functional.grid_sample(x, x[:, :2].permute(0, 2, 3, 1), align_corners=False)


class HalfKnown(nn.Module):
    """One output through an operator that nothing on Linux can evaluate, one without."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x * 2.0, _sampled(x)


class Unknown(nn.Module):
    """The only output passes through an operator that nothing on Linux can evaluate."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _sampled(x)


class Grouped(nn.Module):
    """Group normalisation, which coremltools converts at fixed shapes only."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.group_norm(x, 2)


class Coupled(nn.Module):
    """Rows influence each other: merging requests changes answers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.mean(dim=0, keepdim=True)


class Chooser(nn.Module):
    """An integer and a boolean at the boundary, and names that Core ML does not allow."""

    def forward(self, x: torch.Tensor, flags: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.argmax(dim=1), flags & (x[:, 0] > 0)


class Jobs:
    """Exports models, runs them on samples, and writes the jobs.

    Args:
        root: Where everything goes.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rng = np.random.default_rng(7)
        torch.manual_seed(7)

    def floats(self, *shape: int) -> np.ndarray:
        return self.rng.standard_normal(shape).astype(np.float32)

    def job(self, name: str, model: nn.Module, feeds: list[Tensors], dims: object, outputs: dict[str, str]) -> BuildJob:
        """Return the job of a model; ``feeds`` are the samples' inputs, ``outputs`` map names to datatypes."""
        folder = self.root / name
        (folder / "staging").mkdir(parents=True)
        model = model.eval()
        with torch.no_grad():
            model(*(torch.from_numpy(value) for value in feeds[0].values()))  # lazy layers take their shape
            # Two rows: torch.export takes a dimension of one for fixed.
            example = tuple(torch.from_numpy(value) for value in feeds[1].values())
            program = torch.export.export(model, example, dynamic_shapes=dims)
        torch.export.save(program, folder / "program.pt2")
        references: list[str] = []
        answers: list[np.ndarray] = []
        for index, feed in enumerate(feeds):
            result = program.module()(*(torch.from_numpy(value) for value in feed.values()))
            leaves = result if isinstance(result, tuple) else (result,)
            answers = [leaf.detach().numpy() for leaf in leaves]
            path = folder / f"{index}.npz"
            samples.save(path, samples.Sample(feed, dict(zip(outputs, answers, strict=True))))
            references.append(str(path))
        axes = {0: "batch", **({1: "length"} if name == "encoder" else {})}
        inputs = {key: (value, _kserve(value)) for key, value in feeds[-1].items()}
        results = {key: (value, kind) for (key, kind), value in zip(outputs.items(), answers, strict=True)}
        io = IoSpec(
            tuple(_spec(key, value, kind, axes) for key, (value, kind) in inputs.items()),
            tuple(_spec(key, value, kind, axes) for key, (value, kind) in results.items()),
            {"batch": (1, 8), "length": (2, 32)},
            "batch",
        )
        return BuildJob(
            model=name,
            target="coreml-ane",
            staging=str(folder / "staging"),
            version=1,
            source_kind="factory",
            source="tests:model",
            onnx="",
            program=str(folder / "program.pt2"),
            references=tuple(references),
            io=io,
            max_batch_size=8,
        )


def _kserve(value: np.ndarray) -> str:
    return {"float32": "FP32", "int64": "INT64", "bool": "BOOL"}[value.dtype.name]


def _spec(name: str, value: np.ndarray, kind: str, axes: dict[int, str]) -> TensorSpec:
    names = tuple(axes.get(position, "") for position in range(value.ndim))
    shape = tuple(-1 if axis else size for axis, size in zip(names, value.shape, strict=True))
    return TensorSpec(name, kind, shape, names)


def _jobs(root: Path) -> dict[str, Callable[[], BuildJob]]:
    make = Jobs(root)
    rows = (1, 2, 3, 8)

    def floats(name: str, *shape: int) -> list[Tensors]:
        return [{name: make.floats(count, *shape)} for count in rows]

    def texts() -> list[Tensors]:
        feeds: list[Tensors] = []
        for count, length in ((1, 8), (2, 4), (3, 16)):
            mask = np.ones((count, length), np.int64)
            mask[0, length // 2 :] = 0
            feeds.append({"input_ids": make.rng.integers(0, 50, (count, length)), "attention_mask": mask})
        return feeds

    def choices() -> list[Tensors]:
        return [{"x": make.floats(count, 5), "flags": make.rng.random(count) < 0.5} for count in rows]

    first = ({0: BATCH},)
    both = ({0: BATCH, 1: LENGTH}, {0: BATCH, 1: LENGTH})
    mlp = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    return {
        "mlp": lambda: make.job("mlp", mlp, floats("input", 16), first, {"y.0": "FP32"}),
        "cnn": lambda: make.job("cnn", Cnn(), floats("pixels", 3, 32, 32), first, {"logits": "FP32"}),
        "lstm": lambda: make.job("lstm", Lstm(), floats("steps", 7, 6), first, {"states": "FP32"}),
        "encoder": lambda: make.job("encoder", Encoder(), texts(), both, {"hidden": "FP32"}),
        "cond": lambda: make.job("cond", Conditional(), floats("x", 4), first, {"y": "FP32"}),
        "half": lambda: make.job("half", HalfKnown(), floats("x", 4, 3, 3), first, {"a": "FP32", "b": "FP32"}),
        "unknown": lambda: make.job("unknown", Unknown(), floats("x", 4, 3, 3), first, {"y": "FP32"}),
        "grouped": lambda: make.job("grouped", Grouped(), floats("x", 4, 3, 3), first, {"y": "FP32"}),
        "coupled": lambda: make.job("coupled", Coupled(), floats("x", 4), first, {"y": "FP32"}),
        "chooser": lambda: make.job(
            "chooser", Chooser(), choices(), ({0: BATCH}, {0: BATCH}), {"best": "INT64", "ok": "BOOL"}
        ),
    }


def _described(package: Path) -> dict[str, object]:
    """Return what a package says of itself."""
    import coremltools as ct

    model = ct.models.MLModel(str(package), skip_model_load=True)
    spec = model.get_spec()
    inputs: dict[str, object] = {}
    for item in spec.description.input:
        array = item.type.multiArrayType
        inputs[item.name] = {
            "type": array.ArrayDataType.Name(array.dataType),
            "listed": sorted(list(shape.shape) for shape in array.enumeratedShapes.shapes),
            "ranges": [[size.lowerBound, size.upperBound] for size in array.shapeRange.sizeRanges],
        }
    outputs = {
        item.name: item.type.multiArrayType.ArrayDataType.Name(item.type.multiArrayType.dataType)
        for item in spec.description.output
    }
    version = spec.specificationVersion
    return {
        "inputs": inputs,
        "outputs": outputs,
        "metadata": model.user_defined_metadata[METADATA_KEY],
        "specification": version,
    }


def _damaged(job: BuildJob) -> dict[str, object]:
    """Return the check of a package one of whose weights has been zeroed on disk after it was saved."""
    good = job.path(coreml.PACKAGE)
    bad = good.with_name("damaged.mlpackage")
    shutil.copytree(good, bad)
    weights = next(bad.rglob("weight.bin"))
    content = bytearray(weights.read_bytes())
    content[-128:] = bytes(128)
    weights.write_bytes(content)
    names = {spec.name: coreml.feature_name(spec.name) for spec in job.io.inputs}
    package = Package(names, {spec.name: coreml.feature_name(spec.name) for spec in job.io.outputs}, (1, 2, 4, 8))
    found = check(bad, package, job.references, batched=True)
    return {"passed": found.passed, "detail": found.detail}


def main() -> None:
    """Build every job."""
    root = Path(sys.argv[1])
    warnings.simplefilter("ignore")
    results: dict[str, object] = {}
    for name, make in _jobs(root).items():
        job = make()
        result = coreml.build(json.loads(json.dumps(job.to_json())))
        if result["files"]:
            result["described"] = _described(job.path(coreml.PACKAGE))
        if name == "cnn":
            result["damaged"] = _damaged(job)
        results[name] = result
    (root / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
