"""Build and check the planned variants, each in a child process of its own, so that one failure is one variant's."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from triton_router.errors import TritonRouterError
from triton_router.repository.build.job import BuildJob, BuildResult, Checks
from triton_router.repository.plan import BY_SUFFIX
from triton_router.repository.sandbox import run_child

if TYPE_CHECKING:
    from pathlib import Path

    from triton_router.repository.build.reference import Parent
    from triton_router.repository.plan import Target, VariantPlan
    from triton_router.repository.sandbox import Limits

Status = Literal["served", "kept", "failed", "unavailable", "skipped"]

_BUILD = "triton_router.repository.build."
_BUILDERS = {
    "onnx": _BUILD + "copies:build_onnx",
    "onnx-int8": _BUILD + "onnx_int8:build",
    "onnx-fp16": _BUILD + "onnx_fp16:build",
    "pt2": _BUILD + "copies:build_pt2",
    "coreml": _BUILD + "coreml:build",
    "tensorrt": _BUILD + "tensorrt:build",
}
_EXPORT = _BUILD + "onnx_export:build"
_VERIFY = _BUILD + "verify:run"
_FP32 = frozenset({"onnx", "pt2"})
_FROM_ONNX = frozenset({"onnx", "onnx-int8", "onnx-fp16", "tensorrt"})


class Progress(Protocol):
    """Hears what is being done."""

    def begin(self, steps: int) -> None:
        """Learn how many steps there will be."""

    def step(self, title: str) -> None:
        """Learn that the next step begins."""

    def detail(self, text: str) -> None:
        """Learn what the step is doing now."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one row of the plan.

    Attributes:
        row: The row.
        status: Served, kept as an artifact, failed (its build or its check), unavailable (this model or machine
            cannot have it, which only the builder found out), or skipped by the plan.
        reason: Why, in words.
        staging: Directory with its files; None if there are none.
        result: What the builder answered.
        checks: How it compares with its parent; None if it could not be checked here.
        size: Bytes of its files.
    """

    row: VariantPlan
    status: Status
    reason: str
    staging: Path | None = None
    result: BuildResult = field(default_factory=BuildResult)
    checks: Checks | None = None
    size: int = 0


@dataclass(frozen=True, slots=True)
class Workshop:
    """What all variants of one model share.

    Attributes:
        model: Name of the routed model.
        version: Version that is built.
        kind: ``onnx``, ``pt2`` or ``factory``.
        source: The file, or ``package.module:factory``.
        parent: What is known of the fp32 parent.
        max_batch_size: Largest batch, 0 if not batched.
        folder: Directory for the variants' files.
        limits: What each child may use.
        devices: Hardware that can be used on this machine for checks, beside the processor (``gpu``, ``mps``).
    """

    model: str
    version: int
    kind: str
    source: str
    parent: Parent
    max_batch_size: int
    folder: Path
    limits: Limits
    devices: frozenset[str]


def step_count(rows: tuple[VariantPlan, ...], kind: str) -> int:
    """Return how many steps `build_all` reports."""
    building = [row for row in rows if row.action != "skip"]
    exporting = kind != "onnx" and any(row.variant in _FROM_ONNX for row in building)
    return len(building) + exporting


def build_all(shop: Workshop, rows: tuple[VariantPlan, ...], progress: Progress) -> tuple[Outcome, ...]:
    """Build and check every row that the plan does not skip."""
    onnx, problem = shop.parent.onnx, ""
    if not onnx and any(row.action != "skip" and row.variant in _FROM_ONNX for row in rows):
        onnx, problem = _export(shop, progress)
    outcomes: list[Outcome] = []
    for row in rows:
        if row.action == "skip":
            outcomes.append(Outcome(row, "skipped", row.reason))
            continue
        progress.step(row.target)
        if row.variant in _FROM_ONNX and not onnx:
            outcomes.append(Outcome(row, "failed", f"there is no fp32 ONNX file to make it from: {problem}"))
            continue
        outcome = _build(shop, row, onnx, progress)
        outcomes.append(outcome)
        if row.variant == "onnx" and outcome.status == "failed":
            # What is made from a wrong file may still pass a looser tolerance.
            onnx, problem = "", outcome.reason
    return tuple(outcomes)


def has_baseline(outcomes: tuple[Outcome, ...]) -> bool:
    """Tell whether the fp32 variants that were planned, if any were, gave at least one good file."""
    planned = [item for item in outcomes if item.row.variant in _FP32 and item.status != "skipped"]
    return not planned or any(item.status in {"served", "kept"} for item in planned)


def _export(shop: Workshop, progress: Progress) -> tuple[str, str]:
    """Return the path of the exported ONNX file and, if there is none, why."""
    progress.step("onnx export")
    job = _job(shop, "onnx-export", "", {"symbols": shop.parent.symbols})
    try:
        answer = run_child(_EXPORT, job.to_json(), limits=shop.limits, on_progress=progress.detail)
    except TritonRouterError as error:
        return "", error.message
    return str(job.path(BuildResult.from_json(answer).files[0])), ""


def _build(shop: Workshop, row: VariantPlan, onnx: str, progress: Progress) -> Outcome:
    target = BY_SUFFIX[row.target]
    job = _job(shop, row.target, onnx, {"quantisation": row.quantisation, "precision": "fp16"})
    try:
        answer = run_child(_BUILDERS[row.variant], job.to_json(), limits=shop.limits, on_progress=progress.detail)
        result = BuildResult.from_json(answer)
        if result.unavailable:
            return Outcome(row, "unavailable", result.unavailable, result=result)
        checks = result.checks or _verify(shop, target, job, progress)
    except TritonRouterError as error:
        return Outcome(row, "failed", error.message)
    if checks is not None and not checks.passed:
        return Outcome(row, "failed", f"its check failed: {checks.detail}", checks=checks)
    status: Status = "served" if row.action == "build-and-serve" else "kept"
    folder = job.path(".")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Outcome(row, status, row.reason, folder, result, checks, size)


def _verify(shop: Workshop, target: Target, job: BuildJob, progress: Progress) -> Checks | None:
    """Check a file with its runtime; None for a TensorRT plan, whose builder says what it compared."""
    if target.variant == "tensorrt":
        return None
    device = {"gpu": "cuda", "mps": "mps"}[target.hardware] if target.hardware in shop.devices else "cpu"
    options = {"variant": target.variant, "device": device, "parent_batch": shop.parent.batch}
    payload = replace(job, options=options).to_json()
    checks = Checks.from_json(run_child(_VERIFY, payload, limits=shop.limits, on_progress=progress.detail))
    if device == "cpu" and target.hardware != "cpu":
        # A processor's milliseconds would mislead the router about a GPU.
        return replace(checks, latency=(), detail=f"{checks.detail}; checked on the processor, not on its device")
    return checks


def _job(shop: Workshop, target: str, onnx: str, options: dict[str, Any] | None = None) -> BuildJob:
    staging = shop.folder / target
    staging.mkdir()
    return BuildJob(
        model=shop.model,
        target=target,
        staging=str(staging),
        version=shop.version,
        source_kind=shop.kind,
        source=shop.source,
        onnx=onnx,
        program=shop.parent.program,
        references=shop.parent.references,
        io=shop.parent.io,
        max_batch_size=shop.max_batch_size,
        options=options or {},
    )


def checks_json(outcome: Outcome) -> dict[str, Any]:
    """Return the checks for a manifest or a report; empty if there are none."""
    return asdict(outcome.checks) if outcome.checks else {}
