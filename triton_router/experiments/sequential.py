"""Tests that may look at any time: e-processes, whose chance of ever exceeding ``1 / a`` is ``a`` at most (Ville 1939).

An e-process starts at 1 and, as long as the null hypothesis holds, does not grow on average. Each here is a likelihood
ratio of alternatives, mixed over a grid or a density because nobody knows how bad a canary is (Wald 1945; Robbins 1970,
"Statistical methods related to the law of the iterated logarithm"). All are returned as logarithms, and all are made
of sums: what several instances saw is judged by adding it up.

Evidence comes in *strata*, oldest first. A long good past would hide a fresh fault, so each test is mixed over the
stratum with which the fault began, ``e = sum of p_j e(strata from j on) + the p_j to come`` with ``p_j = 1/(j (j+1))``.
Such a mixture is an e-process too (Shin, Ramdas & Rinaldo 2022, "E-detectors").
"""

from __future__ import annotations

from math import erfc, exp, inf, isfinite, lgamma, log, log1p, pi, sqrt
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_FACTORS = (1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0, 300.0, 1000.0)
"""How many times as bad as allowed a canary may turn out to be: the grid that alternatives are mixed over."""
_GRID = 12
_HIGHEST_ODDS = 99.0
_LEAST_VARIANCE = 1e-4
"""Of log ratios: latencies that seem to vary by less than a percent were rounded."""
LEAST_MEASURED = 50
"""Latencies of each arm before their mean may be judged: sums of fewer are not near enough to normal."""
_TUNED_FOR = 20.0
"""Effective pairs of latencies at which the mixture finds a difference soonest, about eight times this."""
_FAR = 30.0
_LARGEST = 690.0
"""Logarithm of the largest e-value that is told apart from larger ones: a float holds it."""


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


def e_value(log_e: float) -> float:
    """Return an e-value of its logarithm, as a number that JSON can carry."""
    return exp(min(log_e, _LARGEST))


def mixed(logs: Sequence[float]) -> float:
    """Return the logarithm of the mean of e-values."""
    highest = max(logs)
    if not isfinite(highest):
        return highest
    return highest + log(sum(exp(value - highest) for value in logs) / len(logs))


def over_starts(since: Sequence[float], already: int = 0) -> float:
    """Return the log e-value that is mixed over when the fault began.

    Args:
        since: Log e-value of the strata from the j-th on, for each j, oldest first.
        already: Strata before the first of these, which are forgotten.
    """
    if not since:
        return 0.0
    last = already + len(since)
    highest = max(0.0, *since)
    if not isfinite(highest):
        return highest
    # Starts to come count as 1; forgotten ones as 0, whatever they had come to.
    total = exp(-highest) / (last + 1)
    for j, value in enumerate(since, already + 1):
        total += exp(value - highest) / (j * (j + 1))
    return highest + log(total)


def odds_since(rows: Sequence[tuple[float, int, int]], factor: float) -> list[float]:
    """Return the log e-values against "the canary fails at most ``factor`` times as often as stable".

    A request is the canary's with probability w. Of a failure that is so with probability ``w r / (w r + 1 - w)``,
    where r is the ratio of the two failure rates, however often anything fails at all: each failure gives a likelihood
    ratio of r against ``factor``, mixed over r above it. It holds for every smaller ratio too, because the likelihood
    ratio rises with r. Exact at any number of failures.

    Args:
        rows: Of each stratum the share w, failures of the canary, failures of stable.
        factor: The ratio that is allowed.
    """
    sums = [0.0] * len(_FACTORS)
    since: list[float] = []
    for share, canary, stable in reversed(rows):
        if 0.0 < share < 1.0 and (canary or stable):
            allowed = share * factor + 1.0 - share
            for at, multiple in enumerate(_FACTORS):
                less = log(allowed / (share * factor * multiple + 1.0 - share))
                sums[at] += canary * (log(multiple) + less) + stable * less
        since.append(mixed(sums))
    since.reverse()
    return since


def share_since(rows: Sequence[tuple[int, int]], bound: float) -> list[float]:
    """Return the log e-values against "the share of hits is at most ``bound``": a mixture binomial test.

        e = mean over p > bound of (p / bound)^hits ((1 - p) / (1 - bound))^(trials - hits)

    Args:
        rows: Of each stratum the hits and the trials.
        bound: The share that is allowed: 0 for none at all, which one hit disproves; 1 for any.
    """
    if bound >= 1.0:
        return [0.0] * len(rows)
    grid = [(log(p / bound), log((1.0 - p) / (1.0 - bound))) for p in _shares_above(bound)]
    hits = trials = 0
    since: list[float] = []
    for more_hits, more in reversed(rows):
        hits, trials = hits + more_hits, trials + more
        if not bound:
            since.append(inf if hits else 0.0)
            continue
        misses = trials - hits
        since.append(mixed([hits * for_hit + misses * for_miss for for_hit, for_miss in grid]))
    since.reverse()
    return since


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


