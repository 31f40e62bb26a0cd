"""When a copy of a request is due: at growing distances from start and slow-downs, and from what was saved."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, repeat
from typing import TYPE_CHECKING

import pytest

from tests.unit.routing.fleet import REQUEST, Spec, engine, served
from triton_router.profiling.load_law import IDLE
from triton_router.routing.mirroring import FIRST_DISTANCE
from triton_router.routing.peers import PeerAnswer, target_key
from triton_router.routing.rules import RoutingRules
from triton_router.routing.types import Outcome, Verdict

if TYPE_CHECKING:
    from triton_router.routing.engine import RoutingEngine

FREE = replace(REQUEST, may_explore=True)


def looks(subject: RoutingEngine, requests: range, *, others_ms: float, ours_ms: float = 10.0) -> list[int]:
    """Serve requests by the favourite in ``ours_ms``, answer copies in ``others_ms``; return which were copied."""
    found = []
    for number in requests:
        decision = served(subject, ours_ms, number * 0.1, FREE)
        copy = subject.mirror(decision)
        if copy:
            found.append(number)
            subject.finish(copy, Outcome(Verdict.SUCCESS, others_ms), number * 0.1)
    return found


def test_a_new_target_is_looked_at_often_at_first_and_then_ever_less() -> None:
    """Distances grow by half each; a target that takes three times as long is looked at after three times as many."""
    subject = engine(Spec("ours", 10.0), Spec("other", 30.0), rules=RoutingRules(mirror=1e-9))
    found = looks(subject, range(2000), others_ms=30.0)
    distances = [later - earlier for earlier, later in pairwise(found)]
    assert distances[0] == 3 * FIRST_DISTANCE
    assert all(1.4 <= later / earlier <= 1.6 for earlier, later in pairwise(distances))
    assert 5 <= len(found) <= 8


def test_a_cold_start_does_not_price_a_target_out() -> None:
    """After a first answer that took a hundred times as long, a faster target is found within 200 requests."""
    subject = engine(Spec("ours", 10.0), Spec("other", None), rules=RoutingRules(mirror=0.005))
    decision = served(subject, 10.0, 0.0, FREE)
    copy = subject.mirror(decision)
    assert copy is not None
    subject.finish(copy, Outcome(Verdict.SUCCESS, 400.0), 0.0)
    for number in range(1, 201):
        decision = served(subject, 10.0, number * 0.1, FREE)
        if decision.target.name == "other":
            return
        copy = subject.mirror(decision)
        if copy:
            subject.finish(copy, Outcome(Verdict.SUCCESS, 4.0), number * 0.1)
    raise AssertionError("the faster target was never found")


def crowd(subject: RoutingEngine, requests: range) -> list[int]:
    """Serve requests of which five are always in flight; return which were copied."""
    found: list[int] = []
    waiting = [subject.decide(FREE, 0.0) for _ in range(5)]
    for number in requests:
        waiting.append(subject.decide(FREE, number * 0.1))
        done = waiting.pop(0)
        subject.finish(done, Outcome(Verdict.SUCCESS, 50.0), number * 0.1)
        copy = subject.mirror(done)
        if copy:
            found.append(number)
            subject.finish(copy, Outcome(Verdict.SUCCESS, 4.0), number * 0.1)
    for done in waiting:
        subject.finish(done, Outcome(Verdict.SUCCESS, 50.0), requests.stop * 0.1)
    return found


def test_an_unknown_target_is_looked_at_though_its_device_is_never_idle() -> None:
    """After some patience for an idle moment: or it would never get a request, however fast it is."""
    subject = engine(Spec("ours", 10.0), Spec("other", None), rules=RoutingRules(mirror=0.005))
    found = crowd(subject, range(100))
    assert found
    assert FIRST_DISTANCE - 1 <= found[0] <= 2 * FIRST_DISTANCE
    assert subject.decide(FREE, 10.0).target.name == "other"


def test_known_targets_are_left_alone_on_a_busy_device_and_looked_at_when_it_is_idle_again() -> None:
    """A copy there would delay everybody; however long that lasts, looks go on when it is over."""
    subject = engine(Spec("ours", 10.0), Spec("other", 60.0), rules=RoutingRules(mirror=1e-9))
    assert crowd(subject, range(200)) == []
    assert looks(subject, range(200, 200 + 2 * FIRST_DISTANCE), others_ms=60.0)


def test_one_copy_that_could_not_be_sent_does_not_end_looking() -> None:
    """Too large for once, or too much to do: a copy of the next request that is due may be possible."""
    subject = engine(Spec("ours", 10.0), Spec("other", 30.0), rules=RoutingRules(mirror=1e-9))
    copy = subject.mirror(served(subject, 10.0, 0.0, FREE))
    assert copy is not None
    subject.finish(copy, Outcome(Verdict.CANCELLED, 30.0), 0.0)
    assert looks(subject, range(1, 300), others_ms=30.0)


@pytest.mark.parametrize("verdict", [Verdict.TARGET_ERROR, Verdict.CLIENT_ERROR, Verdict.CANCELLED])
@pytest.mark.parametrize("explore", [0.0, 0.01])
def test_a_new_target_whose_first_copy_fails_is_tried_again(verdict: Verdict, explore: float) -> None:
    """It was not loaded yet, or had no memory, or the copy could not be made: 300 requests later it serves."""
    subject = engine(Spec("ours", 10.0), Spec("other", None), rules=RoutingRules(mirror=0.005, explore=explore))
    copy = subject.mirror(served(subject, 10.0, 0.0, FREE))
    assert copy is not None
    subject.finish(copy, Outcome(verdict, 1.0), 0.0)
    for number in range(1, 300):
        now = number * 0.1
        decision = subject.decide(FREE, now)
        copy = subject.mirror(decision)
        subject.finish(decision, Outcome(Verdict.SUCCESS, 10.0 if decision.target.name == "ours" else 2.0), now)
        if copy:
            subject.finish(copy, Outcome(Verdict.SUCCESS, 2.0), now)
    assert subject.decide(FREE, 31.0).target.name == "other"


@pytest.mark.parametrize("verdict", [Verdict.CANCELLED, Verdict.CLIENT_ERROR, Verdict.TARGET_ERROR])
def test_a_target_that_turns_copies_away_does_not_get_those_of_others(verdict: Verdict) -> None:
    """It fails at once, which costs nothing; others are looked at half as often at least as where it answers."""

    def copies(verdict: Verdict) -> tuple[int, int]:
        rules = RoutingRules(mirror=0.01)
        subject = engine(Spec("ours", 10.0), Spec("turning", 30.0), Spec("third", 30.0), rules=rules)
        for number in range(6000):
            copy = subject.mirror(served(subject, 10.0, number * 0.1, FREE))
            if copy and copy.target.name == "turning":
                took = 30.0 if verdict is Verdict.SUCCESS else 0.2
                subject.finish(copy, Outcome(verdict, took), number * 0.1)
            elif copy:
                subject.finish(copy, Outcome(Verdict.SUCCESS, 30.0), number * 0.1)
        _, turning, third = subject.snapshot(600.0)
        return turning.mirrored, third.mirrored

    assert copies(verdict)[0] <= 40
    assert copies(verdict)[1] >= 0.5 * copies(Verdict.SUCCESS)[1] > 5


def test_what_a_peer_has_found_out_can_be_looked_at() -> None:
    """A copy could not be made while a target was unknown; once another instance knows it, copies go on."""
    subject = engine(Spec("ours", 10.0), Spec("other", None), rules=RoutingRules(mirror=0.005))
    copy = subject.mirror(served(subject, 10.0, 0.0, FREE))
    assert copy is not None
    subject.finish(copy, Outcome(Verdict.CANCELLED, 0.0), 0.0)
    other = subject.snapshot(0.0)[1].target
    subject.hear([PeerAnswer(target_key(other), 30.0, REQUEST.work, 1.0, IDLE, alone=True)])
    assert looks(subject, range(1, 300), others_ms=30.0)


def test_a_target_too_dear_to_look_at_does_not_keep_the_others_waiting() -> None:
    """One takes a minute, which is never saved up: the third is looked at as if that one were not there."""
    rules = RoutingRules(mirror=0.05)
    others = (Spec("ours", 10.0), Spec("third", 30.0))

    def third(*specs: Spec) -> int:
        subject = engine(*others, *specs, rules=rules)
        for number in range(3000):
            copy = subject.mirror(served(subject, 10.0, number * 0.1, FREE))
            if copy:
                took = 30.0 if copy.target.name == "third" else 60_000.0
                subject.finish(copy, Outcome(Verdict.SUCCESS, took), number * 0.1)
        return subject.snapshot(300.0)[1].mirrored

    assert third(Spec("dear", 60_000.0)) >= 0.8 * third()


def test_a_surprising_answer_is_looked_into_at_once() -> None:
    """A target that answers a copy much faster than expected is looked at again within five requests, not 20 more."""
    subject = engine(Spec("ours", 10.0), Spec("other", 60.0), rules=RoutingRules(mirror=1e-9))
    looks(subject, range(800), others_ms=60.0)
    found = looks(subject, range(800, 2000), others_ms=12.0)
    distances = [later - earlier for earlier, later in pairwise(found)]
    assert distances[0] <= 6
    assert subject.snapshot(300.0)[1].latency.count


def test_copies_are_paid_from_what_was_saved() -> None:
    """Besides the scheduled looks, copies take the share of the serving time, and no more."""
    subject = engine(Spec("ours", 10.0), Spec("other", 30.0), rules=RoutingRules(mirror=0.01))
    scheduled = looks(
        engine(Spec("ours", 10.0), Spec("other", 30.0), rules=RoutingRules(mirror=1e-9)), range(6000), others_ms=30.0
    )
    found = looks(subject, range(6000), others_ms=30.0)
    paid_ms = (len(found) - len(scheduled)) * 30.0
    assert 0.5 * 0.01 * 60_000 <= paid_ms <= 0.01 * 60_000 + 30.0


def test_many_routers_do_not_all_look_at_the_same_target() -> None:
    """Of several targets that are due, any is looked at."""
    first = set()
    for seed in range(30):
        subject = engine(
            Spec("ours", 1.0),
            *(Spec(f"other{i}", 30.0) for i in range(4)),
            rules=RoutingRules(mirror=0.01),
            rng=repeat((seed % 10) / 10.0).__next__,
        )
        copy = subject.mirror(served(subject, 1.0, 0.0, FREE))
        assert copy is not None
        first.add(copy.target.name)
    assert len(first) >= 3
