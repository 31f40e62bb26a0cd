"""Another decision for the same request: when there is one, for whom, and at whose expense."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from triton_router.errors import AllFullError
from triton_router.experiments.split import Split
from triton_router.experiments.splitting_engine import SplittingEngine, Trials
from triton_router.profiling.profile import TargetProfile
from triton_router.routing.engine import RoutingEngine
from triton_router.routing.policies import policy_named
from triton_router.routing.resilience import Resilience
from triton_router.routing.rules import RoutingRules
from triton_router.routing.types import Backend, Outcome, RoutingContext, Target, Verdict

REQUEST = RoutingContext(1, 10.0)
FAILURE = Outcome(Verdict.TARGET_ERROR, 0.1)
ANSWER = Outcome(Verdict.SUCCESS, 1.0)
LEFT = Outcome(Verdict.CANCELLED, 0.1)
HEDGING = Resilience(hedge_share=0.05)


def make(*speeds: float, resilience: Resilience | None = None, policy: str = "latency") -> RoutingEngine:
    """Targets t0, t1, ... that take so many milliseconds whatever the work; t0 on a CPU, the others on a GPU."""
    return RoutingEngine(
        [
            (Target(f"t{i}", "m", backend=Backend.GPU if i else Backend.CPU), TargetProfile([(1, ms), (100, ms)]))
            for i, ms in enumerate(speeds)
        ],
        policy_named(policy),
        rules=RoutingRules(resilience=resilience or Resilience()),
        rng=random.Random(5).random,
    )


def refusals(engine: RoutingEngine) -> dict[str, float]:
    return {why: count for why, count in engine.retry_counts(0.0).items() if why != "left"}


def test_a_request_goes_from_target_to_target_best_first() -> None:
    """Each further attempt goes to the best that is left, keeps its own slot, and says why it was made."""
    engine = make(1.0, 9.0, 3.0)
    earlier = [engine.decide(REQUEST, 0.0)]
    for name in ("t2", "t1"):
        decision = engine.again(earlier, 0.0)
        assert decision is not None
        assert (decision.target.name, decision.reason, decision.propensity) == (name, "retry", 0.0)
        earlier.append(decision)
    assert [decision.attempt for decision in earlier] == [1, 2, 3]
    assert [target.in_flight for target in engine.snapshot(0.0)] == [1, 1, 1]
    assert [target.retried for target in engine.snapshot(0.0)] == [0, 1, 1]
    for decision in earlier:
        engine.finish(decision, FAILURE, 0.0)
    assert [target.in_flight for target in engine.snapshot(0.0)] == [0, 0, 0]


def test_the_fallbacks_of_a_decision_are_the_order_of_its_retries() -> None:
    """What a decision names beforehand is where the request goes while nothing changes."""
    engine = make(1.0, 9.0, 3.0, 5.0, resilience=Resilience(attempts=4))
    earlier = [engine.decide(REQUEST, 0.0)]
    while decision := engine.again(earlier, 0.0):
        earlier.append(decision)
    assert [decision.target for decision in earlier[1:]] == list(earlier[0].fallbacks)


@pytest.mark.parametrize(
    ("resilience", "context", "why"),
    [
        (Resilience(idempotent=False), REQUEST, "not_idempotent"),
        (Resilience(attempts=1), REQUEST, "attempts"),
        (Resilience(), RoutingContext(1, 10.0, pinned="t0"), "sequence"),
        (Resilience(retry_share=0.0, retry_burst=0), REQUEST, "budget"),
        (Resilience(), RoutingContext(1, 10.0, allowed_backends=frozenset({Backend.CPU})), "no_target"),
    ],
)
def test_a_retry_that_must_not_be_is_refused_and_counted(
    resilience: Resilience, context: RoutingContext, why: str
) -> None:
    """Each reason not to try again is counted by its name, and reserves nothing."""
    engine = make(1.0, 2.0, resilience=resilience)
    first = engine.decide(context, 0.0)
    assert engine.again([first], 0.0) is None
    assert refusals(engine) == {why: 1}
    assert [target.in_flight for target in engine.snapshot(0.0)] == [1, 0]


def test_a_retry_that_finds_nobody_costs_nothing() -> None:
    """Where no target is left that is loaded and has room, the budget stays as it was."""
    engine = make(1.0, 2.0, resilience=Resilience(caps={"t1": 1}))
    first = engine.decide(REQUEST, 0.0)
    before = engine.retry_counts(0.0)["left"]
    engine.mark("t1", "not loaded", 0.0, 10.0)
    assert engine.again([first], 0.0) is None
    engine.mark("t1", "", 0.0, 10.0)
    holder = engine.decide(RoutingContext(1, 10.0, pinned="t1"), 0.0)
    assert engine.again([first], 0.0) is None
    assert engine.retry_counts(0.0) == {"left": pytest.approx(before + 0.2), "no_target": 2}
    engine.finish(holder, ANSWER, 0.0)
    assert engine.again([first], 0.0) is not None


def test_the_last_resort_is_a_target_that_is_out() -> None:
    """A request that has failed elsewhere tries even one that failed, before its client hears of it."""
    engine = make(1.0, 5.0)
    for _ in range(3):
        engine.finish(engine.decide(REQUEST, 0.0), FAILURE, 0.0)
    first = engine.decide(REQUEST, 0.1)
    assert first.target.name == "t1"
    engine.finish(first, FAILURE, 0.1)
    last = engine.again([first], 0.1)
    assert last is not None
    engine.finish(last, ANSWER, 0.2)
    assert engine.snapshot(0.2)[0].stage == "returning"


def test_an_outage_of_everything_does_not_multiply_the_load() -> None:
    """With all targets failing, attempts are the requests, the budget's share of them, and the burst."""
    engine = make(1.0, 1.0, 1.0)
    attempts, requests = 0, 5000
    for step in range(requests):
        now = step * 2e-3
        tried = [engine.decide(REQUEST, now)]
        while decision := engine.again(tried, now):
            tried.append(decision)
        for decision in tried:
            engine.finish(decision, FAILURE, now)
        attempts += len(tried)
    assert requests * 1.1 <= attempts <= requests * 1.2 + 10 * (1 + requests * 2e-3 / 10)


