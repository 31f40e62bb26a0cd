"""A target that goes out, or comes back, is a line in the server's log and a count of a metric."""

from __future__ import annotations

from typing import Any

from triton_router.profiling.profile import TargetProfile
from triton_router.routing.engine import RoutingEngine
from triton_router.routing.policies import policy_named
from triton_router.routing.types import Outcome, RoutingContext, Target, Verdict
from triton_router.serving.live_status import live_status
from triton_router.serving.status_reply import ModelStatus
from triton_router.telemetry.health_log import HealthLog
from triton_router.telemetry.metrics import MetricsFlusher
from triton_router.testing.fake_stub import FakeStub

REQUEST = RoutingContext(1, 10.0)


def fleet() -> RoutingEngine:
    """Return an engine over a target of 1 ms and one of 5 ms."""
    targets = [(Target(name, "m"), TargetProfile([(10, ms)])) for name, ms in (("a", 1.0), ("b", 5.0))]
    return RoutingEngine(targets, policy_named("latency"), rng=lambda: 0.5)


def fail(engine: RoutingEngine, now: float, times: int = 3) -> None:
    for _ in range(times):
        engine.finish(engine.decide(REQUEST, now), Outcome(Verdict.TARGET_ERROR, 1.0), now)


def test_going_out_and_coming_back_are_each_said_once() -> None:
    """With the reason, and how long it took; between changes there is nothing to say."""
    engine, said = fleet(), list[str]()
    log = HealthLog("routed", said.append)
    log.observe(engine.snapshot(0.0))
    fail(engine, 0.0)
    log.observe(engine.snapshot(0.5))
    log.observe(engine.snapshot(0.6))
    engine.finish(engine.decide(REQUEST, 2.5), Outcome(Verdict.SUCCESS, 1.0), 2.5)
    log.observe(engine.snapshot(2.6))
    engine.mark("b", "model is not loaded", 3.0, 5.0)
    log.observe(engine.snapshot(3.0))
    assert said == [
        "routed model 'routed': target 'a' gets no requests: after consecutive failures",
        "routed model 'routed': target 'a' is back; it was out for 2.5 s in all",
        "routed model 'routed': target 'b' gets no requests: model is not loaded",
    ]


def test_a_target_that_comes_and_goes_does_not_fill_the_log() -> None:
    """Changes in close succession are counted, and told with the next line there is room for."""
    engine, said = fleet(), list[str]()
    log = HealthLog("routed", said.append)
    for look in range(400):
        engine.mark("a", "model is not loaded" if look % 2 else "", float(look), 5.0)
        log.observe(engine.snapshot(float(look)))
    assert 10 <= len(said) <= 6 + 400 * 0.05
    assert "changes before that were not said" in said[-1]


def test_metrics_and_status_tell_stage_cause_and_time() -> None:
    """Ejections by cause, returns, seconds and stage are published, and travel in the status."""
    engine = fleet()
    stub: Any = FakeStub(lambda _: None)
    now = [0.0]
    flusher = MetricsFlusher(stub, "routed", lambda: engine.snapshot(now[0]))
    flusher.start()
    fail(engine, 0.0)
    engine.mark("b", "model is not loaded", 0.0, 100.0)
    now[0] = 0.5
    flusher.close()
    shown = {
        (name, dict(labels)["target"], dict(labels).get("cause")): metric.value
        for (name, labels), metric in stub.metrics.items()
        if "target" in dict(labels)
    }
    assert shown["triton_router_target_ejections_total", "a", "failures"] == 1
    assert shown["triton_router_target_ejections_total", "b", "check"] == 1
    assert shown["triton_router_target_ejections_total", "b", "failures"] == 0
    assert shown["triton_router_target_stage", "a", None] == 3
    assert shown["triton_router_target_out_seconds_total", "a", None] == 0.5
    assert shown["triton_router_target_returns_total", "a", None] == 0
    status = ModelStatus.model_validate(live_status("m", "latency", engine.snapshot(0.5), {}))
    assert [(target.stage, target.why) for target in status.targets] == [
        ("out", "after consecutive failures"),
        ("out", "model is not loaded"),
    ]
