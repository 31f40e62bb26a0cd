"""A rollout's way: steps, hands, restarts, clocks and other instances."""

from __future__ import annotations

import json
from math import log
from typing import Any

import pytest

from tests.unit.experiments.rollouts import GOOD, SHARES, Behaviour, Traffic, events, gate, plan
from triton_router.experiments.rollout import Rollout
from triton_router.routing.types import Verdict


def begun(**changes: Any) -> Rollout:
    rollout = Rollout(plan(**({"gate": gate()} | changes)))
    rollout.step(0.0)
    return rollout


def answered(rollout: Rollout, count: int = 50, others: int = 9) -> None:
    for _ in range(count):
        rollout.canary.note(Verdict.SUCCESS, 5.0, 0.0)
        for _ in range(others):
            rollout.stable.note(Verdict.SUCCESS, 5.0, 0.0)


def after(rollout: Rollout, seconds: int, start: float = 0.0) -> list[str]:
    """Let time pass without requests; return what happened."""
    return [event for second in range(1, seconds + 1) for event in events(rollout.step(start + second))]


def test_a_good_canary_is_promoted_step_by_step() -> None:
    """Each step in its turn, told once, by the gate; at the end all requests are the canary's."""
    traffic = Traffic(Rollout(plan(gate=gate())), seed=1)
    assert traffic.until_it_ends() == "promoted"
    assert events(traffic.changes) == ["begin", "step", "step", "step", "step", "promote"]
    assert [change.after for change in traffic.changes] == [*SHARES, 1.0]
    assert {change.by for change in traffic.changes[1:]} == {"gate"}
    assert traffic.changes[0].by == "ann"
    assert traffic.rollout.is_canary("anybody")


def test_a_step_needs_both_its_time_and_its_answers() -> None:
    """Neither ten seconds without answers nor answers without ten seconds go on; the report says what is missing."""
    rollout = begun()
    assert rollout.report(0.0)["waiting_for"] == "10 s more and 5 more answers of the canary"
    assert after(rollout, 30) == []
    assert rollout.report(30.0)["waiting_for"] == "5 more answers of the canary"
    answered(rollout)
    assert events(rollout.step(31.0)) == ["step"]
    answered(rollout)
    assert events(rollout.step(32.0)) == []
    assert rollout.report(32.0)["waiting_for"] == "9 s more"
    assert after(rollout, 9, 32.0) == ["step"]


def test_a_canary_in_doubt_gets_no_more() -> None:
    """Halfway to an alarm it neither goes on nor back, whatever time passes; good answers clear it."""
    rollout = begun()
    answered(rollout)
    for _ in range(2):
        rollout.canary.note(Verdict.TARGET_ERROR, 5.0, 0.0)
    assert after(rollout, 60) == []
    assert str(rollout.report(60.0)["waiting_for"]).startswith("evidence either way: canary failed 2 of 52")
    rollout.stable.note(Verdict.TARGET_ERROR, 5.0, 0.0)
    rollout.stable.note(Verdict.TARGET_ERROR, 5.0, 0.0)
    answered(rollout, 100)
    assert after(rollout, 1, 60.0) == ["step"]


def test_a_late_answer_counts_where_it_was_assigned() -> None:
    """Witnesses of the first step keep counting there after the second has begun."""
    rollout = begun()
    late = rollout.canary
    answered(rollout)
    assert after(rollout, 10) == ["step"]
    late.note(Verdict.TARGET_ERROR, 5.0, 0.0)
    assert rollout.canary is not late
    assert rollout.report(10.0)["answers_in_step"] == 0


def test_a_clock_that_goes_backwards_promotes_nobody() -> None:
    """Only time that passes counts; what was set back counts from there."""
    rollout = begun()
    answered(rollout)
    for now in (5.0, -1e6, -1e6 + 4.0):
        assert rollout.step(now) == []
    assert events(rollout.step(-1e6 + 5.0)) == ["step"]


def test_a_clock_that_leaps_counts_for_a_minute() -> None:
    """A machine that slept for a day has not watched the canary for a day."""
    rollout = begun(hold_s=100.0)
    answered(rollout)
    assert rollout.step(86_400.0) == []
    assert rollout.report(86_400.0)["held_s"] == 60.0