def test_an_attempt_that_is_given_up_counts_at_once_and_once() -> None:
    """It is the target's failure when it is given up; whatever comes later releases its slot and says nothing more."""
    engine = make(1.0, 50.0)
    hanging = [engine.decide(REQUEST, 0.0) for _ in range(3)]
    for decision in hanging:
        engine.give_up(decision, 1.0)
        engine.give_up(decision, 1.0)
    first = engine.snapshot(1.0)[0]
    assert (first.stage, first.failed, first.in_flight) == ("out", 3, 3)
    for decision, outcome in zip(hanging, (ANSWER, FAILURE, LEFT), strict=True):
        engine.finish(decision, outcome, 1.5)
    last = engine.snapshot(1.5)[0]
    assert (last.stage, last.failed, last.succeeded, last.cancelled, last.in_flight) == ("out", 3, 0, 0, 0)


def test_a_target_on_trial_whose_request_is_given_up_is_tried_again_after_its_pause() -> None:
    """A hanging trial is a failure like another, although its slot is never released."""
    engine = make(1.0, 5.0)
    for _ in range(3):
        engine.finish(engine.decide(REQUEST, 0.0), FAILURE, 0.0)
    hanging = engine.decide(REQUEST, 1.1)
    assert hanging.is_trial
    engine.give_up(hanging, 2.0)
    assert engine.snapshot(2.1)[0].stage == "out"
    assert engine.decide(REQUEST, 4.1).target.name == "t0"


def test_answers_that_come_late_are_learned_so_that_a_slow_target_is_not_given_up_for_ever() -> None:
    """Once what it takes is known, an attempt is overdue only after ten times that."""
    engine = make(1.0)
    before = engine.overdue_ms(engine.decide(REQUEST, 0.0))
    for step in range(60):
        decision = engine.decide(REQUEST, step * 10.0)
        engine.give_up(decision, step * 10.0 + 1.0)
        engine.finish(decision, Outcome(Verdict.SUCCESS, 5000.0), step * 10.0 + 5.0)
    after = engine.overdue_ms(engine.decide(REQUEST, 700.0))
    assert (before, after > 20_000.0) == (1000.0, True)


