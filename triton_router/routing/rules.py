"""What holds for every decision of one routed model, whatever the policy."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from triton_router.routing.resilience import Resilience

if TYPE_CHECKING:
    from collections.abc import Mapping

    from triton_router.routing.types import Backend, RoutingContext

MAX_EXPLORE = 0.01
"""Most of the live traffic that may be spent on learning."""


@dataclass(frozen=True, slots=True)
class RoutingRules:
    """Rules of one routed model. A bound of 0 is none.

    Attributes:
        backend_weights: What the scores of a backend's targets are multiplied with; 1 for those not named. Only
            ratios count: they are scaled so that the largest is 1.
        preferred_backends: Chosen among first, while one of them can serve.
        excluded_backends: Never chosen.
        max_latency_ms: Latency bound of requests that bring none.
        min_throughput: Rows per second below which a target is not chosen while another reaches them. Unlike a
            request's own demand it refuses nothing: what is refused is never learned to be faster.
        max_backend_utilization: Share of the recent past, 0 to 1, above which a device gets no more while
            another is below.
        explore: Share of requests that may go to a target other than the favourite, so that its profile stays true;
            one that is n times as slow gets an n-th of it.
        mirror: Time spent on copies of requests that are sent to other targets only to learn from, as a share of
            the time spent serving.
        learn: Whether outcomes teach profiles. Without it, predictions stay what was measured or estimated at first.
        balance: Whether what is in flight counts: in predictions, in scores, and as utilization.
        fallback: Whether decisions name the targets to go to when the chosen one fails.
        fallback_latency_ms: A target predicted to take longer is not chosen while another one is not.
        warmup: Answers that a target must have given before its predictions are trusted at all.
        resilience: What is done on bad days.
    """

    backend_weights: Mapping[Backend, float] = field(default_factory=dict["Backend", float])
    preferred_backends: tuple[Backend, ...] = ()
    excluded_backends: tuple[Backend, ...] = ()
    max_latency_ms: float = 0.0
    min_throughput: float = 0.0
    max_backend_utilization: float = 0.0
    explore: float = 0.0
    mirror: float = 0.0
    learn: bool = True
    balance: bool = True
    fallback: bool = True
    fallback_latency_ms: float = 0.0
    warmup: int = 0
    resilience: Resilience = field(default_factory=Resilience)

    def weight_of(self, backend: Backend) -> float:
        """Return what the backend's scores are multiplied with, in (0, 1]."""
        largest = max([1.0, *self.backend_weights.values()])
        return self.backend_weights.get(backend, 1.0) / largest

    def applied_to(self, context: RoutingContext) -> RoutingContext:
        """Return the context with the latency bound that it leaves open."""
        return context if context.max_latency_ms else replace(context, max_latency_ms=self.max_latency_ms)
