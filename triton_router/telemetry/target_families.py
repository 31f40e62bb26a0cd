"""The metrics of each target, read from its snapshot."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from triton_router.profiling.figures import Source
from triton_router.routing.health import Cause, Stage
from triton_router.telemetry.families import Family

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from triton_router.routing.snapshot import TargetSnapshot

    Value = Callable[[TargetSnapshot], float]


@dataclass(frozen=True, slots=True, eq=False)
class TargetFamily(Family):
    """One series of a metric family of targets.

    Attributes:
        value: Reads it.
    """

    value: Value = field(kw_only=True)


def counters(targets: Iterable[TargetSnapshot]) -> dict[tuple[Family, str], float]:
    """Return what the targets have counted so far, by family and name of the target."""
    return {
        (family, target.target.name): float(family.value(target))
        for target in targets
        for family in TARGET_FAMILIES
        if family.kind == "COUNTER"
    }


def _counter(name: str, description: str, value: Value, *labels: tuple[str, str]) -> TargetFamily:
    return TargetFamily(name, description, labels=labels, value=value)


def _gauge(name: str, description: str, value: Value, *labels: tuple[str, str]) -> TargetFamily:
    return TargetFamily(name, description, "GAUGE", labels, value=value)


def _requests(outcome: str, value: Value) -> TargetFamily:
    description = "Requests by the target that got them and by how they ended"
    return _counter("triton_router_requests_total", description, value, ("outcome", outcome))


def _ejections(cause: Cause) -> TargetFamily:
    return _counter(
        "triton_router_target_ejections_total",
        "Times that the target went out, by what sent it out",
        lambda target: target.ejections.get(cause.value, 0),
        ("cause", cause.value),
    )


def _power(source: Source) -> TargetFamily:
    return _gauge(
        "triton_router_power_watts",
        "Power the target draws while it works; 0 where the figure is not from this source",
        lambda target: target.power_w.value if target.power_w.source is source else 0.0,
        ("source", source.value),
    )


_STAGES = {stage.value: number for number, stage in enumerate((Stage.WELL, Stage.RETURNING, Stage.TRIAL, Stage.OUT))}

TARGET_FAMILIES = (
    _requests("success", lambda target: target.succeeded),
    _requests("target_error", lambda target: target.failed),
    _requests("client_error", lambda target: target.refused),
    _requests("cancelled", lambda target: target.cancelled),
    _counter(
        "triton_router_latency_seconds_total",
        "Sum of the time from decision to answer over predicted successful requests",
        lambda target: target.latency.measured_total_ms / 1e3,
    ),
    _counter(
        "triton_router_predicted_latency_seconds_total",
        "Sum of the predicted latencies of the same requests",
        lambda target: target.latency.predicted_total_ms / 1e3,
    ),
    _gauge(
        "triton_router_in_flight",
        "Requests at the target now, those of other instances of the routed model on this host included",
        lambda target: target.in_flight + target.peers_in_flight,
    ),
    _gauge("triton_router_resting", "1 while the target is left out", lambda target: target.resting),
    _gauge(
        "triton_router_target_stage",
        "0 while the target is well, 1 while it returns, 2 while it is on trial, 3 while it is out",
        lambda target: _STAGES[target.stage],
    ),
    *(_ejections(cause) for cause in Cause),
    _counter("triton_router_target_returns_total", "Times that the target came back", lambda target: target.returns),
    _counter(
        "triton_router_target_out_seconds_total",
        "Time for which the target was out or on trial",
        lambda target: target.seconds_out,
    ),
    _counter(
        "triton_router_target_retries_total",
        "Requests that the target got because an attempt at another failed",
        lambda target: target.retried,
    ),
    _counter(
        "triton_router_target_hedges_total",
        "Requests that the target got because another took long",
        lambda target: target.hedged,
    ),
    _gauge(
        "triton_router_confidence",
        "Trust in the target's predicted latency, 0 to 1",
        lambda target: target.confidence,
    ),
    _gauge(
        "triton_router_error_rate",
        "Recent share of the target's outcomes that were its failures, 0 to 1",
        lambda target: target.error_rate,
    ),
    _counter(
        "triton_router_drifts_total", "Changes of the target's speed that were noticed", lambda target: target.drifts
    ),
    _counter(
        "triton_router_mirrored_total",
        "Copies of requests sent to the target to learn from it",
        lambda target: target.mirrored,
    ),
    _power(Source.MEASURED),
    _power(Source.ESTIMATED),
)
"""Every metric of a target; docs/metrics.md describes each."""
