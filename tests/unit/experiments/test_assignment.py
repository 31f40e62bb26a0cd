"""Who gets which arm: the same everywhere, evenly, and only ever from control to treatment."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triton_router.experiments.assignment import is_treated, position
from triton_router.experiments.split import Arm, Assignment, Split
from triton_router.experiments.splitting_engine import SplittingEngine, Trials
from triton_router.profiling.profile import TargetProfile
from triton_router.routing.policies import policy_named
from triton_router.routing.rules import RoutingRules
from triton_router.routing.types import Outcome, RoutingContext, Target, Verdict

CHI_SQUARE_19_DOF_ONE_IN_A_MILLION = 63.2


def split(fraction: float, *, assignment: Assignment = Assignment.REQUEST) -> Split:
    return Split("e", policy_named("random"), policy_named("latency"), fraction, assignment=assignment)


def test_positions_are_the_same_on_every_machine() -> None:
    """The hash is part of the interface: a new release must not reshuffle running experiments."""
    assert position("new_algorithm_v2", "user1") == pytest.approx(0.8453925460060338, abs=1e-12)


@given(st.text(), st.text())
def test_positions_lie_in_the_unit_interval(experiment: str, key: str) -> None:
    """Whatever the text, lone surrogates included: at least 0, below 1, and the same again."""
    assert 0.0 <= position(experiment, key) < 1.0
    assert position(experiment, key) == position(experiment, key)
    assert is_treated(experiment, key, 1.0)
    assert not is_treated(experiment, key, 0.0)


@given(st.text(), st.text(), st.floats(0, 1), st.floats(0, 1))
def test_assignment_is_monotone(experiment: str, key: str, one: float, other: float) -> None:
    """Who is treated at a fraction is treated at every larger one."""
    smaller, larger = sorted((one, other))
    assert is_treated(experiment, key, larger) or not is_treated(experiment, key, smaller)


@pytest.mark.parametrize("experiment", ["a", "b", "new_algorithm_v2"])
@pytest.mark.parametrize("form", ["{}", "user{}@example.org", "#{}"])
def test_positions_are_uniform(experiment: str, form: str) -> None:
    """A chi-square test over 20 bins of 10,000 consecutive keys finds nothing."""
    bins = [0] * 20
    for number in range(10_000):
        bins[int(position(experiment, form.format(number)) * 20)] += 1
    assert sum((count - 500) ** 2 / 500 for count in bins) < CHI_SQUARE_19_DOF_ONE_IN_A_MILLION


def test_experiments_split_independently() -> None:
    """Being treated in one experiment says nothing about another: all four combinations are as frequent."""
    combinations = [0] * 4
    for number in range(8000):
        key = str(number)
        combinations[2 * is_treated("one", key, 0.5) + is_treated("two", key, 0.5)] += 1
    assert sum((count - 2000) ** 2 / 2000 for count in combinations) < 30.0


def test_ids_and_keys_do_not_run_together() -> None:
    """Experiment "ab" with key "c" is not "a" with "bc"."""
    assert position("ab", "c") != position("a", "bc")


def test_models_can_be_assigned_as_a_whole() -> None:
    """By model, the key does not matter; by request, the model does not."""
    by_model = split(0.5, assignment=Assignment.MODEL)
    assert len({by_model.arm_of("m", str(key)) for key in range(50)}) == 1
    assert {by_model.arm_of(f"m{number}", "k") for number in range(50)} == set(Arm)
    by_request = split(0.5)
    assert len({by_request.arm_of(f"m{number}", "k") for number in range(50)}) == 1


def test_an_engine_decides_by_arm() -> None:
    """Requests with a key stay in their arm, those without are shared out; an explicit policy comes first."""
    engine = SplittingEngine(
        [(Target("a", "a"), TargetProfile([(1, 1.0)])), (Target("b", "b"), TargetProfile([(1, 2.0)]))],
        (policy_named("power"), RoutingRules()),
        Trials(split(0.5)),
        "m",
        rng=random.Random(2).random,
    )

    def policy(context: RoutingContext) -> str:
        decision = engine.decide(context, 0.0)
        engine.finish(decision, Outcome(Verdict.SUCCESS, 1.0), 0.0)
        return decision.policy

    names = [policy(RoutingContext()) for _ in range(400)]
    assert 150 < names.count("latency") < 250
    assert set(names) == {"latency", "random"}
    assert len({policy(RoutingContext(key="user")) for _ in range(20)}) == 1
    assert engine.decide(RoutingContext(), 0.0, policy_named("cost")).policy == "cost"


def test_an_engine_explains_by_arm() -> None:
    """An explanation is by the policy that decides the request that follows, with a key and without, goals aside."""
    engine = SplittingEngine(
        [(Target("a", "a"), TargetProfile([(1, 1.0)])), (Target("b", "b"), TargetProfile([(1, 2.0)]))],
        (policy_named("power"), RoutingRules()),
        Trials(split(0.5)),
        "m",
        rng=random.Random(2).random,
    )
    seen: set[str] = set()
    for number in range(60):
        context = RoutingContext(key=f"user{number}" if number % 2 else "")
        told = engine.explain(context, 0.0).policy
        decision = engine.decide(context, 0.0)
        engine.finish(decision, Outcome(Verdict.SUCCESS, 1.0), 0.0)
        assert told == decision.policy
        seen.add(told)
    assert seen == {"latency", "random"}
    assert engine.explain(RoutingContext(), 0.0, policy_named("cost")).policy == "cost"
