"""Arms restrict a choice, give way, and bar nobody; roles do."""

from __future__ import annotations

import random
from math import isnan, log

import pytest

from triton_router.profiling.profile import TargetProfile
from triton_router.routing.arms import Arm, Roles
from triton_router.routing.engine import RoutingEngine
from triton_router.routing.policies import policy_named
from triton_router.routing.rules import RoutingRules
from triton_router.routing.types import Outcome, RoutingContext, RoutingDecision, Target, Verdict

REQUEST = RoutingContext(1, 10)
SUCCESS = Outcome(Verdict.SUCCESS, 4.0)
FAILURE = Outcome(Verdict.TARGET_ERROR, 4.0)
WHY = "in the other arm of rollout v2"
CANARY = Arm(frozenset({"c"}), is_inside=True, reason=WHY)
STABLE = Arm(frozenset({"c"}), is_inside=False, reason=WHY)


class Told:
    """What a witness was told."""

    label = "x/y"

    def __init__(self) -> None:
        self.outcomes: list[tuple[Verdict, float, float]] = []

    def note(self, verdict: Verdict, latency_ms: float, log_ratio: float) -> None:
        """See `Witness`."""
        self.outcomes.append((verdict, latency_ms, log_ratio))


def make(roles: Roles = Roles(), *, explore: float = 0.0, mirror: float = 0.0) -> RoutingEngine:  # noqa: B008 - frozen
    """Return an engine of a and b, which are stable, and c, the fastest and the canary."""
    targets = [
        (Target(name, name), TargetProfile([(1, ms), (100, ms)])) for name, ms in zip("abc", (8, 4, 1), strict=True)
    ]
    rules = RoutingRules(explore=explore, mirror=mirror)
    return RoutingEngine(targets, policy_named("latency"), rng=random.Random(5).random, rules=rules, roles=roles)


def chosen(
    engine: RoutingEngine, arm: Arm | None = None, outcome: Outcome = SUCCESS, now: float = 0.0
) -> RoutingDecision:
    """Decide and finish a request."""
    decision = engine.decide(REQUEST, now, arm=arm)
    engine.finish(decision, outcome, now)
    return decision


def test_a_request_stays_in_its_arm() -> None:
    """The fastest target is not chosen by a request of the other arm, and the rejections say why."""
    engine = make(Roles(steady=STABLE))
    assert [chosen(engine).target.name for _ in range(5)] == ["b"] * 5
    decision = chosen(engine, CANARY)
    assert decision.target.name == "c"
    assert [(rejection.target.name, rejection.reason) for rejection in decision.rejections] == [("a", WHY), ("b", WHY)]
    assert CANARY.divides(decision.rejections)


def test_exploring_stays_in_the_arm() -> None:
    """However often requests explore, a stable one never tries the canary."""
    engine = make(Roles(steady=STABLE), explore=0.1)
    names = {chosen(engine).target.name for _ in range(2000)}
    assert names == {"a", "b"}


def test_an_arm_gives_way_where_nobody_of_it_is_left() -> None:
    """With the canary out its requests are served by stable targets, as if nobody had been assigned."""
    engine = make(Roles(steady=STABLE))
    engine.mark("c", "model is not loaded", 0.0, 10.0)
    decision = chosen(engine, CANARY)
    assert decision.target.name == "b"
    assert not CANARY.divides(decision.rejections)
    for name in ("a", "b"):
        engine.mark(name, "model is not loaded", 20.0, 10.0)
    last = chosen(engine, now=20.0)
    assert last.target.name == "c"
    assert not STABLE.divides(last.rejections)


def test_an_arm_of_targets_that_are_gone_is_the_steady_one() -> None:
    """A request that was assigned just before the settings changed gets no canary that it was not assigned."""
    engine = make(Roles(steady=STABLE))
    gone = Arm(frozenset({"former"}), is_inside=True, reason="in the other arm of rollout v1")
    decision = chosen(engine, gone)
    assert decision.target.name == "b"
    assert not gone.divides(decision.rejections)


def test_further_attempts_prefer_the_steady_arm() -> None:
    """A canary's failure is retried at a stable target; where none is left, the canary may help a stable one's."""
    engine = make(Roles(steady=STABLE))
    first = engine.decide(REQUEST, 0.0, arm=CANARY)
    second = engine.again([first], 0.0)
    assert second is not None
    assert second.target.name == "b"
    both = [engine.decide(REQUEST, 0.0), second]
    engine.mark("a", "model is not loaded", 0.0, 10.0)
    third = engine.again(both[:1], 0.0)
    assert third is not None
    assert third.target.name == "c"


def test_sequences_stay_where_they_are() -> None:
    """What belongs to a sequence goes to the target that holds it, whatever its arm, and if that is barred."""
    engine = make(Roles({"c": "a shadow"}, STABLE))
    pinned = engine.decide(RoutingContext(1, 10, "c"), 0.0)
    assert (pinned.target.name, pinned.reason) == ("c", "sequence")


