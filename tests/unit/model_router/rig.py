"""A router with a clock of its own, and backends that take as long as a test says."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

from triton_router import Backend, ModelCharacteristics, ModelRouter, ModelRouterConfig, RoutingContext

if TYPE_CHECKING:
    from collections.abc import Mapping

    from triton_router import RoutingDecision

CPU, GPU, ANE, MPS = Backend
RESNET = ModelCharacteristics("resnet50", parameter_count=25_000_000, supports_neural_engine=True)
ONE = RoutingContext()


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def made(
    *backends: str,
    policy: str = "",
    config: str = '{"explore": 0}',
    model: ModelCharacteristics = RESNET,
    clock: Clock | None = None,
    seed: int = 3,
) -> ModelRouter:
    """A router over these backends (all, if none is named) that knows one model, ``resnet50``."""
    router = ModelRouter(clock=clock or Clock(), rng=random.Random(seed).random)
    ModelRouterConfig.from_json(config).apply_to_router(router)
    if policy:
        router.set_routing_policy(policy)
    router.initialize(backends or list(Backend))
    router.register_model("resnet50", model)
    return router


def served(router: ModelRouter, latency_ms: float, context: RoutingContext = ONE) -> RoutingDecision:
    """Route one request and record that it took so long."""
    decision = router.route_request("resnet50", context)
    router.record_execution("resnet50", decision, latency_ms)
    return decision


def traffic(
    router: ModelRouter, latencies_ms: Mapping[Backend, float], requests: int, context: RoutingContext = ONE
) -> Counter[Backend]:
    """Serve requests one after another; return how many went where."""
    chosen: Counter[Backend] = Counter()
    for _ in range(requests):
        decision = router.route_request("resnet50", context)
        chosen[decision.primary_backend] += 1
        router.record_execution("resnet50", decision, latencies_ms[decision.primary_backend])
    return chosen


def taught(router: ModelRouter, latencies_ms: Mapping[Backend, float], times: int = 20) -> None:
    """Have each backend serve some requests, whatever the policy would choose."""
    for backend, latency_ms in latencies_ms.items():
        for _ in range(times):
            served(router, latency_ms, RoutingContext(allowed_backends=frozenset({backend})))


def chosen(router: ModelRouter, context: RoutingContext = ONE) -> Backend:
    """Where a request goes when nothing else is under way."""
    decision = router.route_request("resnet50", context)
    router.record_execution("resnet50", decision, decision.expected_latency_ms or 1.0)
    return decision.primary_backend
