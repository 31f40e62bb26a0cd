"""What the router has done, in numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from triton_router.config.settings import suggestion
from triton_router.errors import NotFoundError
from triton_router.routing.types import Backend

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from triton_router.experiments.split import Arm


@dataclass(frozen=True, slots=True)
class ArmMetrics:
    """One arm of an experiment, for one model.

    Attributes:
        requests: Decisions made by its policy.
        avg_latency_ms: Mean of those that were answered; 0 while none was.
        failures: Those that failed.
    """

    requests: int = 0
    avg_latency_ms: float = 0.0
    failures: int = 0


def _none() -> dict[Backend, int]:
    return dict.fromkeys(Backend, 0)


def _zero() -> dict[Backend, float]:
    return dict.fromkeys(Backend, 0.0)


@dataclass(frozen=True, slots=True)
class ModelMetrics:
    """One model's requests so far; by backend, with zeros for those that served none.

    Attributes:
        total_requests: Decisions made.
        backend_counts: Decisions for each backend.
        successes: Executions that gave an answer.
        failures: Executions that failed.
        abandoned: Decisions whose outcome was never recorded.
        total_latency_ms: Sum over the answers.
        avg_latency_ms: Mean over all answers; 0 while there is none.
        p50_latency_ms: Median of the latest answers (``profile_history_size`` of them).
        p99_latency_ms: Likewise what 99 of 100 did not exceed.
        in_flight: Decisions whose outcome is awaited.
        confidence: Trust in predictions, 0 to 1.
        experiments: What each arm did, by the experiment's id.
    """

    total_requests: int = 0
    backend_counts: Mapping[Backend, int] = field(default_factory=_none)
    successes: Mapping[Backend, int] = field(default_factory=_none)
    failures: Mapping[Backend, int] = field(default_factory=_none)
    abandoned: Mapping[Backend, int] = field(default_factory=_none)
    total_latency_ms: Mapping[Backend, float] = field(default_factory=_zero)
    avg_latency_ms: Mapping[Backend, float] = field(default_factory=_zero)
    p50_latency_ms: Mapping[Backend, float] = field(default_factory=_zero)
    p99_latency_ms: Mapping[Backend, float] = field(default_factory=_zero)
    in_flight: Mapping[Backend, int] = field(default_factory=_none)
    confidence: Mapping[Backend, float] = field(default_factory=_zero)
    experiments: Mapping[str, Mapping[Arm, ArmMetrics]] = field(default_factory=dict[str, "Mapping[Arm, ArmMetrics]"])


class RoutingMetrics:
    """A view of the router's counts: each call reads them as they are then.

    Args:
        read: Returns every model's, by its name; none where metrics are switched off.
    """

    def __init__(self, read: Callable[[], Mapping[str, ModelMetrics]]) -> None:
        self._read = read

    def models(self) -> Mapping[str, ModelMetrics]:
        """Return the metrics of every model."""
        return self._read()

    def get_model_metrics(self, model_name: str) -> ModelMetrics:
        """Return one model's metrics.

        Raises:
            NotFoundError: No such model is registered, or metrics are switched off.
        """
        models = self._read()
        if model_name not in models:
            raise NotFoundError(
                f"there are no metrics of a model {model_name!r}{suggestion(model_name, models)}",
                hint="register the model, and leave enable_metrics on",
            )
        return models[model_name]

    def export_prometheus_metrics(self) -> str:
        """Return everything in Prometheus' text format."""
        from triton_router.model_router.exposition import exposition

        return exposition(self._read())
