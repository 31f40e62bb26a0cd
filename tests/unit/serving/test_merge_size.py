"""How many waiting requests go out together, and what is learned of what calls cost."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triton_router.serving.merge_size import CallCosts, in_time, merge_size

costs = st.floats(0.0, 1e4)


def mean_completion(waiting: int, size: int, fixed: float, marginal: float) -> float:
    """Simulate: ``waiting`` requests in calls of ``size``; return the mean time until one is answered."""
    now, total, left = 0.0, 0.0, waiting
    while left:
        count = min(size, left)
        now += fixed + marginal * count
        total += now * count
        left -= count
    return total / waiting


@given(st.integers(1, 500), costs, costs)
def test_at_least_one_and_never_more_than_wait(waiting: int, fixed: float, marginal: float) -> None:
    """Whatever a call costs, between one request and all of them go out."""
    assert 1 <= merge_size(waiting, fixed, marginal) <= waiting


@given(st.integers(1, 100), st.floats(0.01, 10), st.floats(0.01, 10))
def test_the_size_is_close_to_the_best_of_all_sizes(waiting: int, fixed: float, marginal: float) -> None:
    """No other size answers requests much sooner on average, by simulation."""
    best = min(mean_completion(waiting, size, fixed, marginal) for size in range(1, waiting + 1))
    assert mean_completion(waiting, merge_size(waiting, fixed, marginal), fixed, marginal) <= best * 1.25


def test_overhead_merges_all_and_work_merges_little() -> None:
    """A target of 3 ms whatever it gets is given everything; one that takes 3 ms for each row is not."""
    assert merge_size(32, 3.0, 0.0) == 32
    assert merge_size(32, 0.3, 3.0) == 2
    assert merge_size(32, 0.0, 3.0) == 1
    assert merge_size(1, 0.0, 0.0) == 1


@given(st.integers(1, 20), costs, costs, st.lists(st.floats(-10, 1e5), min_size=1, max_size=20))
def test_company_makes_nobody_late(size: int, fixed: float, marginal: float, left: list[float]) -> None:
    """Every request in a call that would be in time alone is in time with the others."""
    count = in_time(size, fixed, marginal, left)
    assert 1 <= count <= min(size, len(left))
    if count > 1:
        alone = fixed + marginal
        assert all(bound <= alone or fixed + count * marginal <= bound for bound in left[:count])


@pytest.mark.parametrize(("fixed", "per_work"), [(3.0, 0.0), (0.5, 0.1), (0.05, 0.5), (20.0, 0.02)])
def test_costs_are_learned_from_calls_that_follow_each_other(fixed: float, per_work: float) -> None:
    """From calls of mixed sizes, each made before the one before it had ended, the two costs are found."""
    rng = random.Random(4)
    learned, now = CallCosts(), 100.0
    for _ in range(200):
        work = rng.randint(1, 32)
        ended = now + (fixed + per_work * work) * rng.uniform(0.95, 1.05) / 1e3
        learned.observe(now - 0.001, ended, work)
        now = ended
    estimate = learned.fixed_and_marginal(16)
    assert sum(estimate) == pytest.approx(fixed + per_work * 16, rel=0.1)
    assert estimate[1] == pytest.approx(per_work * 16, rel=0.2, abs=0.1 * fixed)


def test_an_unknown_slope_is_taken_to_be_small_until_sizes_differ() -> None:
    """After calls of one size only most of their cost counts as overhead, so that merging is tried."""
    learned = CallCosts()
    for call in range(30):
        learned.observe(call, call + 0.003, 16)
    fixed, marginal = learned.fixed_and_marginal(16)
    assert fixed > 5 * marginal
    assert fixed + marginal == pytest.approx(3.0, rel=0.05)


@given(st.lists(st.tuples(st.floats(0, 1e3), st.floats(0, 1e3), st.floats(1, 1e9)), max_size=50))
def test_whatever_is_observed_costs_stay_sane(calls: list[tuple[float, float, float]]) -> None:
    """Costs are finite and not negative, whatever clocks and sizes say."""
    learned = CallCosts()
    for started, took, work in calls:
        learned.observe(started, started + took, work)
    for cost in learned.fixed_and_marginal(100):
        assert cost >= 0.0
        assert math.isfinite(cost)


def test_a_call_executed_along_with_another_teaches_nothing() -> None:
    """Where the target's own batcher served two calls at once, the second does not count as free."""
    learned = CallCosts([(1, 3.0), (32, 3.0)])
    learned.observe(0.0, 0.003, 1)
    before = learned.fixed_and_marginal(1)
    learned.observe(0.0, 0.00301, 1)
    assert learned.fixed_and_marginal(1) == before
