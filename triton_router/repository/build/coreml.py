"""Converts a torch program to a Core ML package (``model.mlpackage``) for the Apple Neural Engine.

The ladder, from the best package to none:

1. the exported program, decomposed as little as possible (``run_decompositions({})``);
2. the same with torch's full decomposition table, for operators that coremltools does not know by name;
3. exported again for one row, if the batch is all that is dynamic: requests are then served row by row;
4. not available, with the reason.

Shapes. If only the batch is dynamic, the package lists the batches 1, 2, 4 ... ``max_batch_size``, and the
serving backend pads to the next one: the Neural Engine runs listed shapes, whereas of a *range* it runs the
default alone. If other dimensions are dynamic too (a text's length), padding them would change the answer, so
the package takes ranges: right at every shape, on the Neural Engine at the default one. Export the model with a
fixed length where that matters.

Types. Core ML has float32, float16 and int32 at its boundary. Integers and booleans become int32, float64 becomes
float32; ``config.pbtxt`` keeps the routed model's types and the serving backend casts. Arithmetic is float16.

ONNX sources are not converted: coremltools dropped its ONNX front end, and the one other converter
(``onnxsim.export_coreml`` 0.8.1, tried with a sentence encoder) lacks operators that transformers need.
"""

from __future__ import annotations

import importlib.util
import logging
import re
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from triton_router.repository.build import samples
from triton_router.repository.build.coreml_check import check
from triton_router.repository.build.job import BuildJob, BuildResult
from triton_router.repository.coreml_package import BOUNDARY_TYPES, METADATA_KEY, Package
from triton_router.repository.sandbox_child import report_progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from triton_router.repository.build.job import TensorSpec

PACKAGE = "model.mlpackage"
UNBOUNDED = 1 << 16
"""Upper bound given to a dimension that has none: Core ML wants one."""

_CONTROL_FLOW = {"cond", "while_loop", "scan", "map_impl", "associative_scan"}
_CONVERSION_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What coremltools raises for a model that it cannot convert; it has no error class of its own."""


class _NoWayError(Exception):
    """This program cannot become a Core ML package; the message is the reason."""


@dataclass(frozen=True, slots=True)
class _Rung:
    """One step of the ladder.

    Attributes:
        name: In words.
        prepare: Makes the program that coremltools is given.
        batches: Batch sizes of the package; empty for any within the range.
    """

    name: str
    prepare: Callable[[], Any]
    batches: tuple[int, ...]


def build(payload: dict[str, Any]) -> dict[str, Any]:
    """Build and check ``model.mlpackage``. Runs in a child process.

    Args:
        payload: A `BuildJob` as JSON.

    Returns:
        A `BuildResult` as JSON, with checks.
    """
    job = BuildJob.from_json(payload)
    reason = unavailable(job)
    if reason:
        return BuildResult.not_available(reason).to_json()
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # coremltools warns that this torch is newer than the ones it was tested with, and numpy that a mask's
        # -3e38 overflows float16 to -inf, which is what it means. The check decides, not the warnings.
        warnings.simplefilter("ignore")
        return _build(job).to_json()


def unavailable(job: BuildJob) -> str:
    """Return why there can be no Core ML package, before anything is converted; empty if nothing stands against it."""
    if not job.program:
        return (
            "Core ML packages are made from torch programs, and this source is an ONNX file; "
            "give the torch factory or .pt2 instead"
        )
    for package in ("coremltools", "torch"):
        if importlib.util.find_spec(package) is None:
            extra = "coreml" if package == "coremltools" else "torch"
            return f"{package} is not installed; pip install 'triton-router[{extra}]'"
    specs = (*job.io.inputs, *job.io.outputs)
    foreign = sorted({spec.datatype for spec in specs} - BOUNDARY_TYPES.keys())
    if foreign:
        return f"Core ML has no tensors of type {', '.join(foreign)}"
    names = [feature_name(spec.name) for spec in specs]
    if len(set(names)) < len(names):
        return "two tensors have the same name once it is reduced to the letters that Core ML allows"
    return ""


def feature_name(name: str) -> str:
    """Return the name inside the package: letters, digits and underscores, not starting with a digit."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)
    return f"_{plain}" if plain[:1].isdigit() else plain


