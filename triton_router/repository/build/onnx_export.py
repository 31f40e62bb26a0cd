"""Export a torch program to one ONNX file. Runs in a child process only."""

from __future__ import annotations

from typing import Any

import onnx
import onnxscript
import torch

from triton_router.repository.build.job import BuildJob, BuildResult
from triton_router.repository.build.torch_parent import renamed
from triton_router.repository.sandbox_child import report_progress

FILE = "model.onnx"


def build(payload: dict[str, Any]) -> dict[str, Any]:
    """Write ``model.onnx`` from ``job.program``, with the contract's names and readable symbols."""
    job = BuildJob.from_json(payload)
    report_progress("loading the program")
    exported = torch.export.load(job.program)
    report_progress("exporting to ONNX")
    program = torch.onnx.export(
        exported,
        dynamo=True,
        input_names=[spec.name for spec in job.io.inputs],
        output_names=[spec.name for spec in job.io.outputs],
        verbose=False,
    )
    if program is None:  # pragma: no cover - only the deprecated exporter returns nothing
        raise RuntimeError("torch.onnx.export returned no program")
    model = program.model_proto
    _rename_symbols(model.graph, job.options["symbols"])
    report_progress("writing the ONNX file")
    onnx.save(model, job.path(FILE))
    return BuildResult(
        files=(FILE,),
        tools={"torch": str(torch.__version__), "onnx": onnx.__version__, "onnxscript": onnxscript.__version__},
    ).to_json()


def _rename_symbols(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = renamed(dim.dim_param, names)