def test_steps_that_end_below_all_wait_for_a_hand() -> None:
    """Who plans 10% and 50% has not asked for 100%."""
    rollout = begun(steps=(0.1, 0.5))
    answered(rollout)
    assert after(rollout, 10) == ["step"]
    answered(rollout)
    assert after(rollout, 100, 10.0) == []
    assert "by hand" in str(rollout.report(110.0)["waiting_for"])
    rollout.follow(plan(steps=(0.1, 0.5), outcome="promote", by="bob"), 111.0)
    assert (rollout.phase, rollout.share) == ("promoted", 1.0)


def test_a_hand_promotes_and_aborts() -> None:
    """The file's outcome holds at once, says who, and is told once."""
    for outcome, phase, share in (("promote", "promoted", 1.0), ("abort", "rolled_back", 0.0)):
        rollout = begun()
        wanted = plan(gate=gate(), outcome=outcome, by="bob")
        (change,) = rollout.follow(wanted, 3.0)
        assert (change.event, change.by, change.before, change.after) == (outcome, "bob", 0.01, share)
        assert (rollout.phase, rollout.share) == (phase, share)
        assert rollout.follow(wanted, 4.0) == rollout.step(5.0) == []


def test_a_pause_stops_the_steps_and_not_the_gate() -> None:
    """Paused, time does not count and the share stays; a canary that fails is rolled back all the same."""
    rollout = begun()
    answered(rollout)
    assert events(rollout.follow(plan(gate=gate(), is_paused=True), 1.0)) == ["pause"]
    assert after(rollout, 60, 1.0) == []
    assert (rollout.phase, rollout.share) == ("paused", 0.01)
    assert events(rollout.follow(plan(gate=gate()), 62.0)) == ["resume"]
    assert after(rollout, 9, 62.0) == ["step"]
    rollout.follow(plan(gate=gate(), is_paused=True), 80.0)
    for _ in range(30):
        rollout.canary.note(Verdict.TARGET_ERROR, 5.0, 0.0)
    assert events(rollout.step(81.0)) == ["rollback"]


def test_weights_replace_and_hold() -> None:
    """A share by hand is that share, however often it is set and however long; the gate watches."""
    rollout = begun()
    for weight in (0.9, 0.1, 0.1):
        rollout.follow(plan(gate=gate(), weight=weight), 1.0)
        assert rollout.share == weight
    answered(rollout, 500)
    assert after(rollout, 200) == []
    assert rollout.report(0.0)["waiting_for"] == "the share was set by hand, and stays"
    for _ in range(30):
        rollout.canary.note(Verdict.TARGET_ERROR, 5.0, 0.0)
    assert events(rollout.step(201.0)) == ["rollback"]


def test_without_the_weight_the_steps_go_on_from_below() -> None:
    """From 30% by hand back to steps of 1, 5, 25, 50: at 25."""
    rollout = begun(weight=0.3)
    assert rollout.share == 0.3
    (change,) = rollout.follow(plan(gate=gate()), 1.0)
    assert (change.event, change.before, change.after) == ("set", 0.3, 0.25)


def test_other_steps_never_raise_a_share_at_once() -> None:
    """New steps while the canary has 25%: the highest of them that is not above, or the first."""
    rollout = begun(weight=0.25)
    rollout.follow(plan(gate=gate()), 0.0)
    rollout.follow(plan(gate=gate(), steps=(0.02, 0.1, 0.6)), 1.0)
    assert rollout.share == 0.1


def test_a_rollback_outlives_everything_but_a_hand() -> None:
    """Not other steps, a weight, a pause, other canaries or a restart: only ``promote`` undoes a rollback."""
    rollout = begun()
    for _ in range(30):
        rollout.canary.note(Verdict.TARGET_ERROR, 5.0, 0.0)
    assert events(rollout.step(1.0)) == ["rollback"]
    for changes in ({"weight": 0.5}, {"steps": (0.5, 1.0)}, {"is_paused": True}, {"canary": frozenset({"x"})}):
        wanted = plan(gate=gate(), **changes)
        assert rollout.follow(wanted, 2.0) == []
        rollout = Rollout.from_state(wanted, json.loads(json.dumps(rollout.state())))
        assert rollout.step(3.0) == []
        assert (rollout.phase, rollout.share, rollout.is_canary("k")) == ("rolled_back", 0.0, False)
    assert events(rollout.follow(plan(outcome="promote"), 4.0)) == ["promote"]
    assert rollout.share == 1.0


