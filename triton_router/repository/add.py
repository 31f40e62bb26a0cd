"""Add a model: analyse it, plan its variants, build and check them, install what passed.

The caller's process never opens the model itself; whatever touches its bytes runs in a child process with limits.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from triton_router.analysis.report import AnalysisReport
from triton_router.analysis.source import resolve_source
from triton_router.errors import BuildError, InvalidInputError, NotFoundError
from triton_router.repository import manifest
from triton_router.repository.assemble import Addition, assemble
from triton_router.repository.build.reference import Parent, ParentJob
from triton_router.repository.layout import Installation, check_name, locked, require_ours, staging
from triton_router.repository.plan import VariantPlan, check_targets, plan
from triton_router.repository.sandbox import Limits, run_child
from triton_router.repository.toolbox import toolbox
from triton_router.repository.variants import Outcome, Progress, Workshop, build_all, has_baseline, step_count
from triton_router.repository.versions import (
    next_version,
    require_intact,
    require_no_rollout,
    require_same_io,
    same_version,
)

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from triton_router.analysis.source import ModelSource
    from triton_router.repository.manifest import Manifest

DEFAULT_MAX_BATCH_SIZE = 64
_DISK_ERRORS = frozenset(
    # ENOENT: the tempfile module says so when no temporary directory can be written.
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT}
)
_LARGEST_BATCH = 1 << 16
"""Rows of a request or of a merged batch; far beyond what any server gains from."""
_ANALYSE = "triton_router.analysis.child:analyse"
_PARENTS = {
    "onnx": "triton_router.repository.build.onnx_parent:run",
    "pt2": "triton_router.repository.build.torch_parent:run",
    "factory": "triton_router.repository.build.torch_parent:run",
}


@dataclass(frozen=True, slots=True)
class AddRequest:
    """What the user asked for.

    Attributes:
        model: ``.onnx`` file, ``.pt2`` file, or ``package.module:factory``.
        name: Name of the routed model.
        repository: Triton model repository.
        targets: Suffixes to make; None for all that are worth it.
        version: Version to write; None for the next one.
        sha256: Digest that the file must have; required for a ``.pt2`` that nothing else vouches for.
        hardware: What the server has; None for what this machine has.
        max_batch_size: Largest batch; None for a default within the model's bounds.
        example_inputs: An ``.npz`` file with one array per input.
        allowed_domains: Operator domains that an ONNX file may use beside ONNX's own.
        limits: What each child process may use.
    """

    model: str
    name: str
    repository: Path
    targets: tuple[str, ...] | None = None
    version: int | None = None
    sha256: str | None = None
    hardware: tuple[str, ...] | None = None
    max_batch_size: int | None = None
    example_inputs: Path | None = None
    allowed_domains: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Planned:
    """An analysed model and what is to be made of it."""

    source: ModelSource
    report: AnalysisReport
    rows: tuple[VariantPlan, ...]
    hardware: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Added:
    """What an addition did.

    Attributes:
        version: The version that now holds the model.
        up_to_date: The same source and options were added before, and nothing was written.
        outcomes: One row per target; empty if up to date.
        batch: What merging requests does to the model's answers.
        max_batch_size: What was written to the configurations.
        notes: Sentences for the user.
    """

    version: int
    up_to_date: bool
    outcomes: tuple[Outcome, ...] = ()
    batch: str = "untested"
    max_batch_size: int = 0
    notes: tuple[str, ...] = ()


def make_plan(request: AddRequest, progress: Progress) -> Planned:
    """Analyse the model and plan its variants; writes nothing.

    Raises:
        TritonRouterError: The source, a name or a target is not usable.
    """
    check_name(request.name)
    _check_batch_size(request.max_batch_size)
    tools = toolbox(request.hardware)
    check_targets(request.targets)
    source = resolve_source(request.model, sha256=request.sha256)
    progress.step("analysis")
    payload = {"source": source.to_json(), "name": request.name, "domains": list(request.allowed_domains)}
    with _disk_errors():
        answer = run_child(_ANALYSE, payload, limits=request.limits, on_progress=progress.detail)
    report = AnalysisReport.from_json(answer)
    rows = plan(report, source.kind, tools, request.targets)
    return Planned(source, report, rows, tuple(sorted(tools.hardware)))


def add(request: AddRequest, planned: Planned, progress: Progress) -> Added:
    """Build, check and install what was planned.

    Raises:
        BuildError: No target passed its check; nothing was installed.
        TritonRouterError: Something of the request cannot be had; nothing was installed.
    """
    if all(row.action == "skip" for row in planned.rows):
        raise BuildError(
            "none of the targets can be made: " + "; ".join(f"{row.target}: {row.reason}" for row in planned.rows),
            hint="triton-router add --dry-run shows the plan; --targets and --hardware change it",
        )
    progress.begin(step_count(planned.rows, planned.source.kind) + 2)
    with _disk_errors(), locked(request.repository), staging(request.repository) as stage:
        return _add_locked(request, planned, progress, stage)


@contextlib.contextmanager
def _disk_errors() -> Generator[None]:
    """Say of a full or forbidden disk what can be done about it."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        place = f" at {error.filename}" if error.filename else ""
        raise BuildError(
            f"the disk cannot be written{place}: {error.strerror}",
            hint="nothing was installed; free some space, or check permissions of the repository and of TMPDIR",
        ) from error


