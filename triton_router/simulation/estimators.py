"""What a policy would have measured, estimated from what another one measured: off-policy evaluation.

For each decision: the logged action's propensity p under the policy that made it, its probability q under the policy
in question, the measured value r, and what a model m expects of each action.

    IPS     mean of w * r                                       with w = q / p
    SNIPS   sum of w * r / sum of w
    DR      mean of sum over actions of q(a) * m(a) + w * (r - m(logged))

The first is unbiased and wild (Horvitz & Thompson, 1952), the second slightly biased and tamer (Swaminathan & Joachims,
*The Self-Normalized Estimator for Counterfactual Learning*, NIPS 2015), the third unbiased whenever either the
propensities or the model are right (Dudik, Langford & Li, *Doubly Robust Policy Evaluation and Learning*, ICML 2011).
All need overlap: what the policy in question wants must have been tried. Where it was, the weights' mean is about 1.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

Z95 = 1.959963984540054
"""Standard errors to either side of a 95% confidence interval."""
LEAST_EFFECTIVE = 100.0
"""Decisions' worth of evidence below which an estimate is called poor."""
LEAST_EFFECTIVE_SHARE = 0.02
"""Likewise as a share of the decisions."""
LARGEST_SHARE = 0.1
"""Share of all weight that one decision may carry."""
LEAST_SUPPORT = 0.95
"""Mean weight below which, chance apart, part of what the policy wants was never tried."""
_CERTAIN = 3.0
"""Standard errors beyond which a mean weight is not 1 by chance."""


class Point(NamedTuple):
    """One decision as an estimator sees it.

    Attributes:
        weight: q / p of the logged action.
        value: What was measured.
        expected: What the model expects of the policy in question: over its actions, by their probabilities.
        predicted: What it expects of the logged action.
    """

    weight: float
    value: float
    expected: float
    predicted: float


class Estimate(NamedTuple):
    """A mean and its 95% confidence interval."""

    mean: float
    low: float
    high: float


class Overlap(NamedTuple):
    """How much of what the policy in question wants was tried.

    Attributes:
        mean_weight: About 1 where everything was.
        error: Its standard error.
        effective: Decisions' worth of evidence: (sum of w)^2 / sum of w^2.
        largest: Share of all weight that one decision carries.
    """

    mean_weight: float
    error: float
    effective: float
    largest: float

    def complaints(self, count: int) -> list[str]:
        """Say why the estimates from ``count`` decisions should not be believed; nothing if they may."""
        found: list[str] = []
        if self.effective < LEAST_EFFECTIVE or self.effective < LEAST_EFFECTIVE_SHARE * count:
            found.append(f"the evidence is worth {self.effective:.0f} decisions, of {count}")
        if self.mean_weight + _CERTAIN * self.error < LEAST_SUPPORT:
            found.append(
                f"what the policy wants was tried too rarely, or never (mean weight {self.mean_weight:.2f}, not 1)"
            )
        if self.mean_weight - _CERTAIN * self.error > 1.0 / LEAST_SUPPORT:
            found.append(f"the propensities do not fit what was chosen (mean weight {self.mean_weight:.2f}, not 1)")
        if self.largest > LARGEST_SHARE:
            found.append(f"one decision carries {self.largest:.0%} of all weight")
        return found


def overlap(points: Sequence[Point]) -> Overlap:
    """Return how well the log covers the policy in question."""
    total = sum(point.weight for point in points)
    squares = sum(point.weight * point.weight for point in points)
    if not total:
        return Overlap(0.0, 0.0, 0.0, 0.0)
    mean = total / len(points)
    error = sqrt(max(0.0, squares / len(points) - mean * mean) / len(points))
    return Overlap(mean, error, total * total / squares, max(point.weight for point in points) / total)


def inverse_propensity(points: Sequence[Point]) -> Estimate:
    """Return the IPS estimate."""
    return _normal([point.weight * point.value for point in points])


def self_normalised(points: Sequence[Point]) -> Estimate | None:
    """Return the SNIPS estimate, its interval by the delta method; None where no weight is left."""
    total = sum(point.weight for point in points)
    if not total:
        return None
    mean = sum(point.weight * point.value for point in points) / total
    error = sqrt(sum((point.weight * (point.value - mean)) ** 2 for point in points)) / total
    return Estimate(mean, mean - Z95 * error, mean + Z95 * error)


def doubly_robust(points: Sequence[Point]) -> Estimate:
    """Return the DR estimate."""
    return _normal([point.expected + point.weight * (point.value - point.predicted) for point in points])


def plain_mean(values: Sequence[float]) -> Estimate:
    """Return what was measured itself."""
    return _normal(values)


def _normal(values: Sequence[float]) -> Estimate:
    count = len(values)
    mean = sum(values) / count
    if count < 2:
        return Estimate(mean, float("-inf"), float("inf"))
    error = sqrt(sum((value - mean) ** 2 for value in values) / (count - 1) / count)
    return Estimate(mean, mean - Z95 * error, mean + Z95 * error)
