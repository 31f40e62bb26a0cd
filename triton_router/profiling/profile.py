"""What has been learned of one target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from triton_router.profiling.affine import AffineLatency
from triton_router.profiling.figures import UNKNOWN_FIGURE, Figure, Source
from triton_router.profiling.histogram import LatencyHistogram

if TYPE_CHECKING:
    from collections.abc import Iterable

_HALF_CONFIDENT = 10
"""Observations after which confidence has reached half of what the fit's error allows."""


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """A target's latencies so far, in milliseconds: measured quantiles, and how well they were predicted.

    Attributes:
        count: Requests measured.
        predicted: Those of them that had been predicted.
        predicted_total_ms: Sum of their predicted latencies.
        measured_total_ms: Sum of their measured ones.
        mean_relative_error: Recent mean of |measured - predicted| / measured.
    """

    count: int
    p50_ms: float
    p99_ms: float
    predicted: int
    predicted_total_ms: float
    measured_total_ms: float
    mean_relative_error: float


class TargetProfile:
    """Learns from one target's outcomes; predicts its latency.

    Args:
        measured: ``(work, latency_ms)`` pairs measured at build time. They seed the prediction; being taken
            without load and perhaps on another machine, they fade as live evidence arrives.
    """

    __slots__ = (
        "_alone",
        "_histogram",
        "_latency",
        "_live",
        "_measured_ms",
        "_paired",
        "_predicted_ms",
        "drifts",
        "error_rate",
        "last_drift",
        "memory_mb",
        "power_w",
    )

    def __init__(
        self,
        measured: Iterable[tuple[float, float]] = (),
        *,
        prior: object = None,  # noqa: ARG002
        power_w: Figure = UNKNOWN_FIGURE,
        memory_mb: Figure = UNKNOWN_FIGURE,
    ) -> None:
        self.power_w = power_w
        self.memory_mb = memory_mb
        self.error_rate = 0.0
        self.drifts = 0
        self.last_drift = None
        self._latency = AffineLatency()
        self._alone = AffineLatency()
        self._histogram = LatencyHistogram()
        self._live = 0
        self._paired = 0
        self._predicted_ms = 0.0
        self._measured_ms = 0.0
        for work, latency_ms in measured:
            self._latency.observe(latency_ms, work)
            self._alone.observe(latency_ms, work)

    @property
    def is_proven(self) -> bool:
        """Whether anything at all, live or built in, says how fast the target is."""
        return self._latency.observations > 0

    @property
    def confidence(self) -> float:
        """Trust in the prediction, 0..1: grows with live evidence, shrinks with the prediction's error."""
        evidence = self._live / (self._live + _HALF_CONFIDENT)
        return evidence * max(0.0, 1.0 - self._latency.mean_relative_error)

    @property
    def observations(self) -> int:
        """Live answers that were learned."""
        return self._live

    def latency_quantile(self, expected_ms: float, probability: float) -> float:
        """Return the latency that an answer expected after ``expected_ms`` keeps to with the given probability."""
        return expected_ms * (1.0 + probability)

    def probability_within(self, expected_ms: float, bound_ms: float) -> float:
        """Return how likely an answer expected after ``expected_ms`` comes within ``bound_ms``."""
        return 1.0 if expected_ms * 2.0 < bound_ms else 0.5 if expected_ms < bound_ms else 0.0

    def fixed_and_marginal(self, work: float, rows: float = 1.0) -> tuple[float, float]:
        """Return what a call alone costs whatever it carries, and what this work adds; milliseconds, (0, 0) unknown."""
        fixed = self.predict_alone(0.0, rows)
        return fixed, max(0.0, self.predict_alone(work, rows) - fixed)

    def energy_j(self, alone_ms: float) -> Figure:
        """Return the energy of a request that takes ``alone_ms`` by itself, in joules."""
        return Figure(self.power_w.value * alone_ms / 1000.0, self.power_w.source)

    def record_failure(self) -> None:
        """Note a failure that was the target's."""
        self.error_rate += 0.05 * (1.0 - self.error_rate)

    def record_power(self, watts: float) -> None:
        """Learn from one reading of a power meter."""
        self.power_w = Figure(watts, Source.MEASURED)

    def record_memory(self, megabytes: float) -> None:
        """Learn from one reading of the memory the target takes."""
        self.memory_mb = Figure(megabytes, Source.MEASURED)

    def predict_latency(
        self,
        work: float,
        ahead: float = 0.0,
        device_ahead: float = 0.0,
        rows: float = 1.0,  # noqa: ARG002
    ) -> float:
        """Return the expected latency in milliseconds; 0.0 while the target is unproven."""
        return self._latency.predict(work, ahead, device_ahead)

    def predict_alone(self, work: float, rows: float = 1.0) -> float:  # noqa: ARG002
        """Return the expected latency with nothing else in flight, in milliseconds; 0.0 while unproven.

        Learned apart, from requests that had the device to themselves: under steady load the other fit cannot tell
        what a request takes from what it waits, and what it takes is what it costs the others.
        """
        return self._alone.predict(work) or self._latency.predict(work)

    def record_latency(  # noqa: PLR0913
        self,
        latency_ms: float,
        work: float,
        ahead: float,
        device_ahead: float,
        predicted_ms: float,
        alone: bool,
        rows: float = 1.0,  # noqa: ARG002
    ) -> None:
        """Learn from a request that was served.

        Args:
            latency_ms: How long it took.
            work: Its work.
            ahead: Work that was in flight at the target when it was chosen.
            device_ahead: Likewise at other targets of the same device.
            predicted_ms: What had been predicted; 0.0 for nothing.
            alone: Whether nothing else was in flight on the device, at its beginning or at its end.
        """
        self._live += 1
        self.error_rate -= 0.05 * self.error_rate
        self._histogram.add(latency_ms)
        if predicted_ms > 0.0:
            self._paired += 1
            self._predicted_ms += predicted_ms
            self._measured_ms += latency_ms
        self._latency.observe(latency_ms, work, ahead, device_ahead)
        if alone:
            self._alone.observe(latency_ms, work)

    def summary(self) -> LatencySummary:
        """Return the figures that people and metrics see."""
        return LatencySummary(
            count=self._histogram.count,
            p50_ms=self._histogram.quantile(0.5),
            p99_ms=self._histogram.quantile(0.99),
            predicted=self._paired,
            predicted_total_ms=self._predicted_ms,
            measured_total_ms=self._measured_ms,
            mean_relative_error=self._latency.mean_relative_error,
        )
