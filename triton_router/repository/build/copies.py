"""Variants that are a file of the parent as it is: fp32 ONNX and ``.pt2``. Needs no heavy library."""

from __future__ import annotations

import shutil
from typing import Any

from triton_router.repository.build.job import BuildJob, BuildResult


def build_onnx(payload: dict[str, Any]) -> dict[str, Any]:
    """Write ``model.onnx``."""
    return _copy(BuildJob.from_json(payload), "model.onnx")


def build_pt2(payload: dict[str, Any]) -> dict[str, Any]:
    """Write ``model.pt2``; the device is chosen where it is loaded, by torch's ``move_to_device_pass``."""
    return _copy(BuildJob.from_json(payload), "model.pt2")


def _copy(job: BuildJob, name: str) -> dict[str, Any]:
    shutil.copyfile(job.program if name.endswith(".pt2") else job.onnx, job.path(name))
    return BuildResult(files=(name,)).to_json()