def _add_locked(request: AddRequest, planned: Planned, progress: Progress, stage: Path) -> Added:
    _require_own_directories(request, planned)
    require_no_rollout(request.repository / request.name)
    options = _options(request, planned)
    known = manifest.read(request.repository / request.name)
    if planned.source.kind != "factory":
        same = same_version(known, planned.report.content_sha256 or planned.source.sha256, options)
        if same is not None:
            return _unchanged(request, same)
    progress.step("parent")
    parent = _run_parent(request, planned, stage, progress)
    same = same_version(known, parent.fingerprint, options)
    if same is not None:
        return _unchanged(request, same)
    version = next_version(known, request.version)
    parent, max_batch_size, notes = _batching(request, parent)
    require_same_io(known, parent.io)
    folder = stage / "build"
    folder.mkdir()
    shop = Workshop(
        model=request.name,
        version=version,
        kind=planned.source.kind,
        source=_source_text(planned.source),
        parent=parent,
        max_batch_size=max_batch_size,
        folder=folder,
        limits=request.limits,
        devices=toolbox().hardware & {"gpu", "mps"},
    )
    outcomes = build_all(shop, planned.rows, progress)
    if not has_baseline(outcomes) or not any(outcome.status == "served" for outcome in outcomes):
        raise BuildError(_no_target(outcomes), hint="nothing was installed; --dry-run shows the plan")
    progress.step("install")
    addition = Addition(
        name=request.name,
        version=version,
        source_kind=planned.source.kind,
        source_sha256=planned.source.sha256,
        fingerprint=parent.fingerprint,
        options=options,
        report=planned.report,
        io=parent.io,
        batch=parent.batch,
        max_batch_size=max_batch_size,
        outcomes=outcomes,
        tools=parent.tools,
    )
    _install(request, addition, stage)
    return Added(version, False, outcomes, parent.batch, max_batch_size, (*parent.notes, *notes))


def _install(request: AddRequest, addition: Addition, stage: Path) -> None:
    """Move everything into place, targets first: the routed model must never name what is not there."""
    directories = assemble(addition, request.repository, stage / "models")
    trash = stage / "trash"
    trash.mkdir()
    with Installation(request.repository, trash) as installation:
        for directory in directories:
            installation.install(directory.name, directory, addition.version)


def _run_parent(request: AddRequest, planned: Planned, stage: Path, progress: Progress) -> Parent:
    work = stage / "work"
    work.mkdir()
    job = ParentJob(
        source_kind=planned.source.kind,
        source=_source_text(planned.source),
        sha256=planned.source.sha256,
        work=str(work),
        example_inputs=str(request.example_inputs.resolve()) if request.example_inputs else "",
        allowed_domains=request.allowed_domains,
    )
    answer = run_child(_PARENTS[planned.source.kind], job.to_json(), limits=request.limits, on_progress=progress.detail)
    return Parent.from_json(answer)


def _source_text(source: ModelSource) -> str:
    return source.reference if source.kind == "factory" else str(source.path)


def _check_batch_size(size: int | None) -> None:
    if size is not None and not 0 <= size <= _LARGEST_BATCH:
        raise InvalidInputError(
            f"--max-batch-size {size} is not between 0 and {_LARGEST_BATCH}", hint="use 0 for a model without batching"
        )


def _batching(request: AddRequest, parent: Parent) -> tuple[Parent, int, tuple[str, ...]]:
    """Decide on the largest batch; without one, no dimension is treated as the batch."""
    io = parent.io
    if not io.batch_axis or parent.batch != "independent":
        return replace(parent, io=replace(io, batch_axis="")), 0, _why_not_batched(parent, request.max_batch_size)
    high = io.bounds[io.batch_axis][1] if io.batch_axis in io.bounds else None
    wanted = request.max_batch_size
    if wanted is None:
        return parent, min(DEFAULT_MAX_BATCH_SIZE, high or DEFAULT_MAX_BATCH_SIZE), ()
    if high is not None and wanted > high:
        raise InvalidInputError(
            f"--max-batch-size {wanted} is more than the {high} rows that the model takes",
            hint="export the model with a larger batch dimension",
        )
    return parent, wanted, ()


def _why_not_batched(parent: Parent, wanted: int | None) -> tuple[str, ...]:
    if wanted == 0:
        return ()
    if parent.batch == "dependent":
        why = "the model's rows influence each other, or it does not take every number of rows"
    else:
        why = "inputs and outputs share no dynamic first dimension"
    return (f"{why}: Triton will not batch it, and each request stands alone",)


def _options(request: AddRequest, planned: Planned) -> Manifest:
    """Return what, beside the source, decides what is built."""
    examples = ""
    if request.example_inputs is not None:
        try:
            examples = hashlib.sha256(request.example_inputs.read_bytes()).hexdigest()
        except OSError as error:
            raise NotFoundError(
                f"{request.example_inputs} cannot be read: {error.strerror}", hint="check --example-inputs"
            ) from error
    return {
        "targets": sorted(set(request.targets)) if request.targets is not None else None,
        "hardware": list(planned.hardware),
        "max_batch_size": request.max_batch_size,
        "example_inputs_sha256": examples,
    }


def _require_own_directories(request: AddRequest, planned: Planned) -> None:
    require_ours(request.repository, request.name, request.name)
    for row in planned.rows:
        if row.action == "build-and-serve":
            require_ours(request.repository, f"{request.name}-{row.target}", request.name)


def _unchanged(request: AddRequest, version: int) -> Added:
    if request.version not in {None, version}:
        raise InvalidInputError(
            f"this model stands in version {version} of {request.name!r} already",
            hint=f"leave --version out, or say --version {version}",
        )
    require_intact(request.repository, request.name, version)
    return Added(version, up_to_date=True)


def _no_target(outcomes: tuple[Outcome, ...]) -> str:
    failed = [item for item in outcomes if item.status in {"failed", "unavailable"}]
    if failed:
        return "no target can be served: " + "; ".join(f"{item.row.target}: {item.reason}" for item in failed)
    return "every target that was asked for is for hardware that is not there"