def test_an_alarm_that_may_not_roll_back_is_told_once() -> None:
    """Without ``rollback`` the share stays, nobody is promoted, and the alarm comes once, also after a restart."""
    wanted = plan(gate=gate(rollback=False))
    rollout = Rollout(wanted)
    rollout.step(0.0)
    for _ in range(30):
        rollout.canary.note(Verdict.TARGET_ERROR, 5.0, 0.0)
    (change,) = rollout.step(1.0)
    assert (change.event, change.before, change.after) == ("alarm", 0.01, 0.01)
    answered(rollout, 1000)
    rollout = Rollout.from_state(wanted, json.loads(json.dumps(rollout.state())))
    assert after(rollout, 60, 1.0) == []
    assert "alarm of errors" in str(rollout.report(61.0)["waiting_for"])


def test_a_restart_resumes_where_it_was() -> None:
    """Step, time held, evidence and reasons come back; a change that was made meanwhile is taken over and told."""
    traffic = Traffic(Rollout(plan(gate=gate())), seed=2)
    while traffic.rollout.share < 0.25:
        traffic.second()
    for _ in range(4):
        traffic.second()
    stored = json.loads(json.dumps(traffic.rollout.state()))
    again = Rollout.from_state(plan(gate=gate()), stored)
    before = traffic.rollout.report(traffic.now)
    assert again.report(traffic.now) == before
    assert again.step(traffic.now + 9000.0) == []
    assert again.report(traffic.now)["held_s"] == before["held_s"]
    paused = Rollout.from_state(plan(gate=gate(), is_paused=True), stored)
    assert events(paused.step(traffic.now)) == ["pause"]


def test_other_canaries_begin_anew() -> None:
    """What was seen of other targets is no evidence, in this process and after a restart."""
    rollout = begun()
    answered(rollout)
    after(rollout, 10)
    stored = rollout.state()
    other = plan(gate=gate(), canary=frozenset({"newer"}))
    assert events(rollout.follow(other, 11.0)) == ["begin"]
    restored = Rollout.from_state(other, stored)
    assert events(restored.step(11.0)) == ["begin"]
    for one in (rollout, restored):
        assert one.share == 0.01
        assert one.report(11.0)["arms"] == Rollout(other).report(11.0)["arms"]


def test_another_rollout_is_none_of_its_business() -> None:
    """Plan and state of another id are refused."""
    rollout = begun()
    with pytest.raises(ValueError, match="other"):
        rollout.follow(plan(id="other"), 1.0)
    with pytest.raises(ValueError, match="other than 'other'"):
        Rollout.from_state(plan(id="other"), rollout.state())


def test_a_caller_stays_and_only_newcomers_move() -> None:
    """Who is the canary's at a share is so at every larger one, and with another id others come first."""
    rollout, other = begun(), begun(id="other")
    keys = [f"user{number}" for number in range(2000)]
    inside: set[str] = set()
    for weight in (0.01, 0.1, 0.5, 1.0):
        rollout.follow(plan(gate=gate(), weight=weight), 1.0)
        now = {key for key in keys if rollout.is_canary(key)}
        assert inside <= now
        assert abs(len(now) - 2000 * weight) < 4.5 * (2000 * weight * (1 - weight)) ** 0.5 + 1
        inside = now
    rollout.follow(plan(gate=gate(), weight=0.3), 1.0)
    other.follow(plan(id="other", gate=gate(), weight=0.3), 1.0)
    both = sum(rollout.is_canary(key) and other.is_canary(key) for key in keys)
    assert 120 < both < 240


def test_instances_judge_what_all_of_them_saw() -> None:
    """Four instances with too little each find together what none finds alone."""
    rollouts = [begun() for _ in range(4)]
    for rollout in rollouts:
        rollout.canary.note(Verdict.TARGET_ERROR, 5.0, 0.0)
        assert rollout.step(1.0) == []
    peers = [rollout.evidence() for rollout in rollouts[1:]]
    assert events(rollouts[0].step(2.0, peers)) == ["rollback"]
    (change,) = rollouts[1].step(3.0, [rollouts[0].evidence()])
    assert change.event == "rollback"
    assert change.reason.startswith("another instance has rolled it back: canary failed ")


