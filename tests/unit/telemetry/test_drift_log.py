"""A change of a target's speed is one line in the server's log, and one count of a metric."""

from __future__ import annotations

from typing import Any

from triton_router.profiling.figures import Figure, Source
from triton_router.profiling.profile import TargetProfile
from triton_router.routing.engine import RoutingEngine
from triton_router.routing.policies import policy_named
from triton_router.routing.types import Outcome, RoutingContext, Target, Verdict
from triton_router.serving.live_status import live_status
from triton_router.serving.status_reply import ModelStatus
from triton_router.telemetry.drift_log import DriftLog
from triton_router.telemetry.metrics import MetricsFlusher
from triton_router.testing.fake_stub import FakeStub


def fleet() -> RoutingEngine:
    """Return an engine over one target of 2 ms, with a power that was declared."""
    profile = TargetProfile([(1, 2.0)], power_w=Figure(15.0, Source.ESTIMATED))
    return RoutingEngine([(Target("t", "m"), profile)], policy_named("latency"), rng=lambda: 0.5)


def serve(engine: RoutingEngine, latency_ms: float, count: int) -> None:
    """Have it answer after ``latency_ms``, a little more or less."""
    for number in range(count):
        now = float(number)
        decision = engine.decide(RoutingContext(1, 1.0), now)
        took = latency_ms * (1.0 + 0.02 * (number % 5 - 2))
        engine.finish(decision, Outcome(Verdict.SUCCESS, took), now)


def test_a_drift_is_said_once() -> None:
    """With target, direction and factor; a steady target is not worth a line, nor what was before the first look."""
    engine = fleet()
    said: list[str] = []
    log = DriftLog("routed", said.append)
    serve(engine, 2.0, 60)
    log.observe(engine.snapshot(0.0))
    serve(engine, 2.0, 60)
    log.observe(engine.snapshot(0.0))
    assert said == []
    serve(engine, 6.0, 40)
    log.observe(engine.snapshot(0.0))
    log.observe(engine.snapshot(0.0))
    (line,) = said
    assert "'routed': target 't' became slower" in line
    assert DriftLog("routed", said.append).observe(engine.snapshot(0.0)) is None
    assert len(said) == 1


def test_metrics_count_drifts_and_tell_the_source_of_power() -> None:
    """The observer sees what is published, counts of the whole model have no target, and sources stay apart."""
    engine = fleet()
    stub: Any = FakeStub(lambda _: None)
    said: list[str] = []
    serve(engine, 2.0, 60)
    flusher = MetricsFlusher(
        stub,
        "routed",
        lambda: engine.snapshot(0.0),
        counts=lambda: {"triton_router_snapshot_errors_total": 3},
        observe=DriftLog("routed", said.append).observe,
    )
    flusher.start()
    serve(engine, 6.0, 40)
    flusher.close()
    shown = {(name, dict(labels).get("source")): metric.value for (name, labels), metric in stub.metrics.items()}
    drifts = engine.snapshot(0.0)[0].drifts
    assert shown["triton_router_drifts_total", None] == drifts > 0
    assert shown["triton_router_power_watts", "estimated"] == 15.0
    assert shown["triton_router_power_watts", "measured"] == 0.0
    assert stub.metrics["triton_router_snapshot_errors_total", (("model", "routed"),)].value == 3


def test_the_status_is_what_the_asker_expects() -> None:
    """Figures and drifts travel by name, whatever the engine keeps them in."""
    engine = fleet()
    serve(engine, 2.0, 60)
    serve(engine, 6.0, 40)
    status = ModelStatus.model_validate(live_status("m", "latency", engine.snapshot(0.0), {"power": {"cpu": "RAPL"}}))
    (target,) = status.targets
    assert target.power_w.source == "estimated"
    assert target.last_drift is not None
    assert target.last_drift.direction == "slower"
    assert target.latency.p90_ms > 0.0
    assert status.power == {"cpu": "RAPL"}
