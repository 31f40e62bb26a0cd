"""What people and metrics see of a target's latencies."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """A target's latencies so far, in milliseconds: measured quantiles, and how well they were predicted.

    Attributes:
        count: Requests measured.
        predicted: Those of them that had been predicted.
        predicted_total_ms: Sum of their predicted latencies.
        measured_total_ms: Sum of their measured ones.
        mean_relative_error: Recent mean of |measured - predicted| / measured.
        p90_judged: Answers for which a 90th percentile had been predicted from earlier ones.
        p90_within: Those of them that kept to it; 87 to 93% is calibrated.
    """

    count: int
    p50_ms: float
    p99_ms: float
    predicted: int
    predicted_total_ms: float
    measured_total_ms: float
    mean_relative_error: float
    p90_ms: float = 0.0
    p90_judged: int = 0
    p90_within: int = 0

    @property
    def p90_coverage(self) -> float:
        """Share of answers within the 90th percentile predicted for them; 0.0 while none was judged."""
        return self.p90_within / self.p90_judged if self.p90_judged else 0.0
