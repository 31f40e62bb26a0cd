"""Every field of the configuration does something: each test sets one and sees the difference."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from pydantic import BaseModel

from tests.unit.model_router.rig import ANE, CPU, GPU, MPS, RESNET, Clock, chosen, made, served, taught
from triton_router import ModelRouter, ModelRouterConfig, RoutingContext
from triton_router.config.routing_settings import (
    ExperimentSettings,
    RouterSwitches,
    RoutingSettings,
    RuleSettings,
)
from triton_router.config.settings import PolicySettings
from triton_router.errors import NotFoundError
from triton_router.routing.types import OptimizationGoal

FIELDS = {
    field
    for settings in (RoutingSettings, RuleSettings, ExperimentSettings, RouterSwitches, PolicySettings)
    for field in settings.model_fields
}


def config(**settings: object) -> str:
    return json.dumps({"explore": 0, **settings})


def switched(**switches: object) -> str:
    return config(router_config=switches)


def rule(**settings: object) -> str:
    return config(routing_rules=[{"model_name_pattern": "res*", **settings}])


def experiment(**settings: object) -> str:
    test = {"experiment_id": "e", "control_policy": "random", "treatment_policy": "latency", "treatment_percentage": 1}
    return config(ab_tests=[{**test, **settings}])


def policies(router: ModelRouter, requests: int = 100, context: RoutingContext | None = None) -> Counter[str]:
    return Counter(served(router, 1.0, context or RoutingContext()).policy for _ in range(requests))


def test_every_field_is_tested_here() -> None:
    """Each field's name stands in this module's tests, so that a new one asks for its own."""
    source = Path(__file__).read_text().rsplit("test_every_field_is_tested_here", 1)[1]
    assert [field for field in sorted(FIELDS) if not re.search(rf"\b{field}\b", source)] == []
    assert all(issubclass(model, BaseModel) for model in (RoutingSettings, RuleSettings))


def test_default_policy_name_and_parameters() -> None:
    """``default_policy``, its ``name`` and its ``parameters`` decide; numbers in quotes are numbers."""
    assert set(policies(made(config=config(default_policy="least-request")))) == {"least-request"}
    by_size = {"name": "adaptive", "parameters": {"complexity_weight": "1", "latency_weight": 0, "resource_weight": 0}}
    by_speed = {"name": "adaptive", "parameters": {"complexity_weight": 0, "latency_weight": "1.0"}}
    for policy, expected in ((by_size, GPU), (by_speed, CPU)):
        router = made("cpu", "gpu", config=config(default_policy=policy))
        taught(router, {CPU: 1.0, GPU: 10.0})
        assert chosen(router) is expected


def test_routing_rules_model_name_pattern_and_policy() -> None:
    """``routing_rules``: the first whose ``model_name_pattern`` matches gives its ``policy``; others do not count."""
    rules = [
        {"model_name_pattern": "bert*", "policy": "random"},
        {"model_name_pattern": "res*", "policy": {"name": "slo", "parameters": {"probability": 0.9}}},
        {"model_name_pattern": "*", "policy": "power"},
    ]
    assert set(policies(made(config=config(routing_rules=rules)))) == {"slo"}
    assert set(policies(made(config=config(routing_rules=rules[:1])))) == {"adaptive"}


def test_preferred_backends() -> None:
    """``preferred_backends`` are taken while one of them can serve, however slow."""
    router = made("cpu", "gpu", config=rule(policy="latency", preferred_backends=["cpu"]))
    taught(router, {CPU: 10.0, GPU: 1.0})
    assert chosen(router) is CPU
    assert chosen(router, RoutingContext(allowed_backends=frozenset({GPU}))) is GPU


def test_excluded_backends() -> None:
    """``excluded_backends`` never serve, by whatever name they are excluded."""
    router = made("cpu", "gpu", config=rule(policy="latency", excluded_backends=["cuda"]))
    assert {served(router, 9.0).primary_backend for _ in range(20)} == {CPU}


@pytest.mark.parametrize(
    "settings", [rule(policy="power", max_latency_ms=5), config(default_policy="power", max_latency_ms=5)]
)
def test_max_latency_ms(settings: str) -> None:
    """``max_latency_ms``, a rule's or everyone's: the frugal backend is too slow for it; a request's own bound wins."""
    router = made("gpu", "neural_engine", config=settings)
    taught(router, {ANE: 9.0, GPU: 3.0}, times=40)
    assert chosen(router) is GPU
    assert chosen(router, RoutingContext(max_latency_ms=50.0)) is ANE


def test_min_throughput() -> None:
    """``min_throughput``: what serves fewer rows per second is left out."""
    router = made("gpu", "neural_engine", config=rule(policy="power", min_throughput=200))
    taught(router, {ANE: 9.0, GPU: 3.0})
    assert chosen(router) is GPU


