"""The retry budget: a share of the traffic and a burst, whatever happens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triton_router.routing.retry_budget import MEMORY_S, RetryBudget


def test_the_burst_is_there_without_any_traffic_and_fills_up_again() -> None:
    """Ten retries are granted at once, no eleventh; after ten seconds ten more."""
    budget = RetryBudget(0.2, 10)
    assert [budget.take(1, 0.0) for _ in range(12)].count(True) == 10
    assert [budget.take(1, 5.0) for _ in range(12)].count(True) == 5
    assert [budget.take(1, 15.0) for _ in range(12)].count(True) == 10
    assert [budget.take(1, 1000.0) for _ in range(12)].count(True) == 10


def test_traffic_earns_its_share() -> None:
    """At a thousand requests a second, each fifth may be tried again, second after second."""
    budget = RetryBudget(0.2, 0)
    budget.left(0, 0.0)
    granted = 0
    for second in range(1, 31):
        granted += [budget.take(1000 * second, float(second)) for _ in range(1000)].count(True)
    assert 5000 <= granted <= 6000


def test_a_quiet_hour_saves_nothing_up() -> None:
    """What was earned long ago is forgotten."""
    budget = RetryBudget(0.2, 0)
    budget.left(0, 0.0)
    assert budget.left(10_000, 1.0) > 1000.0
    assert budget.left(10_000, 3600.0) < 1.0


def test_a_larger_burst_holds_at_once_and_a_smaller_one_too() -> None:
    """New settings neither wait ten seconds nor leave more than they allow."""
    budget = RetryBudget(0.0, 2)
    budget.resize(0.0, 5, 0.0)
    assert budget.left(0, 0.0) == pytest.approx(5.0)
    budget.resize(0.0, 1, 0.0)
    assert budget.left(0, 0.0) == pytest.approx(1.0)


@given(
    share=st.floats(0.0, 1.0),
    burst=st.integers(0, 20),
    steps=st.lists(st.tuples(st.floats(0.0, 30.0), st.integers(0, 500), st.integers(0, 300)), max_size=30),
)
def test_no_more_is_ever_granted_than_the_bound(share: float, burst: int, steps: list[tuple[float, int, int]]) -> None:
    """Whatever the traffic and however greedy: at most the burst, its refilling, and the share of the requests."""
    budget = RetryBudget(share, burst)
    now, requests, granted = 0.0, 0, 0
    for elapsed, arrived, wanted in steps:
        now += elapsed
        requests += arrived
        granted += sum(budget.take(requests, now) for _ in range(wanted))
        assert granted <= share * requests + burst * (1.0 + now / MEMORY_S) + 1e-6


@given(
    hedge_share=st.floats(0.0, 1.0),
    steps=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), max_size=30),
)
def test_hedges_are_never_more_than_their_share(hedge_share: float, steps: list[tuple[int, int]]) -> None:
    """At no moment were more hedges granted than the share of the requests until then."""
    budget = RetryBudget(1.0, 1000, hedge_share)
    requests = granted = 0
    for arrived, wanted in steps:
        requests += arrived
        granted += sum(budget.take_for_hedge(requests, 0.0) for _ in range(wanted))
        assert granted <= hedge_share * requests + 1e-6