def test_an_attempt_is_overdue_when_the_settings_say_so_and_else_by_what_was_expected() -> None:
    """Set, the bound is that; by itself it is ten times the worst that is expected, a second at least."""
    fixed = make(1.0, resilience=Resilience(overdue_ms=123.0))
    assert fixed.overdue_ms(fixed.decide(REQUEST, 0.0)) == 123.0
    slow = make(400.0)
    assert 4000.0 < slow.overdue_ms(slow.decide(REQUEST, 0.0)) <= 40_000.0
    unknown = RoutingEngine([(Target("t", "m"), TargetProfile())], policy_named("latency"), rng=lambda: 0.5)
    assert unknown.overdue_ms(unknown.decide(REQUEST, 0.0)) == 60_000.0


def test_a_request_is_hedged_after_what_it_takes_with_the_probability_asked_for() -> None:
    """The delay is the quantile of what was learned: one request in twenty is hedged at 0.95."""
    engine = make(10.0, 30.0, resilience=HEDGING)
    rng = random.Random(8)
    late = 0
    for step in range(1200):
        decision = engine.decide(REQUEST, float(step))
        took = 10.0 * rng.lognormvariate(0.0, 0.3)
        late += step >= 200 and took > engine.hedge_after_ms(decision)
        engine.finish(decision, Outcome(Verdict.SUCCESS, took), float(step))
    assert 25 <= late <= 90


@pytest.mark.parametrize("resilience", [Resilience(), Resilience(idempotent=False, hedge_share=0.5)])
def test_nothing_is_hedged_unless_it_is_asked_for_and_allowed(resilience: Resilience) -> None:
    """Without a share, or where a request must run only once, the delay is 0: never; nor is a hedge granted."""
    engine = make(1.0, 2.0, resilience=resilience)
    decision = engine.decide(REQUEST, 0.0)
    assert engine.hedge_after_ms(decision) == 0.0
    assert engine.again([decision], 0.0, hedge=True) is None


def test_where_there_is_one_target_or_a_sequence_nothing_is_hedged() -> None:
    """A hedge needs somewhere else to go."""
    alone = make(1.0, resilience=HEDGING)
    assert alone.hedge_after_ms(alone.decide(REQUEST, 0.0)) == 0.0
    two = make(1.0, 2.0, resilience=HEDGING)
    assert two.hedge_after_ms(two.decide(RoutingContext(1, 10.0, pinned="t0"), 0.0)) == 0.0


def test_hedges_are_no_more_than_their_share() -> None:
    """However often hedges are asked for, one request in twenty gets one, and they are told from retries."""
    engine = make(1.0, 1.5, resilience=HEDGING)
    for step in range(2000):
        first = engine.decide(REQUEST, step * 1e-3)
        second = engine.again([first], step * 1e-3, hedge=True)
        for decision in (first, second):
            if decision is not None:
                engine.finish(decision, LEFT, step * 1e-3)
    assert 95 <= sum(target.hedged for target in engine.snapshot(2.0)) <= 100
    assert sum(target.retried for target in engine.snapshot(2.0)) == 0
    assert refusals(engine)["hedge_share"] >= 1900


def test_a_full_target_gets_no_more_and_when_all_are_full_the_request_waits() -> None:
    """A cap gives way to nothing: beyond it another target serves, and beyond them all nobody."""
    engine = make(1.0, 5.0, resilience=Resilience(caps={"t0": 2, "t1": 1}))
    held = [engine.decide(REQUEST, 0.0) for _ in range(3)]
    assert Counter(decision.target.name for decision in held) == {"t0": 2, "t1": 1}
    assert held[2].rejections[0].reason == "has the 2 requests in flight that it may have"
    with pytest.raises(AllFullError, match="t0: has the 2 requests in flight that it may have; t1: has the 1"):
        engine.decide(REQUEST, 0.0)
    assert engine.explain(REQUEST, 0.0).reason == "full"
    engine.finish(held[0], ANSWER, 0.0)
    assert engine.decide(REQUEST, 0.0).target.name == "t0"


