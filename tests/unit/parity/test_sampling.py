"""Which requests are sampled, and what that may cost."""

from __future__ import annotations

import random
from math import inf

import pytest

from triton_router.parity.sampling import Sampling


def sampled(sampling: Sampling, requests: int, *, took_ms: float = 0.0, rate: float = 0.0) -> int:
    """Serve requests of 1 ms, ``rate`` a second; return how many were sampled, each at a price."""
    count = 0
    for number in range(requests):
        if sampling.passed(1, 1.0, number / rate if rate else 0.0):
            sampling.spend(took_ms)
            count += 1
    return count


@pytest.mark.parametrize("share", [0.002, 0.05, 0.5, 1.0])
def test_the_share_is_kept(share: float) -> None:
    """Of 50,000 requests so many are sampled as independent draws would take, within five standard deviations."""
    sampling = Sampling(random.Random(3).random, share, 1.0)
    count = sampled(sampling, 50_000)
    deviation = (50_000 * share * (1 - share)) ** 0.5
    assert abs(count - 50_000 * share) <= 5 * deviation


def test_nothing_is_sampled_without_a_share() -> None:
    """And nothing has to be drawn for that."""
    sampling = Sampling(random.Random(3).random)
    assert sampling.left == inf
    assert sampled(sampling, 1000) == 0


def test_the_budget_bounds_what_samples_cost() -> None:
    """However large the share: samples of 20 ms take no more than a hundredth of the time of serving, but for one."""
    sampling = Sampling(random.Random(3).random, 1.0, 0.01)
    count = sampled(sampling, 20_000, took_ms=20.0)
    assert 8 <= count <= 0.01 * 20_000 / 20.0 + 1


def test_the_first_sample_is_not_waited_for() -> None:
    """What a new variant answers is looked at before its price has been earned; that is paid back then."""
    sampling = Sampling(random.Random(3).random, 1.0, 0.01)
    assert sampling.passed(1, 1.0, 0.0)
    sampling.spend(5.0)
    assert not sampling.passed(1, 1.0, 0.0)


def test_a_long_rest_is_no_reserve() -> None:
    """After a million requests without a sample, one second may be spent at once, and no more."""
    sampling = Sampling(random.Random(3).random, 0.0, 0.5)
    sampling.passed(1_000_000, 10.0, 0.0)
    sampling.go_by(1.0, 0.5)
    sampling.spend(1001.0)
    assert not sampling.passed(1, 0.0, 0.0)


def test_what_is_urgent_is_sampled_by_the_clock() -> None:
    """About once a second at a hundred requests a second, though the share alone would take hours; then no more."""
    sampling = Sampling(random.Random(3).random, 1e-7, 1.0)
    sampling.hurry(1.0, 0.0)
    count = sampled(sampling, 10_000, rate=100.0)
    assert 80 <= count <= 125
    sampling.hurry(inf, 100.0)
    assert sampled(sampling, 1000, rate=100.0) == 0


@pytest.mark.parametrize("share", [1e-17, 5e-324])
def test_a_share_that_is_next_to_nothing_samples_nothing(share: float) -> None:
    """It is a number that a file may hold, and is not to stop a model from being loaded."""
    assert Sampling(random.Random(3).random, share).left > 1e15
