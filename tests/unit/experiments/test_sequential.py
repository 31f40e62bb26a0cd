"""The tests and intervals: what the formulas promise, checked by counting out, by integration and by simulation."""

from __future__ import annotations

import random
from math import comb, exp, inf, log, pi, sqrt

import pytest

from triton_router.experiments.means import LEAST_MEASURED, Moments, mean_difference, mean_interval, mean_since
from triton_router.experiments.sequential import (
    e_value,
    odds_since,
    odds_two_sided,
    over_starts,
    ratio_mismatch,
    share_interval,
    share_since,
)


def moments(values: list[float]) -> Moments:
    return Moments(len(values), sum(values), sum(value * value for value in values))


@pytest.mark.parametrize("truth", [0.2, 0.1, 0.01])
def test_the_share_test_does_not_grow_on_average_under_the_null(truth: float) -> None:
    """Counted out over all outcomes of 40 trials: an e-value's mean is 1 at the bound, and less below it."""
    mean = sum(
        comb(40, hits) * truth**hits * (1 - truth) ** (40 - hits) * exp(share_since([(hits, 40)], 0.2)[0])
        for hits in range(41)
    )
    assert mean == pytest.approx(1.0) if truth == 0.2 else mean < 1.0


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
@pytest.mark.parametrize("ratio", [2.0, 1.0, 0.1])
def test_the_odds_test_does_not_grow_on_average_under_the_null(share: float, ratio: float) -> None:
    """Counted out over whose each of 25 failures is: a mean of 1 where the ratio is the allowed one, less below it."""
    canary = share * ratio / (share * ratio + 1 - share)
    mean = sum(
        comb(25, hits)
        * canary**hits
        * (1 - canary) ** (25 - hits)
        * exp(odds_since([(share, hits, 25 - hits)], 2.0)[0])
        for hits in range(26)
    )
    assert mean == pytest.approx(1.0) if ratio == 2.0 else mean < 1.0


def test_failures_of_strata_add_up() -> None:
    """Two instances' failures at one share are as good as one's; shares of none and all say nothing."""
    together = odds_since([(0.1, 5, 3)], 1.5)
    apart = odds_since([(0.1, 2, 1), (0.1, 3, 2)], 1.5)
    assert apart[0] == pytest.approx(together[0])
    assert odds_since([(0.0, 0, 9), (1.0, 9, 0)], 1.5) == [0.0, 0.0]


def test_no_mismatch_allowed_means_none() -> None:
    """At a bound of 0 the first hit is proof; at a bound of 1 nothing is."""
    assert share_since([(0, 1000)], 0.0) == [0.0]
    assert share_since([(1, 1000)], 0.0) == [inf]
    assert share_since([(1000, 1000)], 1.0) == [0.0]
    assert e_value(inf) < inf


def test_a_fault_is_found_however_long_all_was_well() -> None:
    """A hundred good strata do not outweigh fresh evidence: mixed over its start, e-values stay near the latest's."""
    since = [-500.0] * 99 + [12.0]
    assert 12.0 - log(100 * 101) <= over_starts(since) <= 12.0
    assert over_starts([12.0], already=99) == pytest.approx(over_starts([-1e9] * 99 + [12.0]), abs=1e-9)


def test_nothing_seen_is_evidence_of_nothing() -> None:
    """The mixture over starts has weights that sum to 1: an e-value of 1 at first, and
    less once starts are forgotten.
    """
    for count in (0, 1, 2, 50):
        assert over_starts([0.0] * count) == pytest.approx(0.0)
    assert over_starts([0.0] * 3, already=7) == pytest.approx(log(1 / 8))


def test_the_latency_test_is_the_mixture_that_it_says() -> None:
    """Against a numerical integral of exp(l S - l^2 H / 2) over a half normal density of the drift l."""
    rng = random.Random(5)
    one = [rng.gauss(0.12, 0.3) for _ in range(200)]
    other = [rng.gauss(0.0, 0.3) for _ in range(300)]
    rows = [(moments(one), moments(other))]
    difference = mean_difference(rows)
    assert difference is not None
    pairs, z = difference.pairs, difference.z(0.05)
    step, integral = 1e-4, 0.0
    for at in range(40_000):
        drift = (at + 0.5) * step
        density = 2.0 * sqrt(20.0 / (2.0 * pi)) * exp(-20.0 * drift * drift / 2.0)
        integral += density * exp(drift * z * sqrt(pairs) - drift * drift * pairs / 2.0) * step
    assert mean_since(rows, 0.05)[0] == pytest.approx(log(integral), abs=1e-3)


def test_a_mean_of_few_is_not_judged() -> None:
    """One latency below the minimum of either arm there is no evidence, however far apart they are."""
    many, few = moments([1.0, 1.1] * LEAST_MEASURED), moments([0.0] * (LEAST_MEASURED - 1))
    assert mean_since([(many, few)], 0.0) == [0.0]
    assert mean_since([(few, many)], 0.0) == [0.0]
    assert mean_interval(few, 0.05) is None
    assert mean_since([(many, moments([0.0, 0.1] * LEAST_MEASURED))], 0.0)[0] > 100.0