def batch_sizes(max_batch_size: int) -> tuple[int, ...]:
    """Return the batches that a package lists: powers of two up to ``max_batch_size``, and that itself."""
    powers = [1 << exponent for exponent in range(max_batch_size.bit_length()) if 1 << exponent < max_batch_size]
    return (*powers, max_batch_size)


def _build(job: BuildJob) -> BuildResult:
    tools = {name: version(name) for name in ("coremltools", "torch")}
    try:
        rung, tried = _climb(job)
    except _NoWayError as error:
        return BuildResult.not_available(str(error), tools=tools)
    report_progress("checking the Core ML package operator by operator")
    checks = check(job.path(PACKAGE), _package(job, rung.batches), job.references, batched=job.max_batch_size > 0)
    notes = (*_attempts(rung, tried), *_notes(job, rung), checks.detail)
    return BuildResult(files=(PACKAGE,), checks=checks, tools=tools, notes=notes)


def _climb(job: BuildJob) -> tuple[_Rung, list[str]]:
    """Convert and save by the first step that works; also return why earlier ones did not.

    Raises:
        _NoWayError: None works.
    """
    import torch

    program = torch.export.load(job.program)
    _refuse_control_flow(program)
    tried: list[str] = []
    for rung in _ladder(job, program):
        report_progress(f"converting to Core ML: {rung.name}")
        try:
            _convert(rung.prepare(), job, rung.batches)
        except _CONVERSION_ERRORS as error:
            first = str(error).strip().partition("\n")[0][:300] or "without a message"
            tried.append(f"attempt {len(tried) + 1}, with {rung.name}, failed: {type(error).__name__}: {first}")
        else:
            return rung, tried
    raise _NoWayError("coremltools cannot convert this model: " + "; ".join(tried))


def _ladder(job: BuildJob, program: Any) -> list[_Rung]:
    io = job.io
    symbols = {axis for spec in (*io.inputs, *io.outputs) for axis in spec.axes if axis}
    only_batch = symbols == {io.batch_axis} and job.max_batch_size > 0
    batches = batch_sizes(job.max_batch_size) if only_batch else ()
    rungs = [
        _Rung("the exported program", lambda: program.run_decompositions({}), batches),
        _Rung("the full decomposition table", program.run_decompositions, batches),
    ]
    if only_batch:
        rungs.append(_Rung("one row at a time", lambda: _export_one_row(job, program), (1,)))
    return rungs


def _export_one_row(job: BuildJob, program: Any) -> Any:
    """Export the program again with all shapes fixed, the batch to one."""
    import torch
    from torch.utils import _pytree as pytree

    inputs = samples.load(job.references[0]).inputs
    leaves = [torch.from_numpy(inputs[spec.name][:1]) for spec in job.io.inputs]
    args, kwargs = pytree.tree_unflatten(leaves, program.call_spec.in_spec)
    return torch.export.export(program.module(), args, kwargs).run_decompositions()


def _refuse_control_flow(program: Any) -> None:
    found = {
        str(getattr(node.target, "__name__", node.target)) for node in program.graph.nodes if node.op == "call_function"
    } & _CONTROL_FLOW
    if found:
        raise _NoWayError(
            f"the model has control flow (torch.{', torch.'.join(sorted(found))}), which does not convert"
        )


