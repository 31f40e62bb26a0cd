"""What sends a target out, how it returns, and who serves meanwhile."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from triton_router.profiling.profile import TargetProfile
from triton_router.routing.engine import RoutingEngine
from triton_router.routing.policies import policy_named
from triton_router.routing.resilience import HealthRules, Resilience
from triton_router.routing.rules import RoutingRules
from triton_router.routing.types import Outcome, RoutingContext, Target, Verdict

if TYPE_CHECKING:
    from triton_router.routing.snapshot import TargetSnapshot
    from triton_router.routing.types import RoutingDecision

REQUEST = RoutingContext(1, 10.0)
FAILURE = Outcome(Verdict.TARGET_ERROR, 0.1)
LEFT = Outcome(Verdict.CANCELLED, 0.1)
WRONG = Outcome(Verdict.CLIENT_ERROR, 0.1)


def make(
    *speeds: float, policy: str = "latency", resilience: Resilience | None = None, mirror: float = 0.0
) -> RoutingEngine:
    """Targets t0, t1, ... that take so many milliseconds whatever the work."""
    return RoutingEngine(
        [(Target(f"t{i}", "m"), TargetProfile([(1, ms), (100, ms)])) for i, ms in enumerate(speeds)],
        policy_named(policy),
        rules=RoutingRules(resilience=resilience or Resilience(), mirror=mirror),
        rng=random.Random(5).random,
    )


def ends(engine: RoutingEngine, outcome: Outcome, now: float, context: RoutingContext = REQUEST) -> RoutingDecision:
    decision = engine.decide(context, now)
    engine.finish(decision, outcome, now)
    return decision


def answer(ms: float) -> Outcome:
    return Outcome(Verdict.SUCCESS, ms)


def target(engine: RoutingEngine, name: str, now: float) -> TargetSnapshot:
    return next(one for one in engine.snapshot(now) if one.target.name == name)


def sent_out(*speeds: float, resilience: Resilience | None = None, mirror: float = 0.0) -> RoutingEngine:
    """An engine whose fastest target, t0, has just gone out for failing, at 0 s."""
    engine = make(*speeds, resilience=resilience, mirror=mirror)
    for _ in range(3):
        ends(engine, FAILURE, 0.0)
    assert target(engine, "t0", 0.0).stage == "out"
    return engine


def test_a_target_goes_out_and_all_the_way_back() -> None:
    """Well, out, on trial, returning, well: each is seen, and both ways and the time away are counted."""
    engine = sent_out(1.0, 5.0)
    out = target(engine, "t0", 0.5)
    assert (out.stage, out.why, out.ejections) == ("out", "after consecutive failures", {"failures": 1})
    assert target(engine, "t0", 1.1).stage == "trial"
    assert ends(engine, answer(1.0), 2.0).target.name == "t0"
    assert target(engine, "t0", 2.1).stage == "returning"
    back = target(engine, "t0", 7.1)
    assert (back.stage, back.why, back.returns, back.seconds_out) == ("well", "", 1, 2.0)


def test_a_trial_that_is_never_heard_of_does_not_keep_the_target_out() -> None:
    """A request that hangs at a target on trial is waited for, but not for ever."""
    engine = sent_out(1.0, 5.0)
    assert engine.decide(REQUEST, 2.0).target.name == "t0"
    assert ends(engine, answer(5.0), 31.9).target.name == "t1"
    assert ends(engine, answer(1.0), 32.1).target.name == "t0"


@pytest.mark.parametrize("outcome", [LEFT, WRONG])
def test_a_trial_that_says_nothing_is_followed_by_another(outcome: Outcome) -> None:
    """When the client left, or was wrong, the next request finds out."""
    engine = sent_out(1.0, 5.0)
    assert ends(engine, outcome, 2.0).target.name == "t0"
    assert target(engine, "t0", 2.0).stage == "trial"
    assert ends(engine, answer(1.0), 2.0).target.name == "t0"
    assert target(engine, "t0", 2.0).stage == "returning"


def test_answers_that_were_under_way_do_not_bring_a_target_back() -> None:
    """Only a request that was sent after the target went out says that it is well again."""
    engine = make(1.0, 5.0)
    early = [engine.decide(REQUEST, 0.0) for _ in range(4)]
    for decision in early[:3]:
        engine.finish(decision, FAILURE, 0.0)
    assert early[3].target.name == "t0"
    engine.finish(early[3], answer(1.0), 0.1)
    assert target(engine, "t0", 0.2).stage == "out"


def test_a_returning_target_carries_a_growing_part() -> None:
    """Just back it gets one request at a time beside the others; halfway half of what is in flight; then no bound."""
    engine = sent_out(1.0, 5.0)
    ends(engine, answer(1.0), 2.0)
    early = [engine.decide(REQUEST, 2.0).target.name for _ in range(10)]
    assert early.count("t0") == 1
    assert engine.decide(REQUEST, 2.0).rejections[0].reason == "returning, and carrying its part already"
    halfway = [engine.decide(REQUEST, 4.5).target.name for _ in range(30)]
    assert 10 <= halfway.count("t0") <= 25
    assert {engine.decide(REQUEST, 7.1).target.name for _ in range(20)} == {"t0"}


def test_a_returning_target_takes_more_than_its_part_before_one_that_fails() -> None:
    """With nobody else well, a slow start gives way rather than one's being out."""
    engine = make(1.0, 5.0)
    engine.mark("t1", "not loaded", 0.0, 100.0)
    for _ in range(3):
        ends(engine, FAILURE, 0.0)
    ends(engine, answer(1.0), 2.0)
    assert {engine.decide(REQUEST, 2.0).target.name for _ in range(5)} == {"t0"}


