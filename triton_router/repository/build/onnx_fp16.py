"""Convert the fp32 ONNX file to half precision; inputs and outputs keep their types. Child processes only."""

from __future__ import annotations

from typing import Any

import onnx
import onnxruntime as ort
from onnxruntime.transformers.float16 import convert_float_to_float16

from triton_router.repository.build.job import BuildJob, BuildResult
from triton_router.repository.sandbox_child import report_progress

FILE = "model.onnx"


def build(payload: dict[str, Any]) -> dict[str, Any]:
    """Write ``model.onnx`` with weights and arithmetic in fp16."""
    job = BuildJob.from_json(payload)
    report_progress("converting to fp16")
    model = convert_float_to_float16(onnx.load(job.onnx), keep_io_types=True)
    onnx.save(model, job.path(FILE))
    return BuildResult(files=(FILE,), tools={"onnx": onnx.__version__, "onnxruntime": ort.__version__}).to_json()
