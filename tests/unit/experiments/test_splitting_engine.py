"""The engine that knows an experiment and a rollout: who is assigned, what counts as evidence, what follows from it."""

from __future__ import annotations

import random
from dataclasses import replace

from triton_router.experiments.gate import Gate
from triton_router.experiments.rollout_plan import RolloutPlan, Transition
from triton_router.experiments.split import Assignment, Split
from triton_router.experiments.splitting_engine import SplittingEngine, Trials
from triton_router.profiling.profile import TargetProfile
from triton_router.routing.policies import policy_named
from triton_router.routing.rules import RoutingRules
from triton_router.routing.types import Outcome, RoutingContext, RoutingDecision, Target, Verdict

SUCCESS = Outcome(Verdict.SUCCESS, 4.0)
FAILURE = Outcome(Verdict.TARGET_ERROR, 4.0)
GATE = Gate(min_requests=5, max_mismatch=1.0)
PLAN = RolloutPlan("v2", frozenset({"c"}), steps=(0.1, 0.5, 1.0), hold_s=10.0, gate=GATE)
SPLIT = Split("policies", policy_named("latency"), policy_named("cost"), 0.5)


def make(trials: Trials) -> SplittingEngine:
    """Return an engine of a and b, which are stable, and c, the fastest and the canary."""
    targets = [(Target(name, name), TargetProfile([(1, ms), (100, ms)])) for name, ms in (("a", 8), ("b", 4), ("c", 1))]
    rules = RoutingRules(explore=0.0, mirror=0.0)
    engine = SplittingEngine(targets, (policy_named("latency"), rules), trials, "m", rng=random.Random(5).random)
    engine.step(1000.0)
    return engine


def serve(engine: SplittingEngine, key: str = "", pinned: str = "") -> RoutingDecision:
    """Decide and finish a request."""
    decision = engine.decide(RoutingContext(1, 10, pinned, key=key), 0.0)
    engine.finish(decision, SUCCESS, 0.0)
    return decision


def arms(engine: SplittingEngine) -> tuple[int, int]:
    """Return how many answers the canary and stable have given, as the rollout counts."""
    report = engine.rollout_report(1000.0)
    assert report is not None
    counted = report["arms"]
    assert isinstance(counted, dict)
    return counted["canary"]["answers"], counted["stable"]["answers"]


def test_the_canary_gets_its_share_by_key() -> None:
    """A tenth of the callers, always the same ones; half of them later, the first tenth included."""
    engine = make(Trials(plan=PLAN))
    first = {key for key in map(str, range(2000)) if serve(engine, key).target.name == "c"}
    assert 140 < len(first) < 260
    assert first == {key for key in map(str, range(2000)) if serve(engine, key).target.name == "c"}
    engine.follow(Trials(plan=replace(PLAN, weight=0.5)), 1001.0)
    second = {key for key in map(str, range(2000)) if serve(engine, key).target.name == "c"}
    assert first < second
    assert 900 < len(second) < 1100


def test_requests_without_keys_are_assigned_one_by_one() -> None:
    """They are numbered: a tenth of them goes to the canary, and an explanation says it of the next one."""
    engine = make(Trials(plan=PLAN))
    told: list[bool] = []
    for _ in range(600):
        explanation = engine.explain(RoutingContext(1, 10), 0.0)
        decision = serve(engine)
        assert explanation.chosen == decision.target
        assert list(explanation.arms) == decision.arms
        told.append(decision.target.name == "c")
    assert 30 < sum(told) < 95


def test_first_attempts_of_assigned_requests_are_evidence() -> None:
    """Retries, copies, what follows in a sequence, and requests of a model with one arm out, are none."""
    engine = make(Trials(plan=replace(PLAN, weight=0.5)))
    for number in range(40):
        serve(engine, str(number))
    engine.step(1001.0)
    seen = arms(engine)
    assert sum(seen) == 40
    assert min(seen) > 5
    first = engine.decide(RoutingContext(1, 10, key="1"), 0.0)
    retry = engine.again([first], 0.0)
    copy = engine.copy(first, "a", 0.0)
    assert retry is not None
    assert copy is not None
    for decision in (retry, copy):
        engine.finish(decision, FAILURE, 0.0)
    serve(engine, pinned="c")
    engine.mark("c", "model is not loaded", 0.0, 10.0)
    for number in range(40):
        assert serve(engine, str(number)).arms == []
    engine.step(1002.0)
    assert arms(engine) == seen
    assert [engine.counted[name].answers for name in ("canary", "stable")] == list(seen)


def test_a_canary_that_fails_is_rolled_back_and_gets_nothing_any_more() -> None:
    """Not even when every stable target is out: it is barred until the rollout has another id."""
    engine = make(Trials(plan=replace(PLAN, weight=0.5)))
    changes: list[Transition] = []
    failed = 0
    for number in range(200):
        now = number / 40.0
        decision = engine.decide(RoutingContext(1, 10, key=str(number)), now)
        fails = decision.target.name == "c"
        failed += fails
        engine.finish(decision, FAILURE if fails else SUCCESS, now)
        changes += engine.step(1001.0 + now)
    assert [change.event for change in changes] == ["rollback"]
    assert failed < 20
    assert not engine.wants_keys
    for name in ("a", "b"):
        engine.mark(name, "model is not loaded", 0.0, 10.0)
    decision = serve(engine)
    assert (decision.target.name, decision.reason) == ("b", "panic")
    assert decision.rejections[0].reason == "rollout v2 rolled it back"
    engine.follow(Trials(plan=replace(PLAN, id="v3", weight=1.0)), 2000.0)
    engine.step(2000.0)
    assert serve(engine).target.name == "c"


