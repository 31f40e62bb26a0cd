"""The router's metrics in Prometheus' text format; docs/python-api.md describes each.

Numbers are read once, before anything is written: nothing is locked while text is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from triton_router.model_router.metrics import ModelMetrics

_LABELS = ("model", "backend")
_PREFIX = "triton_router_model"


class RoutingCollector(Collector):
    """Gives a registry the metrics of every model; also for a registry of the caller's own.

    Args:
        models: Metrics by model.
    """

    def __init__(self, models: Mapping[str, ModelMetrics]) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        yield self._counter("requests", "Decisions", "backend_counts")
        yield self._counter("failures", "Executions that failed", "failures")
        yield self._counter("abandoned", "Decisions whose outcome was never recorded", "abandoned")
        yield self._gauge("in_flight", "Decisions whose outcome is awaited", "in_flight")
        yield self._gauge("confidence", "Trust in predictions, 0 to 1", "confidence")
        yield self._latency()
        yield self._quantiles()
        yield self._experiments()

    def _counter(self, name: str, text: str, attribute: str) -> Metric:
        family = CounterMetricFamily(f"{_PREFIX}_{name}", text, labels=_LABELS)
        for model, metrics in self._models.items():
            for backend, value in getattr(metrics, attribute).items():
                family.add_metric((model, backend), value)
        return family

    def _gauge(self, name: str, text: str, attribute: str) -> Metric:
        family = GaugeMetricFamily(f"{_PREFIX}_{name}", text, labels=_LABELS)
        for model, metrics in self._models.items():
            for backend, value in getattr(metrics, attribute).items():
                family.add_metric((model, backend), value)
        return family

    def _latency(self) -> Metric:
        family = SummaryMetricFamily(f"{_PREFIX}_latency_seconds", "Latency of answers", labels=_LABELS)
        for model, metrics in self._models.items():
            for backend, count in metrics.successes.items():
                family.add_metric((model, backend), count, metrics.total_latency_ms[backend] / 1e3)
        return family

    def _quantiles(self) -> Metric:
        family = GaugeMetricFamily(
            f"{_PREFIX}_latency_quantile_seconds", "Latency of the latest answers", labels=(*_LABELS, "quantile")
        )
        for model, metrics in self._models.items():
            for quantile, values in (("0.5", metrics.p50_latency_ms), ("0.99", metrics.p99_latency_ms)):
                for backend, value in values.items():
                    family.add_metric((model, backend, quantile), value / 1e3)
        return family

    def _experiments(self) -> Metric:
        family = CounterMetricFamily(
            "triton_router_experiment_requests", "Decisions of each arm", labels=("model", "experiment", "arm")
        )
        for model, metrics in self._models.items():
            for experiment, arms in metrics.experiments.items():
                for arm, counts in arms.items():
                    family.add_metric((model, experiment, arm), counts.requests)
        return family


def exposition(models: Mapping[str, ModelMetrics]) -> str:
    """Return the metrics of every model as text."""
    registry = CollectorRegistry()
    registry.register(RoutingCollector(models))
    return generate_latest(registry).decode()
