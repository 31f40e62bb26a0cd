"""Means of latencies: tests and intervals that hold at all times at once, as `sequential` has them for counts.

They rest on sums that come near to normal, so none of them says anything about a few latencies.
"""

from __future__ import annotations

from math import erfc, inf, log, log1p, pi, sqrt
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

LEAST_MEASURED = 50
"""Latencies of each arm before their mean may be judged: sums of fewer are not near enough to normal."""
_LEAST_VARIANCE = 1e-4
"""Of log ratios: latencies that seem to vary by less than a percent were rounded."""
_TUNED_FOR = 20.0
"""Effective pairs of latencies at which the mixture finds a difference soonest, about eight times this."""
_FAR = 30.0


class Moments(NamedTuple):
    """Sums of a figure: they add up over instances and strata."""

    size: float = 0.0
    total: float = 0.0
    squares: float = 0.0

    @property
    def mean(self) -> float:
        """Their mean; 0 of none."""
        return self.total / self.size if self.size else 0.0

    @property
    def scatter(self) -> float:
        """Sum of squared distances from the mean."""
        return max(0.0, self.squares - self.total * self.mean)

    @property
    def variance(self) -> float:
        """Their variance, not less than what rounding leaves."""
        return max(_LEAST_VARIANCE, self.scatter / (self.size - 1)) if self.size > 1 else _LEAST_VARIANCE

    def plus(self, other: Moments) -> Moments:
        """Return the sums of both."""
        return Moments(self.size + other.size, self.total + other.total, self.squares + other.squares)


def mean_since(rows: Sequence[tuple[Moments, Moments]], allowed: float, clumping: float = 1.0) -> list[float]:
    """Return the log e-values against "the canary's mean exceeds stable's by at most ``allowed``".

    Within each stratum the means of both arms are compared, with weight ``h = n m / (n + m)``, so that what changes
    with time or share changes both. The weighted sum Z of differences in standard errors is a random walk in the
    effective number of pairs H, and in the limit a Brownian motion (Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas
    2021, "Time-uniform central limit theory and asymptotic confidence sequences"). Mixed over a half normal drift:

        e = 2 sqrt(c / (H + c)) exp(Z^2 H / (2 (H + c))) Phi(Z sqrt(H / (H + c)))

    Latencies that come in clumps are worth fewer pairs, and vary more, by the factor of `Clumping.ratio`.

    Asymptotic: there is no e-value above 1 before each arm has ``LEAST_MEASURED``. A self-normalised sum is safe
    against outliers beyond that: they enlarge the standard error as well (de la Pena 1999).
    """
    arms = variances(rows)
    walk = Difference(0.0, 0.0, 0.0)
    canaries = stables = 0.0
    since: list[float] = []
    for canary, stable in reversed(rows):
        canaries, stables = canaries + canary.size, stables + stable.size
        walk = walk.extended(canary, stable, arms)
        enough = min(canaries, stables) >= LEAST_MEASURED and walk.pairs and clumping < inf
        worth = walk.clumped(clumping)
        since.append(_one_sided(worth.z(allowed), worth.pairs) if enough else 0.0)
    since.reverse()
    return since


class Difference(NamedTuple):
    """How far one arm's mean is from the other's, compared within each stratum.

    Attributes:
        excess: Sum over the strata of the difference times its weight.
        variance: Of that sum.
        pairs: Sum of the weights: the effective number of pairs.
    """

    excess: float
    variance: float
    pairs: float

    @property
    def value(self) -> float:
        """The weighted mean of the differences."""
        return self.excess / self.pairs

    def z(self, allowed: float = 0.0) -> float:
        """Return by how many standard errors it exceeds what is allowed."""
        return (self.excess - allowed * self.pairs) / sqrt(self.variance)

    def interval(self, false_alarms: float) -> tuple[float, float]:
        """Return bounds of the difference that hold at all times at once."""
        half = half_width(self.variance / self.pairs**2, self.pairs, false_alarms)
        return self.value - half, self.value + half

    def clumped(self, ratio: float) -> Difference:
        """Return it for figures whose means vary by this factor more than independent ones; infinite is unknown."""
        if ratio == inf:
            return self
        # Fewer pairs by the factor, each as far apart as before.
        return Difference(self.excess / ratio, self.variance / ratio, self.pairs / ratio)

    def extended(self, one: Moments, other: Moments, variances: tuple[float, float]) -> Difference:
        """Return it with one more stratum; one without both arms says nothing."""
        if not one.size or not other.size:
            return self
        weight = one.size * other.size / (one.size + other.size)
        spread = variances[0] / one.size + variances[1] / other.size
        return Difference(
            self.excess + weight * (one.mean - other.mean),
            self.variance + weight * weight * spread,
            self.pairs + weight,
        )


def mean_difference(rows: Sequence[tuple[Moments, Moments]]) -> Difference | None:
    """Return how far the mean of the first arm is from the second's; None where no stratum has both."""
    arms = variances(rows)
    result = Difference(0.0, 0.0, 0.0)
    for one, other in rows:
        result = result.extended(one, other, arms)
    return result if result.pairs else None


def mean_interval(moments: Moments, false_alarms: float) -> tuple[float, float] | None:
    """Return bounds of a mean that hold at all times at once; None before there are enough figures.

    The asymptotic confidence sequence of Waudby-Smith et al. 2021, theorem 2.2:
    ``mean +- s sqrt(2 (n c + 1) / (n^2 c) log(sqrt(n c + 1) / a))``.
    """
    if moments.size < LEAST_MEASURED:
        return None
    half = half_width(moments.variance / moments.size, moments.size, false_alarms)
    return moments.mean - half, moments.mean + half


def half_width(variance: float, pairs: float, false_alarms: float) -> float:
    """Return half the width of a confidence sequence for an estimate with this variance of ``pairs`` figures."""
    grown = (pairs + _TUNED_FOR) / _TUNED_FOR
    return sqrt(variance * 2.0 * grown / (grown - 1.0) * log(sqrt(grown) / false_alarms))


def two_sided(z: float, pairs: float) -> float:
    """Return the log e-value against "no difference": as `mean_since`, mixed over a normal drift of either sign."""
    kept = pairs / (pairs + _TUNED_FOR)
    return 0.5 * log1p(-kept) + 0.5 * z * z * kept


def variances(rows: Sequence[tuple[Moments, Moments]]) -> tuple[float, float]:
    """Return the variance within the strata, of either arm."""
    return _variance([one for one, _ in rows]), _variance([other for _, other in rows])


def _one_sided(z: float, pairs: float) -> float:
    kept = pairs / (pairs + _TUNED_FOR)
    return two_sided(z, pairs) + log(2.0) + _log_below(z * sqrt(kept))


def _log_below(z: float) -> float:
    """Return the logarithm of the probability that a standard normal figure is below ``z``."""
    if z > -_FAR:
        return log(0.5 * erfc(-z / sqrt(2.0)))
    # That would be 0 as a float from -39 on: a canary that is far better than it must be is no alarm.
    return -0.5 * z * z - log(-z * sqrt(2.0 * pi))


def _variance(strata: Sequence[Moments]) -> float:
    """Return the variance within the strata."""
    freedom = sum(one.size - 1 for one in strata if one.size)
    return max(_LEAST_VARIANCE, sum(one.scatter for one in strata) / freedom) if freedom > 0 else _LEAST_VARIANCE
