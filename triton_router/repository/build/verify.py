"""Run a built variant with its real runtime: against its parent, merged against separate, and against the clock.

Runs in a child process only.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from triton_router.errors import BuildError
from triton_router.parity.answer import meant
from triton_router.parity.difference import Difference, difference
from triton_router.parity.tolerance import TOLERANCES, precision
from triton_router.repository.build.batching import batch_difference, verdict
from triton_router.repository.build.job import BuildJob, Checks
from triton_router.repository.build.runtimes import open_onnx, open_pt2
from triton_router.repository.build.samples import Sample, load
from triton_router.repository.sandbox_child import report_progress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from triton_router.repository.build.job import BatchVerdict
    from triton_router.repository.build.reference import Run

_ROUNDS = 30
_LEAST_ROUNDS = 3
_SECONDS = 3.0
"""Time for all sizes of one variant; a slow model is timed less often."""


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
        return asdict(Checks(False, found.absolute, found.rms, found.cosine, detail=problem))
    report_progress("merging requests")
    merged = batch_difference(invoke, samples) if job.io.batch_axis else None
    report_progress("measuring latency")
    return asdict(
        Checks(
            passed=True,
            max_abs_error=found.absolute,
            rms_error=found.rms,
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
            answer = invoke(sample.inputs)
            found = found.worst(difference(meant(sample.inputs, answer), meant(sample.inputs, sample.outputs)))
        except (RuntimeError, AssertionError, ValueError) as error:
            shapes = {name: list(value.shape) for name, value in sample.inputs.items()}
            lines = str(error).splitlines() or [type(error).__name__]
            return Difference(problem=f"fails where the parent does not, at {shapes}: {lines[0]}")
    return found


def measure(
    invoke: Run, samples: Sequence[Sample], *, batched: bool, clock: Callable[[], float] = time.perf_counter
) -> tuple[dict[str, float], ...]:
    """Return what the variant can do unloaded: the least latency of each sample, the smallest work first.

    The least of several runs, not their median: other programs on a busy machine only ever add time, to a median
    tenfold, and the router learns what load adds by itself. The sizes are timed in turns, so that a burst of load
    meets all of them and none is always unlucky. One row per amount of work.
    """
    chosen = {sample.work: sample for sample in reversed(samples)}
    least = dict.fromkeys(sorted(chosen), float("inf"))
    for work in least:
        invoke(chosen[work].inputs)
    deadline = clock() + _SECONDS
    for done in range(_ROUNDS):
        if done >= _LEAST_ROUNDS and clock() > deadline:
            break
        for work in least:
            start = clock()
            invoke(chosen[work].inputs)
            least[work] = min(least[work], (clock() - start) * 1e3)
    return tuple(
        {"batch": _rows(chosen[work]) if batched else 1, "work": work, "latency_ms": round(taken, 4)}
        for work, taken in least.items()
    )


def _rows(sample: Sample) -> int:
    return int(next(iter(sample.inputs.values())).shape[0])


def _open(job: BuildJob) -> Run:
    device = str(job.options["device"])
    if job.path("model.onnx").is_file():
        return open_onnx(job.path("model.onnx"), cuda=device == "cuda")
    if job.path("model.pt2").is_file():
        return open_pt2(job.path("model.pt2"), job.io, device)
    raise BuildError(f"{job.target} has no file that can be checked", hint="please report this")
