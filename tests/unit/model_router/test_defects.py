"""What the original got wrong, and what other routers did: none of it happens here. Each test names its defect."""

from __future__ import annotations

import math
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.model_router.rig import ANE, CPU, GPU, MPS, RESNET, Clock, chosen, made, served, taught, traffic
from triton_router import (
    AdaptiveRoutingPolicy,
    Backend,
    Figure,
    ModelCharacteristics,
    ModelProfile,
    ModelRouter,
    ModelRouterConfig,
    OptimizationGoal,
    RoutingContext,
    Source,
    Verdict,
)
from triton_router.errors import ConfigError, InvalidInputError
from triton_router.experiments.split import Arm


def in_flight(router: ModelRouter) -> int:
    return sum(router.get_metrics().get_model_metrics("resnet50").in_flight.values())


class TestTheOriginalsEightDefects:
    """Measured in the C++ implementation."""

    @pytest.mark.parametrize("batch_size", [1, 8])
    def test_1_executions_without_spread_predict_a_number(self, batch_size: int) -> None:
        """Defect 1: 60 executions at one batch size gave NaN, because a regression had no spread to work with."""
        router = made("gpu")
        for _ in range(60):
            served(router, 5.0, RoutingContext(batch_size=batch_size))
        predicted = router.get_model_profile("resnet50").predict_latency("gpu", batch_size)
        assert predicted == pytest.approx(5.0, rel=0.02)
        elsewhere = router.get_model_profile("resnet50").predict_latency("gpu", 64)
        assert math.isfinite(elsewhere)
        assert elsewhere > 0.0

    def test_1_a_profile_by_itself_predicts_a_number_too(self) -> None:
        """Defect 1 again, without a router around the profile."""
        profile = ModelProfile("m")
        for _ in range(60):
            profile.record_execution("cpu", 5.0, 100.0, 12.0)
        assert profile.predict_latency("cpu") == pytest.approx(5.0, rel=0.02)
        assert profile.get_prediction_confidence("cpu") > 0.5

    def test_2_prometheus_text_is_exported_while_requests_are_routed(self) -> None:
        """Defect 2: exporting deadlocked. Here four threads route and four export, and the text always parses."""
        router = made()
        metrics = router.get_metrics()

        def route(_: int) -> int:
            for _ in range(60):
                served(router, 1.0)
            return 0

        def export(_: int) -> int:
            families = 0
            for _ in range(10):
                families = len(list(text_string_to_metric_families(metrics.export_prometheus_metrics())))
            return families

        with ThreadPoolExecutor(8) as pool:
            futures = [pool.submit(work, 0) for work in (route, export) * 4]
            results = [future.result(timeout=60) for future in futures]
        assert max(results) >= 7
        assert metrics.get_model_metrics("resnet50").total_requests == 240

    def test_3_a_split_in_halves_halves_one_models_requests(self) -> None:
        """Defect 3: a 50/50 test gave 0/100 on one model, because the model's name was hashed."""
        router = made()
        router.enable_ab_testing("half", "adaptive", "latency", 0.5)
        counts = Counter(served(router, 1.0).policy for _ in range(1000))
        assert 430 < counts["latency"] < 570
        arms = router.get_metrics().get_model_metrics("resnet50").experiments["half"]
        assert arms[Arm.TREATMENT].requests == counts["latency"]
        assert arms[Arm.CONTROL].avg_latency_ms == pytest.approx(1.0)

    def test_3_a_key_stays_in_its_arm_and_models_can_be_assigned_instead(self) -> None:
        """Defect 3: who has a key is assigned by it; hashing the model's name is still there for who wants it."""
        router = made()
        router.enable_ab_testing("half", "adaptive", "latency", 0.5)
        for user in range(20):
            assert len({served(router, 1.0, RoutingContext(key=f"user{user}")).policy for _ in range(5)}) == 1
        router.enable_ab_testing("half", "adaptive", "latency", 0.5, assignment="model")
        assert len({served(router, 1.0).policy for _ in range(50)}) == 1

    def test_3_arms_count_only_what_their_policies_decided(self) -> None:
        """Defect 3's neighbour: a goal of the request's own replaces both policies, so that neither is to be judged."""
        router = made()
        router.enable_ab_testing("half", "adaptive", "random", 0.5)
        for _ in range(20):
            decision = served(router, 1.0, RoutingContext(optimization_goal=OptimizationGoal.MINIMIZE_LATENCY))
            assert decision.policy == "latency"
        assert not router.get_metrics().get_model_metrics("resnet50").experiments
        served(router, 1.0)
        arms = router.get_metrics().get_model_metrics("resnet50").experiments["half"]
        assert sum(arm.requests for arm in arms.values()) == 1

    def test_4_the_latency_term_of_the_adaptive_score_counts(self) -> None:
        """Defect 4: it was computed and never added. Only latency differs here, and it decides."""
        router = made("gpu", "metal_mps", policy="adaptive")
        router.set_routing_policy(AdaptiveRoutingPolicy(0.0, 1.0, 0.0))
        taught(router, {GPU: 40.0, MPS: 4.0})
        assert chosen(router) is MPS
        before = {
            rated.target.backend: rated.score for rated in router.route_request("resnet50", RoutingContext()).considered
        }
        assert before[MPS] > 5 * before[GPU]
        router = made("gpu", "metal_mps", policy="adaptive")
        taught(router, {GPU: 40.0, MPS: 4.0})
        assert chosen(router) is MPS

    def test_4_the_other_two_terms_count_as_well(self) -> None:
        """Defect 4's neighbours: complexity decides by arithmetic alone, resources by what is in flight."""
        router = made("cpu", "gpu")
        taught(router, {CPU: 1.0, GPU: 10.0})
        router.set_routing_policy(AdaptiveRoutingPolicy(1.0, 0.0, 0.0))
        assert chosen(router) is GPU
        router.set_routing_policy(AdaptiveRoutingPolicy(0.0, 0.0, 1.0))
        first = router.route_request("resnet50", RoutingContext()).primary_backend
        assert router.route_request("resnet50", RoutingContext()).primary_backend is not first

    def test_5_metal_mps_can_be_chosen(self) -> None:
        """Defect 5: it was classified as gpu. Here it is a backend of its own, chosen where it is fastest."""
        router = made("gpu", "mps", policy="latency")
        taught(router, {GPU: 9.0, MPS: 3.0})
        assert chosen(router) is MPS
        assert router.get_metrics().get_model_metrics("resnet50").backend_counts[MPS] > 0
        assert chosen(made("cpu", "metal_mps", policy="throughput")) is MPS

    @pytest.mark.parametrize("flops", [0, 8_200_000_000])
    def test_6_the_cold_power_policy_prefers_the_neural_engine(self, flops: int) -> None:
        """Defect 6: it picked the GPU although the document says it prefers the Neural Engine."""
        router = made(policy="power", model=replace(RESNET, flop_count=flops))
        decision = router.route_request("resnet50", RoutingContext())
        assert decision.primary_backend is ANE
        assert decision.expected_power_usage_w.source is Source.ESTIMATED

    def test_7_memory_and_power_are_what_was_measured(self) -> None:
        """Defect 7: predictions of memory and power were constants."""
        router = made("gpu")
        decision = router.route_request("resnet50", RoutingContext())
        assert decision.expected_memory_usage_mb == Figure(100.0, Source.ESTIMATED)
        router.record_execution("resnet50", decision, 5.0, 640.0, 75.0)
        decision = router.route_request("resnet50", RoutingContext())
        assert decision.expected_memory_usage_mb == Figure(640.0, Source.MEASURED)
        assert decision.expected_power_usage_w == Figure(75.0, Source.MEASURED)
        assert router.get_model_profile("resnet50").predict_memory_usage("gpu").value == 640.0
        assert router.get_model_profile("resnet50").predict_power_usage("gpu").value == 75.0

    def test_7_failures_are_failures(self) -> None:
        """Defect 7: ``success`` was always true."""
        router = made("gpu")
        decision = router.route_request("resnet50", RoutingContext())
        router.record_execution("resnet50", decision, 5.0, success=False)
        metrics = router.get_metrics().get_model_metrics("resnet50")
        assert metrics.failures[GPU] == 1
        assert metrics.successes[GPU] == 0
        assert metrics.avg_latency_ms[GPU] == 0.0
        assert router.get_model_profile("resnet50").error_rate("gpu") > 0.0

    def test_7_the_median_is_no_mean(self) -> None:
        """Defect 7: "p50" was the mean. One slow answer in ten moves the mean, not the median."""
        router = made("gpu")
        for latency_ms in [2.0] * 9 + [200.0]:
            served(router, latency_ms)
        metrics = router.get_metrics().get_model_metrics("resnet50")
        assert metrics.p50_latency_ms[GPU] == 2.0
        assert metrics.p99_latency_ms[GPU] == 200.0
        assert metrics.avg_latency_ms[GPU] == pytest.approx(21.8)

    def test_8_what_is_not_understood_is_refused(self) -> None:
        """Defect 8: fields were parsed and never read. What each one does is in test_configuration_effects.py."""
        with pytest.raises(ConfigError, match=r"router_confg: unknown key \(did you mean 'router_config'\?\)"):
            ModelRouterConfig.from_json('{"router_confg": {}}')