def test_a_pause_is_forgotten_only_when_the_target_has_stayed_well() -> None:
    """Failing again soon after its return, it is out for twice as long; after a good while, as at first."""
    engine = sent_out(1.0, 5.0)
    ends(engine, answer(1.0), 1.1)
    for _ in range(3):
        ends(engine, FAILURE, 2.0)
    assert target(engine, "t0", 3.4).stage == "out"  # 2 s, less a quarter at most
    ends(engine, answer(1.0), 4.1)
    for _ in range(3):
        ends(engine, FAILURE, 60.0)
    assert target(engine, "t0", 61.1).stage == "trial"


def flaky(engine: RoutingEngine, name: str, requests: int) -> int:
    """Send requests, 5 ms apart, of which every third at one target fails; return how many it got."""
    got = 0
    for step in range(requests):
        decision = engine.decide(REQUEST, step * 5e-3)
        hit = decision.target.name == name
        got += hit
        engine.finish(decision, FAILURE if hit and got % 3 == 0 else answer(1.0), step * 5e-3)
    return got


def test_a_target_that_fails_now_and_then_is_sent_out() -> None:
    """One failure in three, never two in a row, is seen after some twenty requests, and again at each return."""
    engine = make(1.0, 1.2)
    got = flaky(engine, "t0", 4000)
    seen = target(engine, "t0", 20.0)
    assert seen.ejections["failure_rate"] >= 3
    assert seen.ejections.get("failures", 0) == 0
    assert got < 100


def test_a_target_that_fails_no_more_than_its_peers_stays() -> None:
    """Where everything fails one request in three, nobody is sent out for it."""
    engine = make(1.0, 1.0, policy="least-request")
    asked = Counter[str]()
    for step in range(600):
        decision = engine.decide(REQUEST, step * 5e-3)
        asked[decision.target.name] += 1
        engine.finish(decision, FAILURE if asked[decision.target.name] % 3 == 0 else answer(1.0), step * 5e-3)
    assert not any(one.ejections for one in engine.snapshot(3.0))


def test_a_single_target_is_not_sent_out_for_its_failure_rate() -> None:
    """Where there is no other, failing now and then is better than nothing, and nothing is said of it."""
    engine = make(1.0)
    flaky(engine, "t0", 300)
    assert not target(engine, "t0", 2.0).ejections


def run_slow(engine: RoutingEngine, slow: set[str], now: float, requests: int = 40) -> float:
    """Serve requests one after another, those of some targets ten times as slow as usual."""
    for _ in range(requests):
        decision = engine.decide(REQUEST, now)
        ms = 20.0 if decision.target.name in slow else 2.0
        now += ms / 1e3
        engine.finish(decision, answer(ms), now)
    return now


