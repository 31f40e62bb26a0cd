"""The router itself: names, order of calls, threads, and what it says when something is wrong."""

from __future__ import annotations

import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import triton_router
from tests.unit.model_router.rig import ANE, CPU, GPU, MPS, ONE, RESNET, Clock, chosen, made, served, taught
from triton_router import (
    Backend,
    Figure,
    LatencyOptimizedPolicy,
    ModelCharacteristics,
    ModelProfile,
    ModelRouter,
    OptimizationGoal,
    RoutingContext,
    Source,
)
from triton_router.errors import (
    ConfigError,
    InvalidInputError,
    NotFoundError,
    RequestError,
    UnsupportedError,
)
from triton_router.routing.policies import policy_named


def test_every_name_can_be_imported_and_none_is_until_it_is_used() -> None:
    """The exports exist; importing the package alone loads no settings, no Prometheus and no engine."""
    for name in triton_router.__all__:
        assert getattr(triton_router, name).__name__ == name
        assert name in dir(triton_router)
    with pytest.raises(AttributeError, match="no attribute 'Router'"):
        _ = triton_router.Router
    code = (
        "import sys, triton_router; "
        "print(sorted(m for m in sys.modules if m.split('.')[0] in ('pydantic', 'yaml', 'prometheus_client', 'numpy') "
        "or m.startswith('triton_router.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_router_needs_no_triton_and_no_model_runtime() -> None:
    """A router that has served and exported has loaded neither Triton's client nor torch nor ONNX."""
    code = (
        "import sys; from triton_router import *; r = ModelRouter().initialize(['cpu', 'gpu']); "
        "r.register_model('m', ModelCharacteristics()); d = r.route_request('m', RoutingContext()); "
        "r.record_execution('m', d, 1.0); r.get_metrics().export_prometheus_metrics(); "
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'tritonclient', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_there_is_one_instance_for_who_wants_one() -> None:
    """`get_instance` gives the same router to every thread; the constructor a new one."""
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: id(ModelRouter.get_instance()), range(50)))
    assert found == {id(ModelRouter.get_instance())}
    assert id(ModelRouter()) not in found


@pytest.mark.parametrize(
    ("act", "error", "problem"),
    [
        (lambda r: r.initialize(["gpu", "tpu"]), InvalidInputError, r"unknown backend 'tpu' \(did you mean '.pu'\?\)"),
        (lambda r: r.initialize([]), InvalidInputError, "there is no backend to route to"),
        (lambda _: ModelRouter().register_model("m", RESNET), InvalidInputError, "the router knows no backends"),
        (lambda r: r.route_request("resnet5", ONE), NotFoundError, r"no model 'resnet5' .* mean 'resnet50'"),
        (lambda r: r.get_model_profile("x"), NotFoundError, "no model 'x' is registered"),
        (lambda r: r.set_routing_policy("latncy"), ConfigError, r"no policy 'latncy' \(did you mean 'latency'\?\)"),
        (lambda r: r.set_routing_policy_for_model("m", "x"), ConfigError, "no policy 'x'"),
        (
            lambda r: r.enable_ab_testing("e", "latency", "power", 10),
            InvalidInputError,
            "treatment_fraction cannot be 10",
        ),
        (
            lambda r: r.enable_ab_testing("e", "latency", "power", 0.1, assignment="x"),
            InvalidInputError,
            "unknown assign",
        ),
        (lambda r: r.route_request("resnet50", RoutingContext(batch_size=0)), RequestError, "batch_size cannot be 0"),
        (
            lambda r: r.route_request("resnet50", RoutingContext(batch_size=10**400)),
            RequestError,
            "batch_size cannot be 1000",
        ),
        (
            lambda r: r.route_request("resnet50", RoutingContext(actual_input_shapes={"x": [8, -1]})),
            RequestError,
            r"shape of input 'x' cannot be \[8, -1\]",
        ),
        (
            lambda r: r.route_request("resnet50", RoutingContext(actual_input_shapes={"x": [10**200, 10**200]})),
            RequestError,
            "shape of input 'x' cannot be",
        ),
        (lambda r: r.route_request("resnet50", RoutingContext(pinned="tpu")), InvalidInputError, "unknown backend"),
        (
            lambda r: r.route_request("resnet50", RoutingContext(max_power_w=-1.0)),
            RequestError,
            "max_power_w cannot be",
        ),
        (
            lambda r: r.route_request("resnet50", RoutingContext(max_latency_ms=float("nan"))),
            RequestError,
            "max_latency_ms cannot be nan",
        ),
        (
            lambda r: r.route_request("resnet50", RoutingContext(optimization_goal="speed")),
            RequestError,
            "unknown optimization goal 'speed'",
        ),
        (
            lambda r: r.route_request("resnet50", RoutingContext(allowed_backends=frozenset({"npu"}))),
            InvalidInputError,
            "unknown backend 'npu'",
        ),
        (
            lambda r: r.route_request("resnet50", RoutingContext(allowed_backends=frozenset())),
            RequestError,
            "cpu: backend not allowed by the request",
        ),
    ],
)
def test_what_is_wrong_is_said(act: Any, error: type[Exception], problem: str) -> None:
    """Unknown names and impossible values are errors of their own kind, with what to do; nothing stays reserved."""
    router = made()
    with pytest.raises(error, match=problem) as caught:
        act(router)
    assert caught.value.hint
    assert sum(router.get_metrics().get_model_metrics("resnet50").in_flight.values()) == 0


