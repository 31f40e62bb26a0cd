"""What has been learned of one target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from triton_router.profiling.affine import AffineLatency
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

    __slots__ = ("_alone", "_histogram", "_latency", "_live", "_measured_ms", "_paired", "_predicted_ms")

    def __init__(self, measured: Iterable[tuple[float, float]] = ()) -> None:
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

    def predict_latency(self, work: float, ahead: float = 0.0, device_ahead: float = 0.0) -> float:
        """Return the expected latency in milliseconds; 0.0 while the target is unproven."""
        return self._latency.predict(work, ahead, device_ahead)

    def predict_alone(self, work: float) -> float:
        """Return the expected latency with nothing else in flight, in milliseconds; 0.0 while unproven.

        Learned apart, from requests that had the device to themselves: under steady load the other fit cannot tell
        what a request takes from what it waits, and what it takes is what it costs the others.
        """
        return self._alone.predict(work) or self._latency.predict(work)

    def record_latency(
        self, latency_ms: float, work: float, ahead: float, device_ahead: float, predicted_ms: float, alone: bool
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
