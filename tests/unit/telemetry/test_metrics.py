"""Metrics: what the engine counted is what Triton shows, published by one thread."""

from __future__ import annotations

import random
import time
from typing import Any

from triton_router.profiling.profile import TargetProfile
from triton_router.routing.engine import RoutingEngine
from triton_router.routing.policies import policy_named
from triton_router.routing.types import Outcome, RoutingContext, Target, Verdict
from triton_router.telemetry.families import MERGING_FAMILIES, MODEL_FAMILIES
from triton_router.telemetry.metrics import MetricsFlusher
from triton_router.telemetry.target_families import TARGET_FAMILIES
from triton_router.testing.fake_stub import FakeStub


def test_counts_are_published_once_each() -> None:
    """After any number of flushes a counter equals the engine's count, and gauges its last state."""
    engine = RoutingEngine(
        [(Target("t", "m"), TargetProfile([(1, 2.0)]))], policy_named("latency"), rng=random.Random(9).random
    )
    stub: Any = FakeStub(lambda _: None)
    flusher = MetricsFlusher(stub, "routed", lambda: engine.snapshot(0.0))
    for verdict, times in ((Verdict.SUCCESS, 5), (Verdict.TARGET_ERROR, 2), (Verdict.CANCELLED, 1)):
        for _ in range(times):
            engine.finish(engine.decide(RoutingContext(1, 1.0), 0.0), Outcome(verdict, 2.0), 0.0)
    engine.decide(RoutingContext(1, 1.0), 0.0)
    flusher.start()
    flusher.close()
    shown = {(name, dict(labels).get("outcome")): metric.value for (name, labels), metric in stub.metrics.items()}
    assert shown["triton_router_requests_total", "success"] == 5
    assert shown["triton_router_requests_total", "target_error"] == 2
    assert shown["triton_router_requests_total", "cancelled"] == 1
    assert shown["triton_router_requests_total", "client_error"] == 0
    assert shown["triton_router_in_flight", None] == 1
    assert abs(shown["triton_router_latency_seconds_total", None] - 0.010) < 1e-9
    assert {name for name, _ in shown} == {family.name for family in (*TARGET_FAMILIES, *MODEL_FAMILIES)}
    assert all(dict(labels)["model"] == "routed" for _, labels in stub.metrics)


def test_merging_is_counted_by_target() -> None:
    """What was merged at each target is published under its name, and only for targets that merge."""
    stub: Any = FakeStub(lambda _: None)
    merged = {"a": {"triton_router_merged_calls_total": 2, "triton_router_merged_requests_total": 9}, "b": {}}
    flusher = MetricsFlusher(stub, "routed", list, merged=lambda: merged)
    flusher.start()
    flusher.close()
    shown = {
        (name, dict(labels)["target"]): metric.value
        for (name, labels), metric in stub.metrics.items()
        if "target" in dict(labels)
    }
    names = {family.name for family in MERGING_FAMILIES}
    assert set(shown) == {(name, target) for name in names for target in "ab"}
    assert shown["triton_router_merged_requests_total", "a"] == 9
    assert shown["triton_router_merged_requests_total", "b"] == 0


def test_metrics_can_be_switched_off_and_states_are_still_seen() -> None:
    """``enable_metrics: false``: nothing is published, and who watches for drift is shown every state."""
    seen: list[object] = []
    stub: Any = FakeStub(lambda _: None)
    flusher = MetricsFlusher(stub, "routed", list, observe=seen.append, interval_s=0.001, publishes=False)
    flusher.start()
    while len(seen) < 3:
        time.sleep(0.001)
    flusher.close()
    assert not stub.metrics


def test_what_an_earlier_process_learned_is_not_counted_again() -> None:
    """A profile that was taken over brings its history; its counters go on, as a reload's do, from where they were."""
    profile = TargetProfile([(1, 2.0)])
    for _ in range(20):
        profile.record_latency(2.0, 1.0, 2.0, alone=True)
    inherited = TargetProfile.from_state(profile.state())
    engine = RoutingEngine([(Target("t", "m"), inherited)], policy_named("latency"), rng=random.Random(9).random)
    stub: Any = FakeStub(lambda _: None)
    flusher = MetricsFlusher(stub, "routed", lambda: engine.snapshot(0.0))
    engine.finish(engine.decide(RoutingContext(1, 1.0), 0.0), Outcome(Verdict.SUCCESS, 3.0), 0.0)
    flusher.start()
    flusher.close()
    (measured,) = [m for (name, _), m in stub.metrics.items() if name == "triton_router_latency_seconds_total"]
    assert abs(measured.value - 0.003) < 1e-9