def test_a_decision_is_recorded_for_its_own_model() -> None:
    """Under another model's name it is refused, and stays open for the right one."""
    router = made()
    router.register_model("other", ModelCharacteristics())
    decision = router.route_request("resnet50", ONE)
    with pytest.raises(InvalidInputError, match="is for model 'resnet50', not for 'other'"):
        router.record_execution("other", decision, 1.0)
    router.record_execution("resnet50", decision, 1.0)


def test_a_model_that_nothing_can_run_is_refused() -> None:
    """The error names each backend's reason."""
    router = ModelRouter().initialize(["gpu", "ane"])
    with pytest.raises(UnsupportedError, match=r"gpu: .* GPU acceleration; neural_engine: .* Neural Engine"):
        router.register_model("m", ModelCharacteristics(supports_gpu_acceleration=False))


def test_ineligible_backends_are_never_chosen_and_say_why() -> None:
    """A model with dynamic shapes that no GPU runs stays on the CPU, under every policy."""
    model = replace(RESNET, has_dynamic_shapes=True, supports_gpu_acceleration=False)
    router = made(model=model, policy="random")
    assert {served(router, 1.0).primary_backend for _ in range(20)} == {CPU}
    reasons = {target.target.backend: target.rejected for target in router.explain("resnet50", ONE).targets}
    assert "dynamic shapes" in reasons[ANE]
    assert "GPU acceleration" in reasons[MPS]


def test_characteristics_and_contexts_are_copied() -> None:
    """What a caller changes after the call changes nothing: neither the model nor what is learned of a request."""
    model = replace(RESNET)
    router = made("cpu", "gpu", model=model)
    model.supports_gpu_acceleration = False
    context = RoutingContext(batch_size=4)
    decision = router.route_request("resnet50", context)
    context.batch_size = 400
    router.record_execution("resnet50", decision, 8.0)
    assert decision.context.batch_size == 4
    assert router.get_model_profile("resnet50").predict_latency(decision.primary_backend, 4) == pytest.approx(
        8.0, rel=0.1
    )


def test_the_policy_can_be_changed_while_serving() -> None:
    """`set_routing_policy` and `set_routing_policy_for_model` count from the next request on, learning included."""
    router = made("cpu", "gpu", "neural_engine", policy="latency")
    taught(router, {CPU: 9.0, GPU: 3.0, ANE: 6.0})
    assert chosen(router) is GPU
    router.set_routing_policy("power")
    assert chosen(router) is CPU
    router.set_routing_policy_for_model("resnet50", LatencyOptimizedPolicy())
    assert chosen(router) is GPU
    router.set_routing_policy(policy_named("power"))
    assert chosen(router) is GPU


@pytest.mark.parametrize("goal", ["power", "MINIMIZE_POWER", OptimizationGoal.MINIMIZE_POWER])
def test_a_requests_goal_comes_before_the_policy(goal: Any) -> None:
    """The goal may be given as the enumeration, by its name or by its value."""
    router = made("gpu", "neural_engine", policy="latency")
    taught(router, {GPU: 3.0, ANE: 6.0})
    assert chosen(router) is GPU
    assert chosen(router, RoutingContext(optimization_goal=goal)) is ANE


