"""The parent of an ONNX source: check the file, run it on samples.

Runs in a child process only.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort

from triton_router.analysis.onnx_graph import KSERVE_TYPES
from triton_router.analysis.onnx_model import OnnxLimits, content_hash, external_files, load_checked
from triton_router.errors import ModelFileError, UnsupportedError
from triton_router.repository.build import sampling
from triton_router.repository.build.job import IoSpec, TensorSpec
from triton_router.repository.build.reference import (
    SEED,
    Parent,
    ParentJob,
    judge_batching,
    read_examples,
    with_batch_axis,
    write_samples,
)
from triton_router.repository.build.runtimes import open_onnx
from triton_router.repository.sandbox_child import report_progress

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

    from triton_router.repository.build.reference import Run
    from triton_router.repository.build.samples import Tensors

PARENT_FILE = "parent.onnx"


def run(payload: dict[str, Any]) -> dict[str, Any]:
    """Copy the checked file, sample it, and return a `Parent`.

    Args:
        payload: A `ParentJob`.

    Raises:
        ModelFileError: The file is not valid, or does not run.
        UnsupportedError: With its external data it is larger than one file may be.
    """
    job = ParentJob.from_json(payload)
    source, path = Path(job.source), Path(job.work) / PARENT_FILE
    limits = OnnxLimits(domains=OnnxLimits().domains | set(job.allowed_domains))
    report_progress("checking the ONNX file")
    model = load_checked(source, limits, sha256=job.sha256 or None)
    fingerprint, _ = content_hash(source, external_files(source, onnx.load(source, load_external_data=False)))
    _write_single_file(model, source, path)
    io = with_batch_axis(describe(model))
    invoke = open_onnx(path)
    examples, notes = _examples(job, io, model, invoke)
    references = write_samples(invoke, io, examples, Path(job.work))
    return asdict(
        Parent(
            io=io,
            references=references,
            fingerprint=fingerprint,
            batch=judge_batching(invoke, io, references),
            onnx=str(path),
            tools={"onnx": onnx.__version__, "onnxruntime": ort.__version__},
            notes=notes,
        )
    )


def describe(model: ModelProto) -> IoSpec:
    """Read names, types and shapes; initialisers that are listed as inputs are not inputs."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return IoSpec(
        inputs=tuple(_tensor(value) for value in model.graph.input if value.name not in stored),
        outputs=tuple(_tensor(value) for value in model.graph.output),
    )


def table_sizes(model: ModelProto) -> dict[str, int]:
    """Return for each input that directly indexes a stored table the number of the table's rows."""
    rows = {tensor.name: int(tensor.dims[0]) for tensor in model.graph.initializer if tensor.dims}
    return {
        node.input[1]: rows[node.input[0]]
        for node in model.graph.node
        if node.op_type == "Gather" and node.input[0] in rows and not _axis(node)
    }


def _axis(node: onnx.NodeProto) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == "axis"), 0)


def _write_single_file(model: ModelProto, source: Path, path: Path) -> None:
    external = any(tensor.data_location for tensor in onnx.load(source, load_external_data=False).graph.initializer)
    if not external:
        shutil.copyfile(source, path)
        return
    try:
        onnx.save(model, path)
    except ValueError as error:
        raise UnsupportedError(
            f"{source} is larger than 2 GiB with its external data, more than one ONNX file can hold",
            hint="serve it as a .pt2, or make it smaller",
        ) from error


def _tensor(value: ValueInfoProto) -> TensorSpec:
    kind = value.type.tensor_type
    if kind.elem_type not in KSERVE_TYPES or KSERVE_TYPES[kind.elem_type] == "BF16":
        raise ModelFileError(
            f"tensor {value.name!r} has a type that cannot be sent to Triton",
            hint="cast it inside the model to a type of the KServe protocol",
        )
    if not kind.HasField("shape"):
        raise ModelFileError(
            f"tensor {value.name!r} has no shape in the ONNX file",
            hint="run onnx.shape_inference.infer_shapes over the model, or export it again",
        )
    dims = list(kind.shape.dim)
    return TensorSpec(
        name=value.name,
        datatype=KSERVE_TYPES[kind.elem_type],
        shape=tuple(int(dim.dim_value) if dim.HasField("dim_value") else -1 for dim in dims),
        axes=tuple(
            "" if dim.HasField("dim_value") else dim.dim_param or f"{value.name}_{position}"
            for position, dim in enumerate(dims)
        ),
    )


def _examples(job: ParentJob, io: IoSpec, model: ModelProto, invoke: Run) -> tuple[Tensors, tuple[str, ...]]:
    if job.example_inputs:
        return read_examples(job.example_inputs, io), ()
    note = "checked with invented inputs; give real ones with --example-inputs FILE.npz"
    limits = table_sizes(model)
    problem = ""
    for guess in range(sampling.GUESS_COUNT):
        examples = sampling.invented(io, limits, np.random.default_rng(SEED), guess)
        try:
            invoke(examples)
        except (RuntimeError, ValueError) as error:
            problem = str(error).splitlines()[0]
        else:
            return examples, (note,)
    raise ModelFileError(
        f"the model does not run on invented inputs: {problem}", hint="give real inputs with --example-inputs FILE.npz"
    )
