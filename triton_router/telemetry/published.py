"""What Triton's metrics endpoint shows of one routed model: its series, made when they are first needed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from triton_router.telemetry.target_families import TARGET_FAMILIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from triton_router.routing.snapshot import TargetSnapshot
    from triton_router.telemetry.families import Family


class Published:
    """The series of one routed model. Used by one thread, which alone owns the metric objects, and never dropped.

    Args:
        stub: The Python backend's module.
        model: Name of the routed model, the ``model`` label.
        counted: What was counted before, by family and name of the target: a counter goes on from there.
    """

    def __init__(self, stub: Any, model: str, counted: Mapping[tuple[Family, str], float]) -> None:
        self._stub = stub
        self._model = model
        self._counted = counted
        self._families: dict[str, Any] = {}
        self._series: dict[tuple[Family, str], tuple[Any, float]] = {}

    def update(self, targets: Iterable[TargetSnapshot]) -> None:
        """Publish what changed of the targets since the last time."""
        for target in targets:
            for family in TARGET_FAMILIES:
                self._show(family, target.target.name, float(family.value(target)))

    def update_counts(self, families: Iterable[Family], counts: Mapping[str, float], *, target: str = "") -> None:
        """Publish what changed of counts, by `Family.key`: of the whole model, or of one target."""
        for family in families:
            self._show(family, target, float(counts.get(family.key, 0.0)))

    def _show(self, family: Family, target: str, value: float) -> None:
        series = (family, target)
        is_counter = family.kind == "COUNTER"
        if series not in self._series:
            # After a reload the series goes on: a counter from where it was, a gauge from whatever it last showed.
            begun = self._counted.get(series, 0.0) if is_counter else math.nan
            self._series[series] = (self._metric(family, target), begun)
        metric, shown = self._series[series]
        self._series[series] = (metric, value)
        if value == shown:
            return
        if not is_counter:
            metric.set(value)
        elif value > shown:
            metric.increment(value - shown)
        else:  # what counts has begun anew: a target that is another model now
            metric.increment(value)

    def _metric(self, family: Family, target: str) -> Any:
        if family.name not in self._families:
            self._families[family.name] = self._stub.MetricFamily(
                name=family.name, description=family.description, kind=getattr(self._stub.MetricFamily, family.kind)
            )
        labels = {"model": self._model, **({"target": target} if target else {}), **dict(family.labels)}
        return self._families[family.name].Metric(labels=labels)
