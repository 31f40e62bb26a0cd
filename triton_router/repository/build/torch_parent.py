"""The parent of a torch source: export the program once, run the module on samples.

Runs in a child process only. Every torch variant and the ONNX export start from the one exported program, so the
user's code runs once.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from triton_router.analysis.torch_program import inputs_of, outputs_of
from triton_router.analysis.torch_source import (
    TorchSource,
    export_source,
    flatten_outputs,
    load_exported,
    load_factory,
)
from triton_router.errors import ModelFileError
from triton_router.repository.build import sampling
from triton_router.repository.build.job import IoSpec, TensorSpec
from triton_router.repository.build.reference import (
    Parent,
    ParentJob,
    judge_batching,
    read_examples,
    with_batch_axis,
    write_samples,
)
from triton_router.repository.build.torch_program import Program
from triton_router.repository.sandbox_child import report_progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from triton_router.repository.build.samples import Tensors

    Run = Callable[[Tensors], Tensors]

PROGRAM_FILE = "program.pt2"


def run(payload: dict[str, Any]) -> dict[str, Any]:
    """Export the program, sample the model, and return a `Parent`.

    Args:
        payload: A `ParentJob`.

    Raises:
        ModelFileError: The source cannot be loaded or run.
        UnsupportedError: ``torch.export`` cannot trace it.
    """
    job = ParentJob.from_json(payload)
    path = Path(job.work) / PROGRAM_FILE
    report_progress("loading the model")
    if job.source_kind == "pt2":
        loaded = load_exported(Path(job.source), job.sha256)
        source, exported = loaded.source, loaded.program
        path.write_bytes(Path(job.source).read_bytes())
        invoke: Run = Program(exported, list(source.example_inputs), source.output_names)
        digest = job.sha256
    else:
        source = load_factory(job.source)
        report_progress("exporting the program")
        exported = export_source(source)
        torch.export.save(exported, path)
        invoke = _eager(source)
        digest = fingerprint(exported)
    symbols = symbol_names(source, exported)
    io = with_batch_axis(describe(source, exported, symbols))
    examples = {name: value.detach().cpu().numpy() for name, value in source.example_inputs.items()}
    if job.example_inputs:
        examples = read_examples(job.example_inputs, io)
    references = write_samples(invoke, io, examples, Path(job.work))
    return asdict(
        Parent(
            io=io,
            references=references,
            fingerprint=digest,
            batch=judge_batching(invoke, io, references),
            program=str(path),
            symbols=symbols,
            tools={"torch": str(torch.__version__)},
        )
    )


def _eager(source: TorchSource) -> Run:
    def invoke(inputs: Tensors) -> Tensors:
        with torch.inference_mode():
            result = source.module(**{name: torch.from_numpy(value) for name, value in inputs.items()})
        values = flatten_outputs(result).values()
        return {name: value.detach().numpy() for name, value in zip(source.output_names, values, strict=True)}

    return invoke


def describe(source: TorchSource, exported: torch.export.ExportedProgram, symbols: dict[str, str]) -> IoSpec:
    """Read names, types, shapes and bounds.

    Args:
        source: The inputs' and outputs' names.
        exported: The program.
        symbols: Readable names of the program's symbols.
    """
    inputs = zip(source.example_inputs, inputs_of(exported).values(), strict=True)
    outputs = zip(source.output_names, outputs_of(exported), strict=True)
    bounds = {
        symbols[str(symbol)]: (max(1, int(limits.lower)), _upper(limits.upper))
        for symbol, limits in exported.range_constraints.items()
        if str(symbol) in symbols
    }
    return IoSpec(
        inputs=tuple(_tensor(name, value, symbols) for name, value in inputs),
        outputs=tuple(_tensor(name, value, symbols) for name, value in outputs),
        bounds=bounds,
    )


def symbol_names(source: TorchSource, exported: torch.export.ExportedProgram) -> dict[str, str]:
    """Return the source's name for each symbol that torch made up (``s53``)."""
    values = dict(zip(source.example_inputs, inputs_of(exported).values(), strict=True))
    return {
        str(values[name].shape[axis]): symbol
        for name, axes in source.dynamic_axes.items()
        for axis, symbol in axes.items()
        if isinstance(values[name].shape[axis], torch.SymInt)
    }


def renamed(expression: str, names: dict[str, str]) -> str:
    """Replace torch's symbols in an expression such as ``s53//2`` by readable names."""
    return re.sub(r"[A-Za-z_]\w*", lambda match: names.get(match.group(), match.group()), expression)


def fingerprint(exported: torch.export.ExportedProgram) -> str:
    """Return a SHA-256 over the program's graph, constants and weights."""
    digest = hashlib.sha256(str(exported.graph).encode())
    digest.update(repr(sorted((str(key), str(value)) for key, value in exported.range_constraints.items())).encode())
    for name, value in sorted({**exported.state_dict, **exported.constants}.items()):
        digest.update(name.encode())
        if isinstance(value, torch.Tensor):
            digest.update(f"{value.dtype}{list(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _tensor(name: str, value: torch.Tensor, names: dict[str, str]) -> TensorSpec:
    dynamic = [isinstance(size, torch.SymInt) for size in value.shape]
    return TensorSpec(
        name=name,
        datatype=_datatype(name, value.dtype),
        shape=tuple(-1 if free else int(size) for free, size in zip(dynamic, value.shape, strict=True)),
        axes=tuple(renamed(str(size), names) if free else "" for free, size in zip(dynamic, value.shape, strict=True)),
    )


def _datatype(name: str, dtype: torch.dtype) -> str:
    if dtype == torch.bfloat16:
        raise ModelFileError(
            f"tensor {name!r} is bfloat16, which numpy and therefore the Python backends cannot carry",
            hint="cast inputs and outputs to float32 inside the model",
        )
    return sampling.kserve_name(torch.empty(0, dtype=dtype).numpy().dtype)


def _upper(limit: Any) -> int:
    return min(int(limit), sampling.UNBOUNDED) if limit.is_finite else sampling.UNBOUNDED