@pytest.mark.parametrize("policy", ["latency", "random"])
def test_a_target_that_becomes_slow_by_itself_is_sent_out(policy: str) -> None:
    """After a few answers ten times as slow as expected a target rests; then its new speed is what is expected."""
    engine = make(2.0, 2.2, policy=policy)
    now = run_slow(engine, set(), 0.0, 100)
    now = run_slow(engine, {"t0"}, now)
    seen = target(engine, "t0", now)
    assert seen.ejections == {"slow": 1}
    assert seen.why == "after answers that took 10 times as long as expected"
    now = run_slow(engine, {"t0"}, now + 40.0, 400)
    assert target(engine, "t0", now).ejections == {"slow": 1}


def test_where_all_are_slow_nobody_is_sent_out() -> None:
    """A machine that is slow as a whole has no outlier."""
    engine = make(2.0, 2.0, policy="least-request")
    now = run_slow(engine, set(), 0.0, 100)
    now = run_slow(engine, {"t0", "t1"}, now, 100)
    assert not any(one.ejections for one in engine.snapshot(now))


def test_a_slow_target_stays_where_the_others_are_slower_still() -> None:
    """Ten times as slow as usual is no reason where everybody else would take longer."""
    engine = make(2.0, 500.0)
    now = run_slow(engine, set(), 0.0, 100)
    now = run_slow(engine, {"t0"}, now)
    assert not target(engine, "t0", now).ejections


def test_one_stall_is_no_run() -> None:
    """However many requests were under way when a target stalled for a moment, it stays."""
    engine = make(2.0, 2.2)
    now = run_slow(engine, set(), 0.0, 100)
    stalled = [engine.decide(REQUEST, now) for _ in range(16)]
    for decision in stalled:
        engine.finish(decision, answer(50.0), now + 0.05)
    assert not any(one.ejections for one in engine.snapshot(now + 0.05))


def test_what_a_check_finds_counts_until_it_finds_otherwise_or_is_not_repeated() -> None:
    """A problem keeps a target out, with its words; the next check, or none for its validity, lets it return."""
    engine = make(1.0, 5.0)
    engine.mark("t0", "not loaded", 0.0, 2.0)
    decision = ends(engine, answer(5.0), 1.0)
    assert (decision.target.name, decision.rejections[0].reason) == ("t1", "not loaded")
    assert target(engine, "t0", 1.0).ejections == {"check": 1}
    engine.mark("t0", "not loaded", 1.5, 2.0)
    assert ends(engine, answer(5.0), 3.0).target.name == "t1"
    assert ends(engine, answer(1.0), 3.6).target.name == "t0"
    assert target(engine, "t0", 3.6).returns == 1
    engine.mark("t0", "stub died", 10.0, 1e9)
    engine.mark("t0", "", 11.0, 1e9)
    assert ends(engine, answer(1.0), 11.0).target.name == "t0"


def test_a_check_that_finds_a_target_well_again_ends_its_pause() -> None:
    """What failed because it was not loaded is tried as soon as it is."""
    engine = sent_out(1.0, 5.0)
    engine.mark("t0", "stub died", 0.1, 5.0)
    engine.mark("t0", "", 0.3, 5.0)
    assert ends(engine, answer(1.0), 0.3).target.name == "t0"


def test_a_check_that_found_nothing_before_ends_no_pause() -> None:
    """A target that is loaded and fails stays out although every check finds it loaded."""
    engine = sent_out(1.0, 5.0)
    engine.mark("t0", "", 0.1, 5.0)
    assert ends(engine, answer(5.0), 0.3).target.name == "t1"


def test_where_all_fail_those_that_are_loaded_are_tried() -> None:
    """In a panic, targets that a check found unable to serve remain out, unless nothing else is left."""
    engine = make(1.0, 5.0)
    engine.mark("t0", "not loaded", 0.0, 100.0)
    for _ in range(3):
        ends(engine, FAILURE, 0.0)
    panicking = ends(engine, FAILURE, 0.1)
    assert (panicking.target.name, panicking.reason) == ("t1", "panic")
    engine.mark("t1", "not loaded", 0.0, 100.0)
    assert ends(engine, FAILURE, 0.2).reason == "panic"