def test_instances_go_together() -> None:
    """One that is behind takes the step of one that is ahead, and its answers count for both; not while paused."""
    ahead, behind = begun(), begun()
    answered(ahead)
    assert after(ahead, 10) == ["step"]
    evidence = json.loads(json.dumps(ahead.evidence()))
    assert events(behind.step(1.0, [evidence])) == ["step"]
    assert behind.share == 0.05
    paused = begun(is_paused=True)
    assert paused.step(1.0, [evidence]) == []


def test_a_share_lowered_by_hand_is_raised_by_nobody_of_before() -> None:
    """Back to the steps from 1% by hand: the file of an instance that ended at 50% brings evidence and no share."""
    rollout, gone = begun(), begun()
    for share in (0.25, 0.5):
        gone.follow(plan(gate=gate(), weight=share), 1.0)
    gone.follow(plan(gate=gate()), 1.0)
    old = json.loads(json.dumps(gone.state()))
    assert events(rollout.step(1.0, [old])) == ["step"]
    assert rollout.share == 0.5
    for wanted in (plan(gate=gate(), weight=0.01), plan(gate=gate())):
        rollout.follow(wanted, 2.0)
        assert rollout.step(3.0, [old]) == []
    assert (rollout.share, rollout.phase) == (0.01, "running")
    # Who was never there, or comes back from then, goes where the later one is.
    new = json.loads(json.dumps(rollout.state()))
    returned = Rollout.from_state(plan(gate=gate()), old)
    assert [(one.event, one.after) for one in returned.step(4.0, [new])] == [("set", 0.01)]
    joined = Rollout(plan(gate=gate()))
    assert events(joined.step(4.0, [new, old])) == ["begin"]
    assert joined.share == 0.01
    for one in (returned, joined):
        assert one.step(5.0, [old, new]) == rollout.step(5.0, [old, one.state()]) == []


def test_a_promotion_of_before_a_share_set_by_hand_is_followed_by_nobody() -> None:
    """Who takes a promoted canary back to its steps does so in spite of what a dead instance wrote."""
    rollout, gone = begun(), begun(outcome="promote")
    old = gone.state()
    assert events(rollout.step(1.0, [old])) == ["promote"]
    rollout.follow(plan(gate=gate(), weight=0.05), 2.0)
    rollout.follow(plan(gate=gate()), 3.0)
    assert rollout.step(4.0, [old]) == []
    assert (rollout.share, rollout.phase) == (0.05, "running")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_instances_that_follow_an_edit_one_after_the_other_go_together(order: tuple[int, int]) -> None:
    """Whoever is first: the share is the edit's for both, and the one that then goes ahead is followed."""
    rollouts = [begun(), begun()]
    first, second = (rollouts[number] for number in order)
    for now, wanted in enumerate((plan(gate=gate(), weight=0.05), plan(gate=gate()))):
        for one, other in ((first, second), (second, first)):
            one.follow(wanted, now)
            assert other.step(now, [one.state()]) == []
            assert one.step(now, [other.state()]) == []
    assert [one.share for one in rollouts] == [0.05, 0.05]
    answered(second, 100)
    assert "step" in after(second, 20)
    assert events(first.step(30.0, [second.state()])) == ["step"]
    assert first.share == second.share


@pytest.mark.parametrize("peer", [None, 5, {}, {"id": "r"}, {"id": "other", "phase": "rolled_back"}])
def test_whatever_others_send_is_left_out(peer: object) -> None:
    """What is no evidence of this rollout changes nothing, and the report counts it."""
    rollout = begun()
    assert rollout.step(1.0, [peer]) == []
    assert rollout.report(1.0)["ignored_peers"] == 1


@pytest.mark.parametrize(
    "change",
    [
        {"phase": "flying"},
        {"share": 1.5},
        {"share": float("nan")},
        {"held_s": -1.0},
        {"strata": []},
        {"strata": {"forgotten": 0, "rows": [[0.5]]}},
        {"alarmed": "errors"},
        {"begun": None},
        {"generation": -1},
        {"generation": None},
        {"reason": 3},
        {"canary": 7},
    ],
)
def test_states_that_no_rollout_has_are_refused(change: dict[str, object]) -> None:
    """By name, as ValueError."""
    with pytest.raises(ValueError, match=r"rollout|strat"):
        Rollout.from_state(plan(), begun().state() | change)