def test_backends_have_aliases() -> None:
    """``cuda``, ``ane`` and ``mps`` are the names' other forms; naming one twice is naming it once."""
    router = made("cuda", "gpu", "ane", "mps")
    assert [target.target.backend for target in router.explain("resnet50", ONE).targets] == [GPU, ANE, MPS]
    found = router.route_request("resnet50", RoutingContext(allowed_backends=frozenset({"mps"})))
    assert found.primary_backend is MPS


@pytest.mark.parametrize("again", [False, True], ids=["register", "initialize"])
def test_beginning_again_forgets_and_open_decisions_end_well(*, again: bool) -> None:
    """The new model starts afresh; what was decided for the old one can still be recorded, once."""
    router = made("gpu")
    taught(router, {GPU: 50.0})
    decision = router.route_request("resnet50", ONE)
    if again:
        router.initialize(["gpu"])
    router.register_model("resnet50", RESNET)
    router.record_execution("resnet50", decision, 50.0)
    assert router.get_metrics().get_model_metrics("resnet50").total_requests == 0
    assert router.get_model_profile("resnet50").predict_latency("gpu") < 1.0


def test_threads_lose_no_count() -> None:
    """Eight threads route, record and fail at once; everything adds up and nothing stays in flight."""
    router = made()

    def work(number: int) -> None:
        rng = random.Random(number)
        for _ in range(60):
            decision = router.route_request("resnet50", RoutingContext(batch_size=rng.randint(1, 8)))
            router.record_execution("resnet50", decision, rng.uniform(1, 5), success=rng.random() < 0.9)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    metrics = router.get_metrics().get_model_metrics("resnet50")
    assert metrics.total_requests == 480
    assert sum(metrics.successes.values()) + sum(metrics.failures.values()) == 480
    assert set(metrics.in_flight.values()) == {0}


def test_outcomes_are_awaited_for_as_long_as_the_caller_says() -> None:
    """Slots come back in the order of their deadlines, also when nobody asks for anything but a decision."""
    clock = Clock()
    router = ModelRouter(clock=clock, outcome_timeout_s=5.0).initialize(["gpu"])
    router.register_model("resnet50", RESNET)
    for _ in range(3):
        router.route_request("resnet50", ONE)
        clock.now += 2.0
    router.route_request("resnet50", ONE)
    metrics = router.get_metrics().get_model_metrics("resnet50")
    assert (metrics.abandoned[GPU], metrics.in_flight[GPU]) == (1, 3)


def test_a_profile_learns_each_backend_and_batch_size() -> None:
    """Predictions follow what was recorded, per backend and size; what was not measured says estimated."""
    profile = ModelProfile("resnet50", RESNET)
    cold = profile.predict_latency("gpu")
    assert 0.0 < cold < 1.0
    for batch in (1, 2, 4, 8) * 8:
        profile.record_execution("gpu", 2.0 + batch, 500.0, 90.0, batch_size=batch)
    profile.record_execution("gpu", 1.0, success=False)
    assert profile.predict_latency("cuda", 6) == pytest.approx(8.0, rel=0.1)
    assert profile.predict_memory_usage("gpu") == Figure(500.0, Source.MEASURED)
    assert profile.predict_power_usage("gpu") == pytest.approx(90.0)
    assert profile.predict_power_usage("cpu") == Figure(10.0, Source.ESTIMATED)
    assert profile.get_prediction_confidence("gpu") > 0.5 > profile.get_prediction_confidence("cpu") == 0.0
    assert profile.error_rate("gpu") > 0.0
    with pytest.raises(InvalidInputError, match="power_w cannot be -1"):
        profile.record_execution("gpu", 1.0, power_w=-1)


def test_the_routers_profile_is_what_decides() -> None:
    """Teaching a registered model's profile directly changes the next decision."""
    router = made("cpu", "gpu", policy="latency")
    assert chosen(router) is GPU
    profile = router.get_model_profile("resnet50")
    for _ in range(20):
        profile.record_execution("gpu", 50.0)
        profile.record_execution("cpu", 2.0)
    assert chosen(router) is CPU


