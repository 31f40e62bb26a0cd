"""Builds a TensorRT plan (``model.plan``) from the ONNX file, on the GPU that is to serve it.

A plan is made for one GPU model and one TensorRT version, so it is built where it runs: without a GPU, or without
the ``tensorrt`` package, the answer is "not available" and what to do on the GPU machine.

The network is strongly typed: TensorRT keeps the ONNX file's types (fp32 products may use TF32) and never lowers
precision by itself; it is the only mode from TensorRT 11 on. One optimisation profile covers every shape that
the contract allows.

`_plan` follows the documentation of TensorRT 10 and 11 and **has not been run by this project**, which had no GPU;
the profile's shapes and the refusals are tested. The target's ``config.pbtxt`` for Triton's native ``tensorrt``
backend comes from `triton_router.repository.target_config`, like every target's.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple

from triton_router.errors import BuildError
from triton_router.repository.build import samples
from triton_router.repository.build.job import BuildJob, BuildResult
from triton_router.repository.sandbox_child import report_progress

if TYPE_CHECKING:
    from collections.abc import Mapping

PLAN = "model.plan"
WORKSPACE_BYTES = 4 << 30
"""Scratch memory that TensorRT may use while it times kernels; it takes what it needs below that."""

TYPICAL_BATCH = 8
"""Batch that kernels are tuned for, where ``max_batch_size`` allows it."""

_TYPES = {"FP32", "FP16", "BF16", "INT64", "INT32", "INT8", "UINT8", "BOOL"}
"""What TensorRT takes as network inputs and outputs."""


class Shapes(NamedTuple):
    """The three shapes of one input in an optimisation profile."""

    smallest: tuple[int, ...]
    typical: tuple[int, ...]
    largest: tuple[int, ...]


def build(payload: dict[str, Any]) -> dict[str, Any]:
    """Build ``model.plan``. Runs in a child process.

    Args:
        payload: A `BuildJob` as JSON.

    Returns:
        A `BuildResult` as JSON, without checks: the caller runs the plan with Triton.

    Raises:
        BuildError: TensorRT refuses the model.
    """
    job = BuildJob.from_json(payload)
    reason = unavailable(job) or _no_machine(job.target)
    if reason:
        return BuildResult.not_available(reason).to_json()
    report_progress("building the TensorRT plan; this may take minutes")
    tools = {"tensorrt": version("tensorrt")}
    job.path(PLAN).write_bytes(_plan(job))
    notes = (
        "the plan works only on this GPU model and this TensorRT version; build it again for another",
        "the plan was not compared with the model that it was made from",
    )
    return BuildResult(files=(PLAN,), tools=tools, notes=notes).to_json()


def unavailable(job: BuildJob) -> str:
    """Return why this model can have no plan on any machine; empty if nothing stands against it."""
    if not job.onnx:
        return "TensorRT plans are made from ONNX, and this model could not be exported to it"
    foreign = sorted({spec.datatype for spec in (*job.io.inputs, *job.io.outputs)} - _TYPES)
    if foreign:
        return f"TensorRT has no tensors of type {', '.join(foreign)}"
    unbounded = sorted(
        {axis for spec in job.io.inputs for axis in spec.axes if axis} - job.io.bounds.keys() - {job.io.batch_axis}
    )
    if unbounded:
        return (
            f"dimension {', '.join(unbounded)} has no upper bound and TensorRT needs one; "
            "export the model from torch with Dim(max=...), or fix the dimension in the ONNX file"
        )
    return ""


def profile(job: BuildJob, typical: Mapping[str, tuple[int, ...]]) -> dict[str, Shapes]:
    """Return the optimisation profile: for each dynamic input its smallest, typical and largest shape.

    Args:
        job: The contract and ``max_batch_size``.
        typical: Shape of each input in a sample.
    """
    result: dict[str, Shapes] = {}
    for spec in job.io.inputs:
        if not any(spec.axes):
            continue
        triples = [
            _sizes(job, axis, usual) if axis else (size, size, size)
            for axis, size, usual in zip(spec.axes, spec.shape, typical[spec.name], strict=True)
        ]
        result[spec.name] = Shapes(*zip(*triples, strict=True))
    return result


def _sizes(job: BuildJob, axis: str, usual: int) -> tuple[int, int, int]:
    low, high = job.io.bounds.get(axis, (1, 1))
    if axis == job.io.batch_axis and job.max_batch_size:
        low, high, usual = 1, job.max_batch_size, TYPICAL_BATCH
    return low, min(max(usual, low), high), high


def _no_machine(target: str) -> str:
    """Return what this machine lacks, and what to do; empty if it has both."""
    advice = f"run 'triton-router add' with '--targets {target}' on the GPU machine that is to serve it"
    if not _has_gpu():
        return f"TensorRT builds a plan on the GPU that runs it, and this machine has none; {advice}"
    if importlib.util.find_spec("tensorrt") is None:
        return f"tensorrt is not installed; pip install tensorrt, in the version that your Triton uses, and {advice}"
    return ""


def _has_gpu() -> bool:
    """Ask NVIDIA's driver library, which every installation of the driver has."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


def _plan(job: BuildJob) -> bytes:  # pragma: no cover - needs a GPU; not run by the tests
    """Parse the ONNX file, tune it, and return the serialised plan.

    Raises:
        BuildError: TensorRT refuses the model or finds no way to run it.
    """
    trt: Any = importlib.import_module("tensorrt")
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(job.onnx):
        reasons = "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors))
        raise BuildError(f"TensorRT cannot read this model: {reasons}", hint="leave this target out with --targets")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    typical = {name: value.shape for name, value in samples.load(job.references[0]).inputs.items()}
    shapes = profile(job, typical)
    if shapes:
        wanted = builder.create_optimization_profile()
        for name, (smallest, usual, largest) in shapes.items():
            wanted.set_shape(name, min=smallest, opt=usual, max=largest)
        config.add_optimization_profile(wanted)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildError(
            "TensorRT found no way to run this model",
            hint="its log says which layer; leave this target out with --targets",
        )
    return bytes(plan)