def test_a_barred_target_gets_copies_and_nothing_else() -> None:
    """It is neither chosen, nor explored, nor tried again at; a copy reserves a slot there and counts as a copy."""
    engine = make(Roles({"c": "a shadow"}), explore=0.1, mirror=0.05)
    decisions = [chosen(engine) for _ in range(300)]
    assert {decision.target.name for decision in decisions} == {"a", "b"}
    assert decisions[0].rejections[0].reason == "a shadow"
    first = engine.decide(REQUEST, 0.0)
    assert engine.mirror(first) is None or first.target.name != "c"
    copy = engine.copy(first, "c", 0.0)
    assert copy is not None
    assert (copy.target.name, copy.reason) == ("c", "shadow")
    engine.finish(copy, SUCCESS, 0.0)
    shadow = engine.snapshot(0.0)[2]
    assert (shadow.chosen, shadow.succeeded, shadow.mirrored, shadow.in_flight) == (0, 0, 1, 0)
    assert engine.copy(first, first.target.name, 0.0) is None
    assert engine.copy(first, "unknown", 0.0) is None


def test_a_barred_target_that_fails_rests_and_comes_back() -> None:
    """Copies stop while it rests and go on after: nobody but their sender brings its health up to date."""
    engine = make(Roles({"c": "a shadow"}))
    first = engine.decide(REQUEST, 0.0)
    for _ in range(3):
        copy = engine.copy(first, "c", 0.0)
        assert copy is not None
        engine.finish(copy, FAILURE, 0.0)
    assert engine.copy(first, "c", 0.0) is None
    trial = engine.copy(first, "c", 100.0)
    assert trial is not None
    assert engine.copy(first, "c", 100.0) is None
    engine.finish(trial, SUCCESS, 100.0)
    assert engine.copy(first, "c", 100.1) is not None


def test_roles_follow_the_settings() -> None:
    """A target that was barred serves when it is not any more, and the other way round."""
    engine = make(Roles({"c": "a shadow"}))
    assert chosen(engine).target.name == "b"
    engine.reconfigure(policy_named("latency"), RoutingRules(), roles=Roles({"b": "a shadow"}))
    assert chosen(engine).target.name == "c"
    engine.reconfigure(policy_named("latency"), RoutingRules())
    assert engine.decide(REQUEST, 0.0).rejections[0].target.name == "b"


def test_witnesses_are_told_once_of_first_attempts() -> None:
    """Latencies come beside what the first stable target is expected to need; an overdue one is told as a failure."""
    engine, told = make(Roles(steady=STABLE)), Told()
    decision = engine.decide(REQUEST, 0.0, arm=CANARY)
    decision.witnesses = (told,)
    retry = engine.again([decision], 0.0)
    assert retry is not None
    engine.finish(retry, SUCCESS, 0.0)
    assert told.outcomes == []
    engine.finish(decision, SUCCESS, 0.0)
    assert told.outcomes == [(Verdict.SUCCESS, 4.0, pytest.approx(log(4.0 / 8.0), abs=0.05))]
    overdue = engine.decide(REQUEST, 0.0)
    overdue.witnesses = (told,)
    engine.give_up(overdue, 9.0)
    engine.finish(overdue, SUCCESS, 10.0)
    assert len(told.outcomes) == 2
    assert told.outcomes[1][0] is Verdict.TARGET_ERROR
    assert isnan(told.outcomes[1][2])


def test_an_explanation_is_within_the_arm() -> None:
    """What is explained is what is decided, and who is rejected for the arm is said."""
    engine = make(Roles(steady=STABLE))
    for arm in (None, CANARY):
        explanation = engine.explain(REQUEST, 0.0, arm=arm)
        assert explanation.chosen == chosen(engine, arm).target
        assert WHY in {target.rejected for target in explanation.targets}


def test_queues_are_no_fault_of_an_arm() -> None:
    """For a rollout what a request waits is no latency, and is none to judge by where it is most of it."""
    engine, judge, told = make(), Told(), Told()
    for ahead in range(3):
        behind = engine.decide(RoutingContext(1, 10, "a"), 0.0)
        behind.judges, behind.witnesses = (judge,), (told,)
        assert behind.load.here == ahead
        engine.finish(behind, Outcome(Verdict.SUCCESS, behind.expected_latency_ms), 0.0)
        engine.decide(RoutingContext(1, 10, "a"), 0.0)
    assert [outcome[2] for outcome in judge.outcomes[:2]] == [pytest.approx(0.0, abs=0.01)] * 2
    assert isnan(judge.outcomes[2][2])
    assert told.outcomes[2][2] > log(2.0), "what an experiment's policies make requests wait is theirs"