def test_where_most_are_out_they_are_tried_sooner_as_far_as_retries_can_save_it() -> None:
    """With two of three out, each is tried about once a second although its pause is long; and no more than that."""
    engine = make(1.0, 1.1, 5.0)
    now, tries = 0.0, list[float]()
    while now < 60.0:
        decision = engine.decide(REQUEST, now)
        fails = decision.target.name != "t2"
        if fails and now > 40.0:
            tries.append(now)
        engine.finish(decision, FAILURE if fails else answer(5.0), now + 5e-3)
        now += 0.02
    assert 30 <= len(tries) <= 45
    unsaved = make(1.0, 1.1, 5.0, resilience=Resilience(attempts=1))
    failed, now = 0, 0.0
    while now < 60.0:
        decision = unsaved.decide(REQUEST, now)
        fails = decision.target.name != "t2"
        failed += fails and now > 40.0
        unsaved.finish(decision, FAILURE if fails else answer(5.0), now + 5e-3)
        now += 0.02
    assert failed <= 4


def test_a_target_is_not_tried_when_no_retry_would_save_it_but_in_the_end_it_is() -> None:
    """With the retry budget spent, trials wait; not for ever, though."""
    engine = sent_out(1.0, 5.0, resilience=Resilience(retry_share=0.0, retry_burst=4))
    while retried := engine.again([ends(engine, answer(5.0), 0.5)], 0.5):
        engine.finish(retried, LEFT, 0.5)
    waiting = ends(engine, answer(5.0), 1.1)
    assert waiting.target.name == "t1"
    assert waiting.rejections[0].reason == "on probation, and no retry is left that would save a try"
    assert ends(engine, answer(1.0), 12.0).target.name == "t0"


def test_a_copy_finds_out_about_a_target_that_nothing_would_choose() -> None:
    """A slower target that went out comes back by a copy that nobody waits for."""
    engine = make(1.0, 1.2, mirror=0.1)
    engine.mark("t0", "not loaded", 0.0, 1.0)
    for _ in range(3):
        ends(engine, FAILURE, 0.0)
    now = 2.0
    for step in range(200):
        now = 2.0 + step * 1e-2
        decision = engine.decide(REQUEST, now)
        assert decision.target.name == "t0"
        copy = engine.mirror(decision)
        engine.finish(decision, answer(1.0), now)
        if copy is not None:
            engine.finish(copy, answer(1.2), now)
    assert target(engine, "t1", now).returns == 1


def test_switched_off_nothing_sends_a_target_out() -> None:
    """With every cause off, a target that only fails is asked as before."""
    off = HealthRules(consecutive_failures=0, failure_rate=1.0, slow_factor=0.0)
    engine = make(1.0, 5.0, resilience=Resilience(health=off))
    assert {ends(engine, FAILURE, 0.0).target.name for _ in range(100)} == {"t0"}


def test_without_a_slow_start_a_target_is_back_at_once() -> None:
    """With ``slow_start_s`` 0 it carries everything after its first answer."""
    engine = sent_out(1.0, 5.0, resilience=Resilience(health=HealthRules(slow_start_s=0.0)))
    ends(engine, answer(1.0), 2.0)
    assert target(engine, "t0", 2.0).stage == "well"
    assert {engine.decide(REQUEST, 2.0).target.name for _ in range(5)} == {"t0"}


def test_where_most_are_out_those_that_are_merely_slow_serve_again() -> None:
    """With two of three out, one for failing and one for being slow, requests go to the slow one too."""
    patient = HealthRules(first_pause_s=20.0, longest_pause_s=20.0)
    engine = make(2.0, 2.0, 40.0, policy="least-request", resilience=Resilience(attempts=1, health=patient))
    now = run_slow(engine, set(), 0.0, 150)
    now = run_slow(engine, {"t0"}, now, 30)
    assert target(engine, "t0", now).ejections == {"slow": 1}
    for _ in range(3):
        engine.finish(engine.decide(RoutingContext(1, 10.0, pinned="t1"), now), FAILURE, now)
    assert target(engine, "t1", now).stage == "out"
    held = [engine.decide(REQUEST, now) for _ in range(4)]
    assert {decision.target.name for decision in held} == {"t0", "t2"}
    assert held[0].reason == "panic"
