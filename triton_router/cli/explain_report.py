"""How an explanation is shown as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_router.cli import output
from triton_router.config.printable import printable
from triton_router.profiling.figures import Figure, Source
from triton_router.serving.explanation_json import price_per_request

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from triton_router.profiling.profile import TargetProfile
    from triton_router.routing.explanation import Explanation, TargetExplanation
    from triton_router.routing.types import RoutingContext
    from triton_router.telemetry.snapshot_file import Snapshot

_ALWAYS = ("target", "backend", "predicted", "p90", "confidence", "energy", "memory", "price/1000", "score")
_REASONS = {
    "policy": "by policy",
    "late": "none is expected in time: the fastest",
    "panic": "most are out, so some of those are considered all the same",
    "full": "all have as many requests in flight as they may, so it would wait",
    "refused": "none meets what the request demands, so it would be refused",
}


def basis(
    snapshots: Sequence[Snapshot], profiles: Mapping[str, TargetProfile], now: float, *, are_measured: bool
) -> str:
    """Return what the predictions rest on, as a sentence.

    Args:
        snapshots: Where the profiles come from.
        profiles: What was learned, by target.
        now: Seconds since 1970.
        are_measured: Whether router.yaml has latencies from build time.
    """
    if not profiles:
        if are_measured:
            return "no snapshot: predictions rest on the latencies measured at build time alone"
        return (
            "no snapshot, nor any measured_latency in router.yaml: predictions rest on the model's arithmetic, if known"
        )
    names = ", ".join(
        f"{printable(snapshot.instance)} ({max(0.0, now - snapshot.written_at):.0f} s ago)" for snapshot in snapshots
    )
    answers = sum(profile.observations for profile in profiles.values())
    return f"what was learned from {answers} answers; snapshot of {names}"


def print_report(model: str, explanation: Explanation, context: RoutingContext, rests_on: str, unit: str) -> None:
    """Print the explanation as a table; ``unit`` is that of the request's work."""
    chosen = printable(explanation.chosen.name) if explanation.chosen else "nothing"
    print(f"{printable(model)}  {context.batch_size} rows, {context.work:.0f} {unit}, policy {explanation.policy}")
    print(f"rests on  {rests_on}")
    print(f"chosen    {chosen} ({_REASONS.get(explanation.reason, explanation.reason)})")
    if explanation.fallbacks:
        print(f"then      {', '.join(printable(target.name) for target in explanation.fallbacks)}")
    if explanation.arms:
        print(f"arms      {', '.join(printable(arm) for arm in explanation.arms)}")
    weights = explanation.weights
    headers = [*_ALWAYS, *(f"{name} x{weight:.2f}" for name, weight in weights.items()), "probability", "rejected"]
    output.print_table(headers, [_row(target, list(weights)) for target in explanation.targets])


def _row(target: TargetExplanation, scorers: Sequence[str]) -> tuple[object, ...]:
    price = price_per_request(target)
    return (
        printable(target.target.name),
        target.target.backend.value,
        _ms(target.expected_latency_ms),
        _ms(target.p90_latency_ms),
        f"{target.confidence:.2f}",
        _figure(target.energy_j, "J"),
        _figure(target.memory_mb, "MB"),
        _figure(Figure(1000.0 * price.value, price.source), ""),
        "-" if target.rejected else f"{target.score:.3f}",
        *(f"{target.scores[name]:.3f}" if name in target.scores else "-" for name in scorers),
        f"{target.probability:.1%}",
        target.rejected,
    )


def _ms(value: float) -> str:
    return f"{value:.2f} ms" if value else "unknown"


def _figure(figure: Figure, unit: str) -> str:
    if figure.source is Source.UNKNOWN:
        return "unknown"
    return f"{figure.value:.4g} {unit} {figure.source.value}".replace("  ", " ")
