"""Each code example of the document that this API follows, in Python, with nothing else set up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from triton_router import (
    AdaptiveRoutingPolicy,
    Backend,
    LatencyOptimizedPolicy,
    ModelCharacteristics,
    ModelRouter,
    ModelRouterConfig,
    ModelRouterConfigBuilder,
    OptimizationGoal,
    PowerEfficientPolicy,
    RoutingContext,
    ThroughputOptimizedPolicy,
)

if TYPE_CHECKING:
    from triton_router.routing.policies import Policy

JSON = """
{
  "default_policy": {
    "name": "adaptive",
    "parameters": {
      "complexity_weight": "0.3",
      "latency_weight": "0.4"
    }
  },
  "routing_rules": [
    {
      "model_name_pattern": "resnet*",
      "policy": {"name": "throughput"},
      "preferred_backends": ["gpu", "neural_engine"],
      "max_latency_ms": 50
    }
  ],
  "backend_weights": {
    "neural_engine": 1.5,
    "gpu": 1.2,
    "cpu": 0.8
  }
}
"""


def basic_setup() -> ModelRouter:
    """The document's "Basic Setup"."""
    router = ModelRouter.get_instance()
    backends = ["cpu", "gpu", "neural_engine", "metal_mps"]
    router.initialize(backends)

    resnet50 = ModelCharacteristics()
    resnet50.model_name = "resnet50"
    resnet50.parameter_count = 25e6
    resnet50.supports_gpu_acceleration = True
    resnet50.supports_neural_engine = True

    router.register_model("resnet50", resnet50)
    return router


def test_setup_decision_record_and_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    """Basic Setup, Making Routing Decisions, Recording Execution Results and Monitoring, in one go."""
    router = basic_setup()
    context = RoutingContext()
    context.batch_size = 8
    context.max_latency_ms = 50.0  # 50ms SLA
    context.optimization_goal = OptimizationGoal.MINIMIZE_LATENCY

    decision = router.route_request("resnet50", context)

    print("Selected backend:", decision.primary_backend)
    print("Expected latency:", decision.expected_latency_ms, "ms")
    print("Confidence:", decision.confidence_score)

    router.record_execution("resnet50", decision, 4.5, 120.0, 60.0)

    metrics = router.get_metrics()
    model_metrics = metrics.get_model_metrics("resnet50")
    chosen = decision.primary_backend
    print("Total requests:", model_metrics.total_requests)
    print("Requests:", model_metrics.backend_counts[chosen])
    print("Avg latency:", model_metrics.avg_latency_ms[chosen], "ms")
    prometheus_data = metrics.export_prometheus_metrics()

    shown = capsys.readouterr().out
    assert f"Selected backend: {chosen}" in shown
    assert "Total requests: 1\nRequests: 1\nAvg latency: 4.5 ms" in shown
    assert 0.0 < decision.expected_latency_ms < 50.0
    assert 0.0 <= decision.confidence_score <= 1.0
    assert decision.secondary_backends
    assert chosen not in decision.secondary_backends
    assert f'triton_router_model_requests_total{{backend="{chosen}",model="resnet50"}} 1.0' in prometheus_data


@pytest.mark.parametrize(
    "policy",
    [LatencyOptimizedPolicy(), ThroughputOptimizedPolicy(), PowerEfficientPolicy(), AdaptiveRoutingPolicy()],
    ids=["latency", "throughput", "power", "adaptive"],
)
def test_each_policy_can_be_set(policy: Policy) -> None:
    """The four policy examples: the policy that was set is the one that decides."""
    router = basic_setup()
    router.set_routing_policy(policy)
    decision = router.route_request("resnet50", RoutingContext())
    assert decision.policy == policy.name


def test_ab_testing_can_be_enabled() -> None:
    """The A/B example: ten percent are decided by the treatment."""
    router = basic_setup()
    control_policy, treatment_policy = AdaptiveRoutingPolicy(), LatencyOptimizedPolicy()
    router.enable_ab_testing("new_algorithm_v2", control_policy, treatment_policy, 0.1)  # 10% get treatment
    names = []
    for _ in range(500):
        decision = router.route_request("resnet50", RoutingContext())
        router.record_execution("resnet50", decision, 1.0)
        names.append(decision.policy)
    router.disable_ab_testing("new_algorithm_v2")
    assert 20 < names.count("latency") < 90
    assert set(names) == {"latency", "adaptive"}


def test_the_builder_and_its_configuration() -> None:
    """The Configuration Management example: rules decide by the model's name."""
    router = basic_setup()
    config = (
        ModelRouterConfigBuilder()
        .set_default_policy("adaptive")
        .add_routing_rule("resnet*", "throughput")
        .add_routing_rule("bert_*", "latency")
        .add_routing_rule("*_mobile", "power")
        .set_backend_weight("neural_engine", 1.5)
        .enable_profiling(True)
        .build()
    )

    config.apply_to_router(router)

    policies = {}
    for name in ("resnet50", "bert_base", "net_mobile", "other"):
        router.register_model(name, ModelCharacteristics(name, parameter_count=1_000_000))
        policies[name] = router.route_request(name, RoutingContext()).policy
    assert policies == {"resnet50": "throughput", "bert_base": "latency", "net_mobile": "power", "other": "adaptive"}


def test_the_json_configuration() -> None:
    """The JSON Configuration example loads as written, numbers in quotes included, and is what the router goes by."""
    router = basic_setup()
    ModelRouterConfig.from_json(JSON).apply_to_router(router)
    decision = router.route_request("resnet50", RoutingContext())
    assert decision.policy == "throughput"
    assert decision.primary_backend in {Backend.GPU, Backend.NEURAL_ENGINE}
    assert decision.context.max_latency_ms == 50.0
