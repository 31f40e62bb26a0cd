"""One model's requests, counted as they come."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING

from triton_router.experiments.split import Arm
from triton_router.model_router.metrics import ArmMetrics, ModelMetrics
from triton_router.routing.types import Backend

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from triton_router.routing.snapshot import TargetSnapshot

Group = tuple[str, Arm]
"""An experiment and one of its arms."""


@dataclass(slots=True)
class _Count:
    requests: int = 0
    succeeded: int = 0
    failed: int = 0
    abandoned: int = 0
    total_ms: float = 0.0
    latest_ms: array[float] = field(default_factory=lambda: array("d"))

    def keep(self, latency_ms: float, history: int) -> None:
        """Note a latency and forget those before the last ``history``."""
        self.latest_ms.append(latency_ms)
        del self.latest_ms[:-history]

    def quantile(self, q: float) -> float:
        """Return what a share ``q`` of the latest latencies did not exceed; 0.0 if there is none."""
        ranked = sorted(self.latest_ms)
        return ranked[max(0, ceil(q * len(ranked)) - 1)] if ranked else 0.0

    @property
    def mean_ms(self) -> float:
        return self.total_ms / self.succeeded if self.succeeded else 0.0


class ModelCounts:
    """Counts by backend, and by arm.

    Args:
        history: How many of the latest latencies quantiles are of.
    """

    def __init__(self, history: int) -> None:
        self._history = history
        self._backends = {backend: _Count() for backend in Backend}
        self._arms: dict[Group, _Count] = {}

    def resize(self, history: int) -> None:
        """Let quantiles be of so many of the latest latencies from now on."""
        self._history = history

    def decided(self, backend: Backend, group: Group | None) -> None:
        """Count a decision."""
        for count in self._of(backend, group):
            count.requests += 1

    def succeeded(self, backend: Backend, group: Group | None, latency_ms: float) -> None:
        """Count an answer."""
        for count in self._of(backend, group):
            count.succeeded += 1
            count.total_ms += latency_ms
        self._backends[backend].keep(latency_ms, self._history)

    def failed(self, backend: Backend, group: Group | None) -> None:
        """Count a failure."""
        for count in self._of(backend, group):
            count.failed += 1

    def abandoned(self, backend: Backend, group: Group | None) -> None:
        """Count a decision whose outcome never came."""
        for count in self._of(backend, group):
            count.abandoned += 1

    def metrics(self, targets: Iterable[TargetSnapshot]) -> ModelMetrics:
        """Return the counts so far, and what the engine says of each target."""
        counts = self._backends
        state = {target.target.backend: target for target in targets}
        return ModelMetrics(
            total_requests=sum(count.requests for count in counts.values()),
            backend_counts={backend: count.requests for backend, count in counts.items()},
            successes={backend: count.succeeded for backend, count in counts.items()},
            failures={backend: count.failed for backend, count in counts.items()},
            abandoned={backend: count.abandoned for backend, count in counts.items()},
            total_latency_ms={backend: count.total_ms for backend, count in counts.items()},
            avg_latency_ms={backend: count.mean_ms for backend, count in counts.items()},
            p50_latency_ms={backend: count.quantile(0.5) for backend, count in counts.items()},
            p99_latency_ms={backend: count.quantile(0.99) for backend, count in counts.items()},
            in_flight={backend: state[backend].in_flight if backend in state else 0 for backend in Backend},
            confidence={backend: state[backend].confidence if backend in state else 0.0 for backend in Backend},
            experiments=self._experiments(),
        )

    def _of(self, backend: Backend, group: Group | None) -> Iterable[_Count]:
        yield self._backends[backend]
        if group:
            yield self._arms.setdefault(group, _Count())

    def _experiments(self) -> Mapping[str, Mapping[Arm, ArmMetrics]]:
        found: dict[str, dict[Arm, ArmMetrics]] = {}
        for (experiment, arm), count in self._arms.items():
            found.setdefault(experiment, {})[arm] = ArmMetrics(count.requests, count.mean_ms, count.failed)
        return found