def test_the_only_target_has_a_cap_as_well() -> None:
    """Where there is nothing to choose, a request beyond the cap waits all the same."""
    engine = make(1.0, resilience=Resilience(caps={"t0": 1}))
    engine.decide(REQUEST, 0.0)
    with pytest.raises(AllFullError):
        engine.decide(REQUEST, 0.0)


def test_a_request_waits_for_room_rather_than_going_where_others_failed() -> None:
    """With the well target full, one that is out does not serve instead."""
    engine = make(1.0, 5.0, resilience=Resilience(caps={"t1": 1}))
    for _ in range(3):
        engine.finish(engine.decide(REQUEST, 0.0), FAILURE, 0.0)
    engine.decide(REQUEST, 0.1)
    with pytest.raises(AllFullError):
        engine.decide(REQUEST, 0.1)


def test_requests_of_an_experiment_are_tried_again_by_their_arms_policy() -> None:
    """A retry is rated as its first attempt was, though another policy is in force."""
    split = Split("x", policy_named("latency"), policy_named("cost"), 1.0)
    targets = [
        (Target(name, "m", price_per_hour=price), TargetProfile([(1, ms), (100, ms)]))
        for name, price, ms in (("a", 1.0, 9.0), ("b", 2.0, 9.0), ("c", 90.0, 1.0))
    ]
    engine = SplittingEngine(
        targets, (policy_named("latency"), RoutingRules()), Trials(split), "m", rng=random.Random(1).random
    )
    first = engine.decide(REQUEST, 0.0)
    second = engine.again([first], 0.0)
    assert second is not None
    assert [(d.target.name, d.policy) for d in (first, second)] == [("a", "cost"), ("b", "cost")]


def test_settings_that_change_hold_from_then_on() -> None:
    """After a reload a retry that was not allowed is, and a cap that was there is gone."""
    engine = make(1.0, 2.0, resilience=Resilience(attempts=1, caps={"t0": 1}))
    first = engine.decide(REQUEST, 0.0)
    assert engine.again([first], 0.0) is None
    engine.reconfigure(policy_named("latency"), RoutingRules(resilience=Resilience()))
    assert engine.again([first], 0.0) is not None
    assert engine.decide(REQUEST, 0.0).target.name == "t0"


def test_an_explanation_names_who_is_out_and_where_the_request_would_go_next() -> None:
    """Why a target is left out is said in the words of its health, and the order of the others is that of retries."""
    engine = make(1.0, 9.0, 3.0, 5.0)
    engine.mark("t0", "model is not loaded", 0.0, 10.0)
    for _ in range(3):
        engine.finish(engine.decide(REQUEST, 0.0), FAILURE, 0.0)
    explanation = engine.explain(REQUEST, 0.1)
    assert explanation.chosen is not None
    assert (explanation.chosen.name, [target.name for target in explanation.fallbacks]) == ("t3", ["t1"])
    assert [one.rejected for one in explanation.targets] == [
        "model is not loaded",
        "",
        "resting after consecutive failures",
        "",
    ]


def test_a_retry_goes_rather_where_the_last_answer_was_no_failure() -> None:
    """A target that has begun to fail is no place for a request that failed already, though it is faster."""
    engine = make(1.0, 2.0, 9.0)
    failing = engine.decide(RoutingContext(1, 10.0, pinned="t1"), 0.0)
    engine.finish(failing, FAILURE, 0.0)
    first = engine.decide(REQUEST, 0.0)
    second = engine.again([first], 0.0)
    assert second is not None
    assert (first.target.name, second.target.name) == ("t0", "t2")
    third = engine.again([first, second], 0.0)
    assert third is not None
    assert third.target.name == "t1"
