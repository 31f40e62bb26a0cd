"""What ``triton-router add`` prints: the plan, and what became of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from triton_router.cli import output
from triton_router.repository.variants import checks_json

if TYPE_CHECKING:
    from triton_router.repository.add import Added, AddRequest, Planned
    from triton_router.repository.variants import Outcome

_BATCH_WORDS = {"independent": "yes", "quantisation": "within quantisation", "dependent": "no", "untested": "-"}


def print_plan(planned: Planned, *, as_json: bool) -> None:
    """Print every target with what would happen to it and why."""
    known = planned.report.characteristics
    if as_json:
        output.print_json(
            {
                "source": planned.source.to_json(),
                "characteristics": asdict(known),
                "plan": [row.to_json() for row in planned.rows],
            }
        )
        return
    output.note(
        f"{known.model_name or planned.source.reference}: {known.parameter_count:,} parameters, "
        f"{known.flop_count:,} FLOPs per sample, {known.memory_footprint_bytes:,} bytes"
    )
    output.print_table(("target", "action", "reason"), [(row.target, row.action, row.reason) for row in planned.rows])


def print_added(request: AddRequest, planned: Planned, added: Added, *, as_json: bool) -> None:
    """Print one row per target, and what the user should know."""
    if as_json:
        output.print_json(_document(request, planned, added))
        return
    if added.up_to_date:
        print(f"{request.name} version {added.version} is already up to date")
        return
    headers = (
        "target",
        "size",
        "rms error",
        "cosine",
        "batch independent",
        "ms batch 1",
        "ms batch 8",
        "result",
        "why",
    )
    rows = [_row(outcome) for outcome in added.outcomes if outcome.status != "skipped"]
    output.print_table(headers, rows)
    output.note("rms error and cosine: the worst answer against fp32, padding left out; ms: best of several runs")
    skipped = [outcome.row.target for outcome in added.outcomes if outcome.status == "skipped"]
    if skipped:
        output.note(f"not made: {', '.join(skipped)} (--dry-run says why)")
    for outcome in added.outcomes:
        for text in outcome.result.notes:
            output.note(f"{outcome.row.target}: {text}")
    for text in added.notes:
        output.note(f"note: {text}")
    batching = f"batches up to {added.max_batch_size}" if added.max_batch_size else "no batching"
    output.note(f"{request.name} version {added.version} is in {request.repository}, {batching}")


def _row(outcome: Outcome) -> tuple[object, ...]:
    checks = outcome.checks
    return (
        outcome.row.target,
        _size(outcome.size) if outcome.size else "-",
        _share(checks.rms_error) if checks else "-",
        f"{checks.cosine:.4f}" if checks else "-",
        _BATCH_WORDS[checks.batch] if checks else "-",
        _latency(outcome, 1),
        _latency(outcome, 8),
        outcome.status,
        outcome.reason,
    )


def _share(value: float) -> str:
    """Return a share in per cent; the exact value is in the manifest."""
    return "<0.01 %" if 0 < value < 1e-4 else f"{100 * value:.2f} %" if value else "0"


def _latency(outcome: Outcome, batch: int) -> str:
    """Return the latency at the smallest work of that batch size."""
    rows = [row for row in (outcome.checks.latency if outcome.checks else ()) if row["batch"] == batch]
    return f"{rows[0]['latency_ms']:.2f}" if rows else "-"


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _document(request: AddRequest, planned: Planned, added: Added) -> dict[str, Any]:
    return {
        "model": request.name,
        "version": added.version,
        "up_to_date": added.up_to_date,
        "repository": str(request.repository),
        "source": planned.source.to_json(),
        "characteristics": asdict(planned.report.characteristics),
        "batch": added.batch,
        "max_batch_size": added.max_batch_size,
        "targets": [
            {
                **outcome.row.to_json(),
                "status": outcome.status,
                "reason": outcome.reason,
                "bytes": outcome.size,
                "checks": checks_json(outcome),
                "notes": list(outcome.result.notes),
            }
            for outcome in added.outcomes
        ],
        "notes": list(added.notes),
    }