class TestTheFieldsBugs:
    """From the issue trackers of routers that others run."""

    @pytest.mark.parametrize("verdict", list(Verdict))
    def test_in_flight_counters_come_down_however_a_request_ends(self, verdict: Verdict) -> None:
        """In-flight counters incremented and never decremented: on failure, refusal and cancellation."""
        router = made()
        decisions = [router.route_request("resnet50", RoutingContext()) for _ in range(10)]
        assert in_flight(router) == 10
        for decision in decisions:
            router.record_execution("resnet50", decision, 1.0, verdict=verdict)
        assert in_flight(router) == 0

    def test_in_flight_counters_come_down_where_the_outcome_never_comes(self) -> None:
        """In-flight counters never decremented: a caller that dies after deciding gives its slot back in time."""
        clock = Clock()
        router = made(clock=clock)
        lost = router.route_request("resnet50", RoutingContext())
        clock.now += 59.0
        assert in_flight(router) == 1
        clock.now += 2.0
        assert in_flight(router) == 0
        assert sum(router.get_metrics().get_model_metrics("resnet50").abandoned.values()) == 1
        with pytest.raises(InvalidInputError, match="more than 60 s ago"):
            router.record_execution("resnet50", lost, 1.0)
        assert in_flight(router) == 0

    @pytest.mark.parametrize("latency_ms", [-1.0, math.nan, math.inf])
    def test_in_flight_counters_survive_a_callers_mistake(self, latency_ms: float) -> None:
        """In-flight counters never decremented: a refused record leaves the decision open, to be recorded right."""
        router = made()
        decision = router.route_request("resnet50", RoutingContext())
        with pytest.raises(InvalidInputError, match="latency_ms cannot be"):
            router.record_execution("resnet50", decision, latency_ms)
        router.record_execution("resnet50", decision, 1.0)
        assert in_flight(router) == 0

    def test_nothing_is_released_twice(self) -> None:
        """In-flight counters that fall below zero: the second record is refused and changes nothing."""
        router = made()
        router.route_request("resnet50", RoutingContext())
        decision = served(router, 1.0)
        with pytest.raises(InvalidInputError, match="recorded before"):
            router.record_execution("resnet50", decision, 1.0)
        assert in_flight(router) == 1

    def test_overload_does_not_latch(self) -> None:
        """Overload latches that never clear: a device that was busy is taken again once it has been idle."""
        clock = Clock()
        router = made("cpu", "gpu", policy="latency", config='{"explore": 0, "routing_rules": []}', clock=clock)
        taught(router, {CPU: 20.0, GPU: 1.0})
        busy = router.route_request("resnet50", RoutingContext())
        assert busy.primary_backend is GPU
        clock.now += 30.0
        assert chosen(router) is CPU
        router.record_execution("resnet50", busy, 1.0)
        clock.now += 30.0
        assert chosen(router) is GPU

    def test_client_errors_open_no_circuit_breaker(self) -> None:
        """Client errors opening circuit breakers: wrong requests say nothing about the backend."""
        router = made("cpu", "gpu", policy="latency")
        taught(router, {CPU: 20.0, GPU: 1.0})
        for _ in range(20):
            decision = router.route_request("resnet50", RoutingContext())
            router.record_execution("resnet50", decision, 0.1, verdict=Verdict.CLIENT_ERROR)
        assert chosen(router) is GPU

    def test_failures_on_a_fallback_leg_are_recorded(self) -> None:
        """Failures on a fallback leg not recorded: the second try is a decision of its own, and its failure counts."""
        router = made("cpu", "gpu", "metal_mps", policy="latency")
        taught(router, {CPU: 20.0, GPU: 1.0, MPS: 2.0})
        first = router.route_request("resnet50", RoutingContext())
        router.record_execution("resnet50", first, 1.0, success=False)
        rest = RoutingContext(allowed_backends=frozenset(first.secondary_backends))
        for _ in range(3):
            second = router.route_request("resnet50", rest)
            assert second.primary_backend is MPS
            router.record_execution("resnet50", second, 1.0, success=False)
        metrics = router.get_metrics().get_model_metrics("resnet50")
        assert (metrics.failures[GPU], metrics.failures[MPS]) == (1, 3)
        assert router.route_request("resnet50", rest).primary_backend is CPU

    def test_windows_move_on(self) -> None:
        """Stale sample windows that never move on: after a change both quantiles and predictions show the new speed."""
        router = made("gpu")
        for _ in range(300):
            served(router, 2.0)
        for _ in range(120):
            served(router, 30.0)
        metrics = router.get_metrics().get_model_metrics("resnet50")
        assert metrics.p50_latency_ms[GPU] == 30.0
        assert router.get_model_profile("resnet50").predict_latency("gpu") == pytest.approx(30.0, rel=0.1)

    def test_edited_weights_replace_the_old_ones(self) -> None:
        """Edited weights that add up: applying a configuration twice, or another after it, leaves only the last."""
        router = made()

        def scores() -> dict[Backend, float]:
            explanation = router.explain("resnet50", RoutingContext())
            return {target.target.backend: target.score for target in explanation.targets}

        plain = scores()
        heavy = ModelRouterConfig.from_json('{"explore": 0, "backend_weights": {"cpu": 4}}')
        heavy.apply_to_router(router)
        once = scores()
        assert once[CPU] / once[GPU] == pytest.approx(4 * plain[CPU] / plain[GPU])
        heavy.apply_to_router(router)
        assert scores() == pytest.approx(once)
        ModelRouterConfig.from_json('{"explore": 0}').apply_to_router(router)
        assert scores() == pytest.approx(plain)

    def test_many_routers_do_not_herd(self) -> None:
        """A deterministic argmin sends the whole herd to one target: routers with the same picture choose apart."""
        herd: Counter[Backend] = Counter()
        for seed in range(60):
            router = made("gpu", "metal_mps", policy="latency", seed=random.Random(seed).randrange(1 << 30))
            taught(router, {GPU: 5.0, MPS: 5.0}, times=5)
            herd[chosen(router)] += 1
        assert min(herd[GPU], herd[MPS]) > 15

    def test_a_counter_at_zero_does_not_attract_everything(self) -> None:
        """A counter stuck at 0 attracts all traffic: a backend that fails at once is idle, and soon left out."""
        router = made("cpu", "gpu", policy="least-request")
        router.route_request("resnet50", RoutingContext(allowed_backends=frozenset({CPU})))  # the CPU is never idle
        went: Counter[Backend] = Counter()
        for _ in range(50):
            decision = router.route_request("resnet50", RoutingContext())
            went[decision.primary_backend] += 1
            router.record_execution("resnet50", decision, 0.01, success=decision.primary_backend is CPU)
        assert went[GPU] == 3

    def test_work_is_shared_while_nothing_has_come_back(self) -> None:
        """Counters that only move on completion: a burst spreads over equals while it is still under way."""
        router = made("gpu", "metal_mps", policy="latency")
        taught(router, {GPU: 5.0, MPS: 5.0})
        burst = Counter(router.route_request("resnet50", RoutingContext()).primary_backend for _ in range(40))
        assert min(burst[GPU], burst[MPS]) >= 15

    def test_a_model_of_unknown_size_is_routed_too(self) -> None:
        """Nothing is known of the model: the first choice is a choice all the same, and the figures say unknown."""
        router = made(model=ModelCharacteristics())
        decision = router.route_request("resnet50", RoutingContext())
        assert decision.expected_latency_ms == 0.0
        assert decision.expected_memory_usage_mb.source is Source.UNKNOWN
        assert traffic(router, dict.fromkeys(Backend, 2.0), 30).total() == 30