def odds_two_sided(rows: Sequence[tuple[float, int, int]]) -> float:
    """Return the log e-value against "both arms fail equally often": half of `odds_since` either way."""
    upwards = odds_since(rows, 1.0)
    downwards = odds_since([(1.0 - share, other, one) for share, one, other in rows], 1.0)
    return mixed([upwards[0], downwards[0]]) if rows else 0.0


def share_interval(hits: int, trials: int, false_alarms: float) -> tuple[float, float]:
    """Return bounds of a share that hold at all times at once: the p that a mixture over all shares does not disprove.

    ``B(hits + 1, misses + 1) / (p^hits (1 - p)^misses) < 1 / a``: Robbins 1970, exact.
    """
    misses = trials - hits
    evidence = lgamma(hits + 1) + lgamma(misses + 1) - lgamma(trials + 2)
    limit = evidence + log(false_alarms)

    def is_kept(p: float) -> bool:
        return (hits * log(p) if hits else 0.0) + (misses * log1p(-p) if misses else 0.0) > limit

    best = hits / trials if trials else 0.5
    return (
        _edge(is_kept, best, 0.0) if hits else 0.0,
        _edge(is_kept, best, 1.0) if misses else 1.0,
    )


def ratio_mismatch(rows: Sequence[tuple[float, int, int]]) -> float:
    """Return the log e-value against "requests were assigned by the shares": the sequential sample ratio test.

    Lindon & Malek 2022, "Anytime-valid inference for multinomial count data": counts against a Dirichlet mixture
    around the declared shares, one for each stratum.

    Args:
        rows: Of each stratum the declared share, requests of the treatment, requests of control.
    """
    total = 0.0
    for share, treated, control in rows:
        if treated + control and 0.0 < share < 1.0:
            a, b = _CONCENTRATION * share, _CONCENTRATION * (1.0 - share)
            total += _log_beta(a + treated, b + control) - _log_beta(a, b)
            total -= treated * log(share) + control * log1p(-share)
    return total


_CONCENTRATION = 1000.0
"""Of the Dirichlet mixture: how near to the declared shares a mismatch is expected to be; finds few percent soonest."""


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def _one_sided(z: float, pairs: float) -> float:
    kept = pairs / (pairs + _TUNED_FOR)
    return two_sided(z, pairs) + log(2.0) + _log_below(z * sqrt(kept))


def _log_below(z: float) -> float:
    """Return the logarithm of the probability that a standard normal figure is below ``z``."""
    if z > -_FAR:
        return log(0.5 * erfc(-z / sqrt(2.0)))
    # That would be 0 as a float from -39 on: a canary that is far better than it must be is no alarm.
    return -0.5 * z * z - log(-z * sqrt(2.0 * pi))


def variances(rows: Sequence[tuple[Moments, Moments]]) -> tuple[float, float]:
    """Return the variance within the strata, of either arm."""
    return _variance([one for one, _ in rows]), _variance([other for _, other in rows])


def _variance(strata: Sequence[Moments]) -> float:
    """Return the variance within the strata."""
    freedom = sum(one.size - 1 for one in strata if one.size)
    return max(_LEAST_VARIANCE, sum(one.scatter for one in strata) / freedom) if freedom > 0 else _LEAST_VARIANCE


def _shares_above(bound: float) -> list[float]:
    """Return a grid of shares above a bound, evenly in the logarithm of their odds."""
    if not bound:
        return []
    lowest = 1.5 * bound / (1.0 - bound)
    step = max(2.0, _HIGHEST_ODDS / lowest) ** (1.0 / (_GRID - 1))
    return [odds / (1.0 + odds) for odds in (lowest * step**at for at in range(_GRID))]


def _edge(is_kept: Callable[[float], bool], inside: float, outside: float) -> float:
    """Return where, on the way from inside to outside, shares cease to be kept: by bisection."""
    for _ in range(60):
        middle = 0.5 * (inside + outside)
        inside, outside = (middle, outside) if is_kept(middle) else (inside, middle)
    return outside