def test_prometheus_text_says_what_was_counted() -> None:
    """Every family parses and carries the counts; names with quotes and line breaks survive."""
    router = made("gpu")
    name = 'mo"del\n\\x'
    router.register_model(name, ModelCharacteristics())
    for latency_ms in (2.0, 4.0):
        decision = router.route_request(name, ONE)
        router.record_execution(name, decision, latency_ms)
    router.enable_ab_testing("e", "latency", "power", 1.0)
    router.record_execution(name, router.route_request(name, ONE), 1.0, success=False)
    found: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(router.get_metrics().export_prometheus_metrics()):
        for sample in family.samples:
            if sample.labels["model"] == name and sample.labels.get("backend", "gpu") == "gpu":
                found[sample.name, sample.labels.get("quantile", sample.labels.get("arm", ""))] = sample.value
    assert found["triton_router_model_requests_total", ""] == 3
    assert found["triton_router_model_failures_total", ""] == 1
    assert found["triton_router_model_latency_seconds_count", ""] == 2
    assert found["triton_router_model_latency_seconds_sum", ""] == pytest.approx(0.006)
    assert found["triton_router_model_latency_quantile_seconds", "0.5"] == 0.002
    assert found["triton_router_model_latency_quantile_seconds", "0.99"] == 0.004
    assert found["triton_router_experiment_requests_total", "treatment"] == 1
    assert found["triton_router_model_in_flight", ""] == 0


def test_metrics_have_zeros_for_backends_that_served_nothing() -> None:
    """Looking a backend up never fails, by its enumeration or its name."""
    metrics = made("gpu").get_metrics().get_model_metrics("resnet50")
    assert [metrics.backend_counts[backend] for backend in Backend] == [0, 0, 0, 0]
    assert metrics.avg_latency_ms["metal_mps"] == 0.0


def test_a_request_is_pinned_to_what_can_run_it_and_to_nothing_else() -> None:
    """A pin is a backend's name or alias; one that the router or the model does not have is refused by name."""
    router = made("cpu", "gpu", "ane", model=replace(RESNET, supports_neural_engine=False))
    assert served(router, 1.0, RoutingContext(pinned="cuda")).primary_backend is GPU
    for name in ("metal_mps", "neural_engine"):
        with pytest.raises(RequestError, match=f"backend '{name}' cannot run model 'resnet50'"):
            router.route_request("resnet50", RoutingContext(pinned=name))
    assert sum(router.get_metrics().get_model_metrics("resnet50").in_flight.values()) == 0


def test_a_bound_that_the_only_backend_breaks_is_not_said_to_be_met() -> None:
    """Having no choice is no promise: with one backend that is too slow, or unknown, the bound is not met."""
    router = made("cpu")
    bounded = RoutingContext(max_latency_ms=5.0)
    for _ in range(20):
        served(router, 50.0)
    assert served(router, 50.0, bounded).meets_latency_bound is False
    assert served(router, 50.0, replace(bounded, max_latency_ms=500.0)).meets_latency_bound is True
    assert served(router, 50.0).meets_latency_bound is True


@pytest.mark.parametrize(
    ("stated", "complaint"),
    [
        ({"parameter_count": -1}, "parameter_count cannot be -1"),
        ({"parameter_count": float("nan")}, "parameter_count cannot be nan"),
        ({"flop_count": float("inf")}, "flop_count cannot be inf"),
        ({"memory_footprint_bytes": -5}, "memory_footprint_bytes cannot be -5"),
        ({"model_name": "bert"}, "of model 'bert', not of 'resnet50'"),
    ],
)
def test_a_model_that_cannot_be_is_not_registered(stated: dict[str, Any], complaint: str) -> None:
    """Impossible figures, and figures of another model, are refused with what to do; nothing is registered."""
    router = ModelRouter().initialize(["cpu"])
    with pytest.raises(InvalidInputError, match=complaint) as refused:
        router.register_model("resnet50", ModelCharacteristics(**stated))
    assert refused.value.hint
    with pytest.raises(NotFoundError):
        router.route_request("resnet50", RoutingContext())


def test_rows_are_whole() -> None:
    """Two rows and a half are no request."""
    router = ModelRouter().initialize(["cpu"])
    router.register_model("resnet50", ModelCharacteristics())
    with pytest.raises(RequestError, match="batch_size"):
        router.route_request("resnet50", RoutingContext(batch_size=2.5))  # type: ignore[arg-type] - as without a type checker


@pytest.mark.parametrize("name", ["", None])
def test_an_experiment_has_a_name(name: Any) -> None:
    """Without one nobody could end it, nor find its counts."""
    with pytest.raises(InvalidInputError, match="experiment_id"):
        ModelRouter().enable_ab_testing(name, "latency", "cost", 0.1)