def test_a_canary_without_a_share_gets_nothing() -> None:
    """A weight of 0 is nothing, whatever happens to the others."""
    engine = make(Trials(plan=replace(PLAN, weight=0.0)))
    engine.mark("a", "model is not loaded", 0.0, 10.0)
    engine.mark("b", "model is not loaded", 0.0, 10.0)
    assert serve(engine).target.name == "b"


def test_a_promoted_canary_serves_all_and_is_tried_first() -> None:
    """Everybody gets it, and nothing is assigned any more."""
    engine = make(Trials(plan=replace(PLAN, outcome="promote")))
    assert not engine.wants_keys
    assert {serve(engine, str(number)).target.name for number in range(50)} == {"c"}


def test_a_canary_that_does_well_is_promoted() -> None:
    """Step by step, each for its time and with enough answers."""
    engine = make(Trials(plan=PLAN))
    events: list[str] = []
    for number in range(900):
        serve(engine, str(number))
        events += [f"{change.event} {change.after:g}" for change in engine.step(1000.0 + number / 20)]
    assert events == ["step 0.5", "step 0.98", "promote 1"]


def test_an_experiment_counts_by_arm_and_goes_on_through_a_change_of_its_fraction() -> None:
    """Requests with a goal of their own are decided by that, and count for nobody; another policy begins anew."""
    engine = make(Trials(SPLIT))
    assert engine.wants_keys
    for number in range(100):
        serve(engine, str(number))

    def answers() -> list[int]:
        report = engine.experiment_report(1000.0)
        assert report is not None
        found = report["arms"]
        assert isinstance(found, dict)
        return [found[arm]["answers"] for arm in ("control", "treatment")]

    assert sum(answers()) == 100
    assert min(answers()) > 30
    engine.follow(Trials(replace(SPLIT, fraction=0.0)), 1001.0)
    before = answers()
    serve(engine, "7")
    assert answers() == [before[0] + 1, before[1]]
    engine.follow(Trials(replace(SPLIT, treatment=policy_named("power"))), 1002.0)
    assert answers() == [0, 0]
    engine.follow(Trials(replace(SPLIT, assignment=Assignment.MODEL)), 1003.0)
    assert not engine.wants_keys
    engine.follow(Trials(), 1004.0)
    assert engine.experiment_report(1004.0) is None


def test_an_experiment_and_a_rollout_are_independent() -> None:
    """A request is in one arm of each, and both are told."""
    engine = make(Trials(SPLIT, replace(PLAN, weight=0.5)))
    both = {tuple(serve(engine, str(n)).arms) for n in range(100)}
    assert len(both) == 4


def test_a_state_is_taken_up_where_it_was_left() -> None:
    """Share, phase and evidence of a rollout go to the next process; so does an experiment's evidence."""
    engine = make(Trials(SPLIT, replace(PLAN, weight=0.5)))
    for number in range(100):
        serve(engine, str(number))
    rollout, experiment = engine.rollout_state(), engine.experiment_state()
    other = make(Trials(SPLIT, replace(PLAN, weight=0.5)))
    other.resume(rollout=rollout, experiment=experiment)
    other.step(1000.0)
    engine.step(1000.0)
    assert arms(other) == arms(engine) != (0, 0)
    assert other.experiment_state() == experiment


def test_a_shadow_gets_no_request() -> None:
    """It is barred while it is the shadow, and serves when it is not any more."""
    engine = make(Trials(shadow="c"))
    assert serve(engine).target.name == "b"
    engine.follow(Trials(), 1001.0)
    engine.reconfigure(policy_named("latency"), RoutingRules(explore=0.0, mirror=0.0))
    assert serve(engine).target.name == "c"


class Peer(dict[str, object]):
    """Evidence of another instance that notes whether requests had to wait while it was read."""

    def __init__(self, engine: SplittingEngine, evidence: dict[str, object]) -> None:
        super().__init__(evidence)
        self._engine = engine
        self.waited: set[bool] = set()

    def __getitem__(self, key: str) -> object:
        self.waited.add(self._engine._lock.locked())
        return super().__getitem__(key)


def test_requests_are_decided_while_the_evidence_of_others_is_read() -> None:
    """For a report as for a step: files of many instances take milliseconds."""
    engine, other = (make(Trials(SPLIT, PLAN)) for _ in range(2))
    for number in range(100):
        serve(other, str(number))
    experiment, rollout = other.experiment_state(), other.rollout_state()
    assert experiment is not None
    assert rollout is not None
    peers = Peer(engine, experiment), Peer(engine, rollout)
    engine.step(1001.0, [peers[1]])
    report = engine.experiment_report(1001.0, [peers[0]])
    assert [peer.waited for peer in peers] == [{False}, {False}]
    assert report is not None
    found = report["arms"]
    assert isinstance(found, dict)
    assert sum(arm["answers"] for arm in found.values()) == 100