@pytest.mark.parametrize("level", [-0.3, -1.0, -3.9])
@pytest.mark.parametrize("size", [60, 10_000, 10_000_000])
def test_a_canary_that_is_faster_is_no_alarm(level: float, size: int) -> None:
    """However many standard errors below stable it is: the tail of the normal distribution is no rounding error."""
    canary = Moments(size, level * size, (level**2 + 0.01) * size)
    stable = Moments(size, 0.0, 0.01 * size)
    assert mean_since([(canary, stable)], 0.0)[0] < 0.0


def test_arms_are_compared_within_strata() -> None:
    """A canary that gets its requests when all is slow is not a slow canary (Simpson's paradox)."""
    rng = random.Random(3)
    night = [[rng.gauss(level, 0.2) for _ in range(size)] for level, size in ((0.0, 60), (0.0, 6000))]
    day = [[rng.gauss(level, 0.2) for _ in range(size)] for level, size in ((1.0, 3000), (1.0, 3000))]
    rows = [(moments(night[0]), moments(night[1])), (moments(day[0]), moments(day[1]))]
    pooled = [(moments(night[0] + day[0]), moments(night[1] + day[1]))]
    assert max(mean_since(rows, 0.0)) < 1.0
    assert mean_since(pooled, 0.0)[0] > 100.0


def test_clumps_are_worth_less() -> None:
    """Latencies that vary ten times as much together are evidence of a tenth as many; before that is known, none."""
    rng = random.Random(4)
    rows = [(moments([rng.gauss(0.3, 0.3) for _ in range(300)]), moments([rng.gauss(0.0, 0.3) for _ in range(300)]))]
    assert mean_since(rows, 0.0)[0] > 40.0
    assert 0.0 < mean_since(rows, 0.0, 10.0)[0] < 10.0
    assert mean_since(rows, 0.0, inf) == [0.0]


def test_a_confidence_sequence_covers_at_all_times() -> None:
    """Of 200 walks of 2,000 latencies with outliers, fewer than 5% ever leave their mean outside in 40 looks."""
    missed = 0
    for seed in range(200):
        rng = random.Random(seed)
        size = total = squares = 0.0
        is_missed = False
        for number in range(1, 2001):
            value = rng.gauss(0.0, 0.3) + (rng.choice((-2.0, 2.0)) if rng.random() < 0.01 else 0.0)
            size, total, squares = size + 1, total + value, squares + value * value
            if number % 50 == 0:
                interval = mean_interval(Moments(size, total, squares), 0.05)
                is_missed = is_missed or (interval is not None and not interval[0] < 0.0 < interval[1])
        missed += is_missed
    assert missed < 10


@pytest.mark.parametrize(("hits", "trials"), [(0, 0), (0, 50), (50, 50), (3, 1000), (1, 10**12)])
def test_bounds_of_a_share_lie_about_it(hits: int, trials: int) -> None:
    """Whatever the counts: within 0 and 1, about what was seen, and all shares where nothing was."""
    low, high = share_interval(hits, trials, 0.05)
    assert 0.0 <= low <= (hits / trials if trials else 0.0)
    assert (hits / trials if trials else 1.0) <= high <= 1.0
    assert (low == 0.0) is (hits == 0)
    assert (high == 1.0) is (hits == trials)


def test_bounds_of_a_share_are_those_of_the_mixture() -> None:
    """With no hit in n trials, (n + 1) (1 - p)^n = a at the upper bound: B(1, n + 1) = 1 / (n + 1)."""
    _, high = share_interval(0, 99, 0.05)
    assert 100.0 * (1.0 - high) ** 99 == pytest.approx(0.05)


def test_mismatched_sample_ratios_are_found_and_others_are_not() -> None:
    """20,000 requests shared out 31 to 69 are not 30 to 70 by chance; those of 300 fair splits look like it, never."""
    assert ratio_mismatch([(0.3, 6300, 13_700)]) > log(100.0)
    worst = 0.0
    for seed in range(300):
        rng = random.Random(seed)
        treated = 0
        for number in range(1, 2001):
            treated += rng.random() < 0.3
            if number % 100 == 0:
                worst = max(worst, ratio_mismatch([(0.3, treated, number - treated)]))
    assert worst < log(1000.0)


def test_failures_of_either_arm_are_found() -> None:
    """The two-sided test sees more failures on one side as on the other, and none in equal numbers."""
    assert odds_two_sided([(0.5, 30, 5)]) == pytest.approx(odds_two_sided([(0.5, 5, 30)]))
    assert odds_two_sided([(0.5, 30, 5)]) > 5.0
    assert odds_two_sided([(0.5, 20, 20)]) < 0.0
    assert odds_two_sided([]) == 0.0


def test_a_share_of_nearly_all_has_bounds_too() -> None:
    """Ten million failures and one answer: the bound is as near to 1 as a float can tell."""
    low, high = share_interval(10_000_000, 10_000_001, 0.005)
    assert 0.999 < low < high <= 1.0