def test_backend_weights() -> None:
    """``backend_weights`` tip the scale."""
    for weights, expected in (({}, GPU), ({"cpu": 3}, CPU), ({"gpu": 0.3}, CPU)):
        router = made("cpu", "gpu", config=config(default_policy="latency", backend_weights=weights))
        taught(router, {CPU: 8.0, GPU: 4.0})
        assert chosen(router) is expected


def test_explore() -> None:
    """``explore``: that share of requests may go elsewhere."""
    found = {}
    for share in (0.0, 0.01):
        router = made("gpu", "metal_mps", config=json.dumps({"default_policy": "latency", "explore": share}))
        taught(router, {GPU: 3.0, MPS: 3.5})
        found[share] = sum(served(router, 3.0).reason == "explore" for _ in range(800))
    assert found[0.0] == 0
    assert 1 <= found[0.01] <= 20


def test_experiment_id_control_policy_treatment_policy_and_treatment_percentage() -> None:
    """``ab_tests``: the share is a fraction; another ``experiment_id`` splits the same keys otherwise."""
    assert set(policies(made(config=experiment()))) == {"latency"}
    assert set(policies(made(config=experiment(treatment_percentage=0)))) == {"random"}
    assert 10 < policies(made(config=experiment(treatment_percentage="0.25")), 100)["latency"] < 45
    assert set(policies(made(config=experiment(treatment_percentage=0, control_policy="power")))) == {"power"}
    assert set(policies(made(config=experiment(treatment_policy="cost")))) == {"cost"}
    arms = []
    for name in ("one", "two"):
        router = made(config=experiment(treatment_percentage=0.5, experiment_id=name))
        arms.append([served(router, 1.0, RoutingContext(key=f"user{user}")).policy for user in range(40)])
    assert arms[0] != arms[1]


def test_models_of_an_experiment() -> None:
    """``models``: others do not take part."""
    assert set(policies(made(config=experiment(models=["bert*", "res*"])))) == {"latency"}
    assert set(policies(made(config=experiment(models=["bert*"])))) == {"adaptive"}


def test_assignment() -> None:
    """``assignment``: ``model`` puts all of a model's requests into one arm."""
    both = experiment(treatment_percentage=0.5)
    assert set(policies(made(config=both))) == {"latency", "random"}
    assert len(policies(made(config=experiment(treatment_percentage=0.5, assignment="model")))) == 1


def test_a_requests_experiment_and_goal_count() -> None:
    """A request that names another experiment takes no part; its own goal comes before the arm's policy."""
    router = made(config=experiment())
    assert set(policies(router, 5, RoutingContext(experiment_id="other"))) == {"adaptive"}
    assert set(policies(router, 5, RoutingContext(optimization_goal=OptimizationGoal.MINIMIZE_POWER))) == {"power"}


def test_enable_ab_testing() -> None:
    """``router_config.enable_ab_testing``: off, experiments do not take place."""
    settings = json.loads(experiment())
    settings["router_config"] = {"enable_ab_testing": False}
    router = made(config=json.dumps(settings))
    router.enable_ab_testing("x", "random", "random", 0.5)
    assert set(policies(router)) == {"adaptive"}


def test_enable_profiling() -> None:
    """``enable_profiling``: off, predictions stay where they began and the choice with them."""
    for enabled, expected in ((True, CPU), (False, GPU)):
        settings = config(default_policy="latency", router_config={"enable_profiling": enabled})
        router = made("cpu", "gpu", config=settings)
        taught(router, {CPU: 1.0, GPU: 30.0})
        assert chosen(router) is expected
        learned = router.get_model_profile("resnet50").predict_latency("gpu") > 1.0
        assert learned is enabled


def test_profile_warmup_iterations() -> None:
    """``profile_warmup_iterations``: no confidence before so many answers."""
    router = made("gpu", config=switched(profile_warmup_iterations=30))
    early = [served(router, 3.0).confidence_score for _ in range(30)]
    assert set(early) == {0.0}
    for _ in range(16):
        last = served(router, 3.0)
    assert last.confidence_score > 0.5


def test_profile_history_size() -> None:
    """``profile_history_size``: the window of quantiles, in the metrics and of predictions."""
    router = made("gpu", config=switched(profile_history_size=10))
    for latency_ms in [9.0] * 40 + [2.0] * 10:
        served(router, latency_ms)
    assert router.get_metrics().get_model_metrics("resnet50").p99_latency_ms[GPU] == 2.0
    late = {}
    for size in (10, 1000):
        router = made("gpu", config=switched(profile_history_size=size))
        for number in range(200):
            served(router, 8.0 if number < 150 and number % 7 == 0 else 4.0)
        late[size] = router.explain("resnet50", RoutingContext()).targets[0]
    ratio = {size: found.p90_latency_ms / found.expected_latency_ms for size, found in late.items()}
    assert ratio[10] < 1.05
    assert ratio[1000] > 1.3