@pytest.mark.parametrize(
    ("test", "canary", "mismatches"),
    [
        ("errors", Behaviour(failures=0.3), None),
        ("latency", Behaviour(slower=log(1.6)), None),
        ("mismatches", GOOD, 0.5),
    ],
)
def test_each_way_of_being_worse_is_found_and_explained(test: str, canary: Behaviour, mismatches: float | None) -> None:
    """The rollback's reason has figures of both arms, the e-value and its bound, and the report keeps them."""
    traffic = Traffic(Rollout(plan(gate=gate())), seed=4)
    assert traffic.until_it_ends(canary=canary, mismatches=mismatches) == "rolled_back"
    last = traffic.changes[-1]
    assert (last.event, last.by, last.after) == ("rollback", "gate", 0.0)
    assert "e-value" in last.reason
    assert "against the bound 80" in last.reason
    found = [one for one in traffic.rollout.report(0.0)["tests"] if one["alarm"]]  # pyright: ignore[reportGeneralTypeIssues]
    assert [one["name"] for one in found] == [test]
    assert last.figures["tests"] == traffic.rollout.report(0.0)["tests"]


def test_a_step_of_all_holds_some_back_until_it_is_stood() -> None:
    """The callers that would come last stay with stable; the report keeps the steps as they were written."""
    rollout = begun(weight=0.9)
    keys = [f"user{number}" for number in range(2000)]
    before = {key for key in keys if rollout.is_canary(key)}
    rollout.follow(plan(gate=gate(), steps=(0.9, 1.0)), 1.0)
    answered(rollout)
    assert after(rollout, 10, 1.0) == ["step"]
    report = rollout.report(11.0)
    assert (report["share"], report["step"], report["step_share"], report["steps"]) == (0.98, 2, 1.0, [0.9, 1.0])
    now = {key for key in keys if rollout.is_canary(key)}
    assert before < now
    assert 10 < len(keys) - len(now) < 80
    answered(rollout, 5, others=0)
    assert after(rollout, 10, 11.0) == []
    assert rollout.report(21.0)["waiting_for"] == "5 more answers of stable, of which the latency says something"
    answered(rollout, 5, others=1)
    assert events(rollout.step(22.0)) == ["promote"]
    assert (rollout.share, rollout.report(22.0)["step_share"]) == (1.0, None)
    assert all(rollout.is_canary(key) for key in keys)


def test_callers_that_are_all_the_canarys_stop_nothing() -> None:
    """Where none of few callers is among those held back, stable is waited for only twice as long as it should take."""
    rollout = begun(steps=(1.0,))
    answered(rollout, 2 * 5 * 49 - 1, others=0)
    assert after(rollout, 10) == []
    answered(rollout, 1, others=0)
    assert events(rollout.step(11.0)) == ["promote"]


@pytest.mark.parametrize(
    ("steps", "shares"),
    [
        ((1.0,), (0.98,)),
        ((0.5, 0.9), (0.5, 0.9)),
        ((0.98, 1.0), (0.98, 0.99)),
        ((0.99, 1.0), (0.99, 0.995)),
        ((0.0,), (0.0,)),
    ],
)
def test_shares_rise_as_steps_do(steps: tuple[float, ...], shares: tuple[float, ...]) -> None:
    """Of a last step near 100% the next one still is more; steps that end below are what was written."""
    assert plan(steps=steps).shares == pytest.approx(shares)


@pytest.mark.parametrize("canary", [Behaviour(failures=0.3), Behaviour(slower=log(1.6))])
def test_a_canary_that_goes_bad_at_the_last_step_is_found(canary: Behaviour) -> None:
    """By those who are held back at the same time."""
    traffic = Traffic(Rollout(plan(hold_s=600.0, gate=gate(min_requests=50))), seed=6)
    while traffic.rollout.share < SHARES[-1]:
        traffic.second()
    before = traffic.canary_requests, traffic.canary_failures
    assert traffic.until_it_ends(canary) == "rolled_back"
    requests, failures = traffic.canary_requests - before[0], traffic.canary_failures - before[1]
    print(f"{canary} at 98%: rolled back after {requests} of its requests, {failures} failed")
    assert requests < 5000


