"""Tests that may look at any time: e-processes, whose chance of ever exceeding ``1 / a`` is ``a`` at most (Ville 1939).

An e-process starts at 1 and, as long as the null hypothesis holds, does not grow on average. Each here is a likelihood
ratio of alternatives, mixed over a grid or a density because nobody knows how bad a canary is (Wald 1945; Robbins 1970,
"Statistical methods related to the law of the iterated logarithm"). All are returned as logarithms, and all are made
of sums: what several instances saw is judged by adding it up.

Those of counts are here, those of latencies in `means`. Evidence comes in *strata*, oldest first. A long good past
would hide a fresh fault, so each test is mixed over the stratum with which the fault began:

    e = sum of p_j e(strata from j on) + the p_j to come,   p_j = 1 / (j (j + 1))

Such a mixture is an e-process too (Shin, Ramdas & Rinaldo 2022, "E-detectors").
"""

from __future__ import annotations

from math import exp, inf, isfinite, lgamma, log, log1p
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_FACTORS = (1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0, 300.0, 1000.0)
"""How many times as bad as allowed a canary may turn out to be: the grid that alternatives are mixed over."""
_GRID = 12
_HIGHEST_ODDS = 99.0
_CONCENTRATION = 1000.0
"""Of the Dirichlet mixture: how near to the declared shares a mismatch is expected to be; finds few percent soonest."""
_LARGEST = 690.0
"""Logarithm of the largest e-value that is told apart from larger ones: a float holds it."""


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
        if misses and p >= 1.0:  # as far as a float can tell
            return False
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


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


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