def test_enable_load_balancing() -> None:
    """``enable_load_balancing``: off, a burst goes to the favourite as if nothing were under way."""
    spread = {}
    for enabled in (True, False):
        settings = config(default_policy="latency", router_config={"enable_load_balancing": enabled})
        router = made("gpu", "metal_mps", config=settings)
        taught(router, {GPU: 3.0, MPS: 4.0})
        spread[enabled] = Counter(router.route_request("resnet50", RoutingContext()).primary_backend for _ in range(30))
    assert spread[True][MPS] > 5
    assert spread[False] == {GPU: 30}


def test_load_balancing_can_be_switched_while_requests_are_under_way() -> None:
    """Counts of devices follow the switch: off and on again, nothing is lost and nothing stays behind."""
    router = made("gpu", "metal_mps", policy="latency")
    decisions = [router.route_request("resnet50", RoutingContext()) for _ in range(6)]
    for enabled in (False, True):
        ModelRouterConfig.from_json(switched(enable_load_balancing=enabled)).apply_to_router(router)
        router.record_execution("resnet50", decisions.pop(), 1.0)
    router.set_routing_policy("adaptive")
    for decision in decisions:
        router.record_execution("resnet50", decision, 1.0)
    final = router.explain("resnet50", RoutingContext()).targets
    assert [target.in_flight for target in final] == [0, 0]
    assert [target.scores["resources"] for target in final] == [1.0, 1.0]


def test_max_backend_utilization() -> None:
    """``max_backend_utilization``: a device that was busy for longer is passed over; 0 is no bound."""
    for share, expected in ((0.5, CPU), (0, GPU)):
        clock = Clock()
        settings = config(default_policy="least-latency", router_config={"max_backend_utilization": share})
        router = made("cpu", "gpu", config=settings, clock=clock)
        taught(router, {CPU: 90.0, GPU: 1.0})
        assert router.route_request("resnet50", RoutingContext()).primary_backend is GPU
        clock.now += 20.0
        assert chosen(router) is expected


def test_a_lone_client_does_not_overload_a_device() -> None:
    """``max_backend_utilization``: who asks again as soon as it is answered keeps a device busy, and may keep it."""
    clock = Clock()
    router = made("cpu", "gpu", policy="latency", config=switched(max_backend_utilization=0.5), clock=clock)
    taught(router, {CPU: 900.0, GPU: 100.0})
    for _ in range(200):
        decision = router.route_request("resnet50", RoutingContext())
        assert decision.primary_backend is GPU
        clock.now += 0.1
        router.record_execution("resnet50", decision, 100.0)


def test_enable_fallback() -> None:
    """``enable_fallback``: off, decisions name no other backend."""
    assert made().route_request("resnet50", RoutingContext()).secondary_backends
    router = made(config=switched(enable_fallback=False))
    assert router.route_request("resnet50", RoutingContext()).secondary_backends == ()


def test_fallback_latency_threshold_ms() -> None:
    """``fallback_latency_threshold_ms``: a favourite predicted above it gives way, unless all are."""
    for latency, expected in ((150.0, GPU), (60.0, ANE)):
        router = made("gpu", "neural_engine", config=config(default_policy="power"))
        taught(router, {ANE: latency, GPU: 40.0})
        assert chosen(router) is expected
    router = made("gpu", "neural_engine", config=config(default_policy="power"))
    taught(router, {ANE: 150.0, GPU: 140.0})
    assert chosen(router) is ANE
    off = config(default_policy="power", router_config={"fallback_latency_threshold_ms": 0})
    router = made("gpu", "neural_engine", config=off)
    taught(router, {ANE: 150.0, GPU: 40.0})
    assert chosen(router) is ANE


def test_enable_metrics() -> None:
    """``enable_metrics``: off, nothing is counted and nothing exported."""
    router = made(config=switched(enable_metrics=False))
    served(router, 1.0)
    assert router.get_metrics().export_prometheus_metrics().count("resnet50") == 0
    with pytest.raises(NotFoundError, match="no metrics of a model 'resnet50'"):
        router.get_metrics().get_model_metrics("resnet50")


@pytest.mark.parametrize("interval", [5, 5.0, "5", "5s"])
def test_metrics_interval(interval: object) -> None:
    """``metrics_interval``: metrics are handed over that often, and the receiver may ask the router anything."""
    clock = Clock()
    seen: list[int] = []
    router = ModelRouter(
        clock=clock, on_metrics=lambda metrics: seen.append(metrics.get_model_metrics("resnet50").total_requests)
    )
    ModelRouterConfig.from_json(switched(metrics_interval=interval)).apply_to_router(router)
    router.initialize(["gpu"]).register_model("resnet50", RESNET)
    for _ in range(20):
        clock.now += 1.0
        served(router, 1.0)
    assert seen == [5, 10, 15, 20]