def _convert(program: Any, job: BuildJob, batches: tuple[int, ...]) -> None:
    """Convert and save the package; a package of an earlier step is replaced."""
    import coremltools as ct

    specs = {spec.name: spec for spec in job.io.inputs}
    order = [specs[name] for name in program.graph_signature.user_inputs]
    shapes = _listed_shapes(order, batches) if batches else _ranges(job, order)
    model: Any = ct.convert(
        program,
        convert_to="mlprogram",
        inputs=[
            ct.TensorType(name=feature_name(spec.name), shape=shape, dtype=BOUNDARY_TYPES[spec.datatype])
            for spec, shape in zip(order, shapes, strict=True)
        ],
        outputs=[
            ct.TensorType(name=feature_name(spec.name), dtype=BOUNDARY_TYPES[spec.datatype]) for spec in job.io.outputs
        ],
        minimum_deployment_target=ct.target.macOS15,
        compute_precision=ct.precision.FLOAT16,
        skip_model_load=True,
    )
    model.short_description = f"{job.model}, version {job.version}"
    model.user_defined_metadata[METADATA_KEY] = _package(job, batches).to_metadata()
    model.save(str(job.path(PACKAGE)))
    # coremltools adds a table for ExecuTorch's debugger, which nothing here reads.
    (job.path(PACKAGE) / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)


def _listed_shapes(specs: list[TensorSpec], batches: tuple[int, ...]) -> list[Any]:
    """Return for each input its shapes, one per batch size; the batch is all that is dynamic."""
    import coremltools as ct

    result: list[Any] = []
    for spec in specs:
        sizes = [
            tuple(batch if axis else size for axis, size in zip(spec.axes, spec.shape, strict=True))
            for batch in batches
        ]
        result.append(sizes[0] if len(set(sizes)) == 1 else ct.EnumeratedShapes(sizes, default=sizes[0]))
    return result


def _ranges(job: BuildJob, specs: list[TensorSpec]) -> list[Any]:
    """Return for each input its shape, with one range per symbol, shared by the inputs; the default is a sample's."""
    import coremltools as ct

    typical = samples.load(job.references[0]).inputs
    dims: dict[str, Any] = {}
    for spec in specs:
        for axis, usual in zip(spec.axes, typical[spec.name].shape, strict=True):
            if axis and axis not in dims:
                low, high = job.io.bounds.get(axis, (1, UNBOUNDED))
                high = job.max_batch_size if axis == job.io.batch_axis and job.max_batch_size else high
                dims[axis] = ct.RangeDim(low, high, default=min(max(usual, low), high))
    return [tuple(dims.get(axis, size) for axis, size in zip(spec.axes, spec.shape, strict=True)) for spec in specs]


def _package(job: BuildJob, batches: tuple[int, ...]) -> Package:
    return Package(
        inputs={spec.name: feature_name(spec.name) for spec in job.io.inputs},
        outputs={spec.name: feature_name(spec.name) for spec in job.io.outputs},
        batches=batches,
    )


def _attempts(rung: _Rung, tried: list[str]) -> list[str]:
    """Say which attempt made the package, if it was not the first, and why the better ones did not."""
    if not tried:
        return []
    return [f"converted at attempt {len(tried) + 1}, with {rung.name}; {'; '.join(tried)}"]


def _notes(job: BuildJob, rung: _Rung) -> list[str]:
    """Say what a user has to know about this package."""
    notes = ["Core ML computes in float16; the package is served on macOS only"]
    if rung.batches == (1,):
        notes.append("the package takes one row: a batch is served row by row")
    elif rung.batches:
        notes.append(
            f"batches are padded to {', '.join(map(str, rung.batches))}, all of which the Neural Engine can run"
        )
    elif any(any(spec.axes) for spec in job.io.inputs):
        notes.append(
            "shapes are ranges: right at every shape, but the Neural Engine runs the default shape only; "
            "export with fixed lengths to list the batches instead"
        )
    for spec in (*job.io.inputs, *job.io.outputs):
        stored = np.dtype(BOUNDARY_TYPES[spec.datatype]).name
        if stored.upper().replace("FLOAT", "FP") != spec.datatype:
            notes.append(
                f"{spec.name} is {stored} inside the package; the serving backend casts from and to {spec.datatype}"
            )
    return notes
