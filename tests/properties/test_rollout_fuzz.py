"""Whatever is wanted of a rollout and whatever is stored of it: shares stay what was asked for, and nothing crashes."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.properties.hostile import PROFILE, VALUES, changed
from triton_router.experiments.assignment import position
from triton_router.experiments.parity_verdict import ParityVerdict
from triton_router.experiments.rollout import Gate, Rollout, RolloutPlan
from triton_router.routing.types import Verdict

CHI_SQUARE_99_DOF_ONE_IN_A_MILLION = 181.0
"""Upper critical value by Wilson & Hilferty 1931: 99 (1 - 2 / 891 + 4.753 sqrt(2 / 891))^3 = 178.6, rounded up."""

SHARES = st.sampled_from([0.0, 0.01, 0.05, 0.25, 0.3, 0.5, 0.9, 1.0])
PLANS = st.builds(
    RolloutPlan,
    id=st.just("r"),
    canary=st.sampled_from([frozenset({"a"}), frozenset({"b", "c"})]),
    steps=st.lists(SHARES, min_size=1, max_size=5, unique=True).map(lambda shares: tuple(sorted(shares))),
    hold_s=st.sampled_from([0.0, 3.0]),
    weight=st.none() | SHARES,
    is_paused=st.booleans(),
    outcome=st.sampled_from(["", "", "", "promote", "abort"]),
    gate=st.builds(Gate, min_requests=st.just(2), max_mismatch=st.sampled_from([0.01, 1.0]), rollback=st.booleans()),
)
ACTIONS = st.one_of(
    st.tuples(st.just("follow"), PLANS),
    st.tuples(st.just("pass"), st.floats(-1e6, 1e6)),
    st.tuples(st.just("answer"), st.sampled_from(list(Verdict))),
    st.tuples(st.just("compare"), st.booleans()),
    st.tuples(st.just("restart"), st.none()),
)


@PROFILE
@given(PLANS, st.lists(ACTIONS, max_size=15))
def test_a_rollout_never_gives_a_share_that_nobody_asked_for(plan: RolloutPlan, actions: list[tuple[str, Any]]) -> None:
    """Plans, time, answers, comparisons and restarts in any order: each share is a step, a weight, none or all.

    A rollback lasts until somebody promotes; every change is told with the share that it led to; states are JSON.
    """
    rollout, now = Rollout(plan), 0.0
    asked = {0.0, 1.0, *plan.shares, plan.weight}
    changes = rollout.step(now)
    for action, value in [*actions, ("pass", 1.0)]:
        was_rolled_back, told = rollout.phase == "rolled_back", len(changes)
        before = rollout.share
        if action == "follow":
            plan = value
            asked |= {*plan.shares, plan.weight}
            changes += rollout.follow(plan, now)
        elif action == "pass":
            now += value
            changes += rollout.step(now)
        elif action == "answer":
            for _ in range(10):
                rollout.canary.note(value, 1.0, 0.5)
                rollout.stable.note(Verdict.SUCCESS, 1.0, 0.0)
        elif action == "compare":
            rollout.note_parity(value)
        else:
            rollout = Rollout.from_state(plan, json.loads(json.dumps(rollout.state())))
        assert rollout.share in asked
        assert rollout.share == before or (len(changes) > told and changes[-1].after == rollout.share)
        if was_rolled_back and rollout.phase != "rolled_back":
            assert changes[-1].event == "promote"
        json.dumps(
            [rollout.report(now), rollout.evidence(), [change.figures for change in changes[told:]]], allow_nan=False
        )


def stored() -> dict[str, Any]:
    rollout, rng = Rollout(RolloutPlan("r", frozenset({"a"}))), random.Random(1)
    rollout.step(0.0)
    for second in range(1, 90):
        for _ in range(5):
            rollout.canary.note(Verdict.SUCCESS, 1.0, rng.gauss(0.0, 0.3))
            rollout.stable.note(Verdict.TARGET_ERROR if rng.random() < 0.1 else Verdict.SUCCESS, 1.0, 0.1)
            rollout.note_parity(agrees=True)
        rollout.step(float(second))
    return json.loads(json.dumps(rollout.state()))


STORED = stored()


@PROFILE
@given(st.data())
def test_a_stored_rollout_is_used_or_refused(data: st.DataObject) -> None:
    """One value anywhere in a state replaced by anything: ValueError, or a rollout that goes on and reports in JSON."""
    plan = RolloutPlan("r", frozenset({"a"}))
    state = data.draw(changed(copy.deepcopy(STORED)))
    fresh = Rollout(plan)
    fresh.step(0.0)
    fresh.step(1.0, [state])
    try:
        rollout = Rollout.from_state(plan, state)
    except ValueError:
        return
    rollout.step(1.0)
    assert 0.0 <= rollout.share <= 1.0
    json.dumps([rollout.report(2.0), fresh.report(2.0)], allow_nan=False)


@PROFILE
@given(VALUES)
def test_a_stored_verdict_is_used_or_refused(value: object) -> None:
    """Anything in place of a verdict's state, or of its runs."""
    sound = {
        "identity": "",
        "returns": 0,
        "agreeing": 0,
        "forgotten": 0,
        "quarantined": 0,
        "compared": 1,
        "diverged": 0,
    }
    for state in (value, {**sound, "runs": value}, {**sound, "runs": [[0, 1]], "returns": value}):
        try:
            verdict = ParityVerdict.from_state(0.01, 0.001, "", state)
        except ValueError:
            continue
        verdict.hear([state])
        json.dumps(verdict.report(), allow_nan=False)


def test_assignment_of_a_hundred_thousand_keys_is_uniform() -> None:
    """Chi-square over 100 bins, for keys as people have them: counted, random, and alike but for their ends."""
    for form in ("{}", "user-{}@example.org", "{:032x}"):
        bins = [0] * 100
        for number in range(100_000):
            bins[int(position("rollout/minilm-v2", form.format(number)) * 100)] += 1
        statistic = sum((count - 1000) ** 2 / 1000 for count in bins)
        print(f"chi-square of {form!r}: {statistic:.1f} at 99 degrees of freedom")
        assert statistic < CHI_SQUARE_99_DOF_ONE_IN_A_MILLION


@PROFILE
@given(st.text(), st.text(min_size=1), st.text(min_size=1))
def test_the_same_caller_gets_the_same_arm(key: str, one: str, other: str) -> None:
    """On any instance, at any time, for any text; whether two rollouts agree about a caller depends on their ids."""
    first, second = (Rollout(RolloutPlan(one, frozenset({"a"}), weight=0.5)) for _ in range(2))
    assert first.is_canary(key) == second.is_canary(key)
    if one == other:
        assert Rollout(RolloutPlan(other, frozenset({"b"}), weight=0.5)).is_canary(key) == first.is_canary(key)


@PROFILE
@given(st.text(), SHARES, SHARES)
def test_raising_a_share_moves_only_newcomers(key: str, share: float, larger: float) -> None:
    """Who is the canary's at a share is so at every larger one."""
    low, high = sorted((share, larger))
    before, after = (Rollout(RolloutPlan("r", frozenset({"a"}), weight=weight)) for weight in (low, high))
    assert after.is_canary(key) or not before.is_canary(key)
