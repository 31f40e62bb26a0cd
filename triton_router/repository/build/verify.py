"""Run a built variant with its real runtime: against its parent, merged against separate, and against the clock.

Runs in a child process only.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from triton_router.errors import BuildError
from triton_router.repository.build.batching import batch_difference, verdict
from triton_router.repository.build.job import BuildJob, Checks
from triton_router.repository.build.runtimes import open_onnx, open_pt2
from triton_router.repository.build.samples import Sample, load
from triton_router.repository.build.tolerance import TOLERANCES, Difference, difference, precision
from triton_router.repository.sandbox_child import report_progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triton_router.repository.build.job import BatchVerdict
    from triton_router.repository.build.reference import Run

_REPEATS = 9
_SECONDS_PER_SIZE = 1.0
"""A slow model is timed less often: a median of three says enough to begin with."""


def run(payload: dict[str, Any]) -> dict[str, Any]:
    """Check the variant in ``job.staging`` and return `Checks`.

    Args:
        payload: A `BuildJob` with the options ``variant``, ``device`` (``cpu`` or ``cuda``) and
            ``parent_batch``, the verdict on the fp32 parent.
    """
    job = BuildJob.from_json(payload)
    samples = [load(path) for path in job.references]
    kind = precision(str(job.options["variant"]))
    parent_batch: BatchVerdict = job.options["parent_batch"]
    report_progress("opening it with its runtime")
    invoke = _open(job)
    report_progress("comparing it with its parent")
    found = compare(invoke, samples)
    problem = found.exceeds(TOLERANCES[kind])
    if problem:
        return asdict(Checks(False, found.absolute, found.cosine, detail=problem))
    report_progress("merging requests")
    merged = batch_difference(invoke, samples) if job.io.batch_axis else None
    report_progress("measuring latency")
    return asdict(
        Checks(
            passed=True,
            max_abs_error=found.absolute,
            cosine=found.cosine,
            batch=verdict(merged, kind, parent_batch) if job.io.batch_axis else parent_batch,
            latency=measure(invoke, samples, batched=bool(job.io.batch_axis)),
            detail=f"{len(samples)} samples on {job.options['device']}, allowed: {TOLERANCES[kind].reason}",
        )
    )


def compare(invoke: Run, samples: Sequence[Sample]) -> Difference:
    """Return the worst difference from the parent over all samples."""
    found = Difference()
    for sample in samples:
        try:
            found = found.worst(difference(invoke(sample.inputs), sample.outputs))
        except (RuntimeError, AssertionError, ValueError) as error:
            shapes = {name: list(value.shape) for name, value in sample.inputs.items()}
            lines = str(error).splitlines() or [type(error).__name__]
            return Difference(problem=f"fails where the parent does not, at {shapes}: {lines[0]}")
    return found


def measure(invoke: Run, samples: Sequence[Sample], *, batched: bool) -> tuple[dict[str, float], ...]:
    """Return the median latency of each sample, the smallest work first; one row per amount of work."""
    rows: dict[int, dict[str, float]] = {}
    for sample in samples:
        if sample.work in rows:
            continue
        first = next(iter(sample.inputs.values()))
        rows[sample.work] = {
            "batch": int(first.shape[0]) if batched else 1,
            "work": sample.work,
            "latency_ms": round(_median_ms(invoke, sample), 4),
        }
    return tuple(rows[work] for work in sorted(rows))


def _median_ms(invoke: Run, sample: Sample) -> float:
    invoke(sample.inputs)
    taken: list[float] = []
    deadline = time.perf_counter() + _SECONDS_PER_SIZE
    while len(taken) < _REPEATS and (len(taken) < 3 or time.perf_counter() < deadline):
        start = time.perf_counter()
        invoke(sample.inputs)
        taken.append((time.perf_counter() - start) * 1e3)
    return statistics.median(taken)


def _open(job: BuildJob) -> Run:
    device = str(job.options["device"])
    if job.path("model.onnx").is_file():
        return open_onnx(job.path("model.onnx"), cuda=device == "cuda")
    if job.path("model.pt2").is_file():
        return open_pt2(job.path("model.pt2"), job.io, device)
    raise BuildError(f"{job.target} has no file that can be checked", hint="please report this")