@pytest.mark.parametrize("seed", range(5))
def test_a_rollout_that_begins_at_the_last_step_is_judged(seed: int) -> None:
    """``steps: [100]`` promotes nobody who fails nine of ten requests."""
    traffic = Traffic(Rollout(plan(steps=(1.0,), gate=gate(min_requests=50))), seed=seed)
    assert traffic.until_it_ends(Behaviour(failures=0.9)) == "rolled_back"


def test_all_by_hand_is_judged_by_stables_past() -> None:
    """There failures are found; latencies are not judged, as nobody knows what the others' would be by now."""
    for canary, phase in ((Behaviour(failures=0.3), "rolled_back"), (Behaviour(slower=log(1.6)), "running")):
        traffic = Traffic(Rollout(plan(weight=0.5, gate=gate())), seed=6)
        for _ in range(30):
            traffic.second()
        traffic.changes += traffic.rollout.follow(plan(weight=1.0, gate=gate()), traffic.now)
        assert traffic.until_it_ends(canary, most=120) == phase
        found = [one for one in traffic.rollout.report(0.0)["tests"] if one["alarm"]]  # pyright: ignore[reportGeneralTypeIssues]
        assert [one["name"] for one in found] == (["errors_at_full"] if phase == "rolled_back" else [])


def test_clients_faults_are_not_the_canarys() -> None:
    """A thousand malformed and cancelled requests of the canary say nothing against it."""
    rollout = begun()
    for _ in range(1000):
        rollout.canary.note(Verdict.CLIENT_ERROR, 5.0, 0.0)
        rollout.canary.note(Verdict.CANCELLED, 5.0, 0.0)
    assert rollout.step(1.0) == []
    assert rollout.report(1.0)["answers_in_step"] == 0


@pytest.mark.parametrize(("outcome", "phase"), [("promote", "promoted"), ("abort", "rolled_back")])
def test_who_decided_is_told_whoever_followed_first(outcome: str, phase: str) -> None:
    """An instance that hears of a decision before it reads of it tells both, and the latter once, restarts included."""
    first, second = begun(), begun()
    decided = plan(gate=gate(), outcome=outcome, by="eve")
    assert [(change.by, change.event) for change in first.follow(decided, 1.0)] == [("eve", outcome)]
    (heard,) = second.step(2.0, [first.evidence()])
    assert (heard.by, heard.after) == ("gate", first.share)
    assert heard.reason.endswith("ed by hand")
    assert [(change.by, change.event) for change in second.follow(decided, 3.0)] == [("eve", outcome)]
    again = Rollout.from_state(decided, second.state())
    assert again.step(4.0) == []
    assert again.phase == phase


def test_why_another_instance_went_on_is_one_short_line() -> None:
    """However often it is passed on, and whatever stands in its file."""
    rollout = begun(outcome="abort")
    told = [rollout.evidence()]
    for _ in range(3):
        other = begun()
        (change,) = other.step(1.0, told)
        assert change.reason == "another instance has rolled it back: aborted by hand"
        told = [other.evidence()]
    told[0]["reason"] = "a\nb" + 10_000 * "c"
    (change,) = begun().step(1.0, told)
    assert "\n" not in change.reason
    assert len(change.reason) < 1000


def test_an_instance_that_joins_a_paused_rollout_comes_to_where_it_is() -> None:
    """A reload in mid-rollout gives the callers of the canary to nobody else."""
    rollout = begun()
    answered(rollout)
    assert after(rollout, 10) == ["step"]
    paused = plan(gate=gate(), is_paused=True)
    rollout.follow(paused, 11.0)
    joining = Rollout(paused)
    joining.step(12.0, [rollout.evidence()])
    assert (joining.share, joining.phase) == (rollout.share, "paused")


def test_a_share_that_was_set_while_nobody_served_counts() -> None:
    """After a promotion by the gate, and unless somebody has promoted by hand, which is what the file says then."""
    promoted = begun(steps=(1.0,))
    answered(promoted)
    assert after(promoted, 10) == ["promote"]
    for outcome, share in (("", 0.1), ("promote", 1.0)):
        again = Rollout.from_state(plan(gate=gate(), steps=(1.0,), weight=0.1, outcome=outcome), promoted.state())
        again.step(20.0)
        assert again.share == share
