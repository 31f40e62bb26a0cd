"""An engine's targets change while it serves: nothing in flight is lost, and what is known of the others stays."""

from __future__ import annotations

import random
import threading
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triton_router.errors import RequestError
from triton_router.profiling.load_law import IDLE
from triton_router.profiling.profile import TargetProfile
from triton_router.routing.engine import RoutingEngine
from triton_router.routing.membership import MAX_DEPARTED
from triton_router.routing.policies import policy_named
from triton_router.routing.protocols import Device
from triton_router.routing.rules import RoutingRules
from triton_router.routing.types import Outcome, RoutingContext, RoutingDecision, Target, Verdict

RULES = RoutingRules()
POLICY = policy_named("least-request")
GOOD = Outcome(Verdict.SUCCESS, 5.0)


def offered(*names: str, **models: str) -> list[tuple[Target, TargetProfile]]:
    """Return fresh targets; those of upper case run on a device of their own."""
    return [(Target(name, models.get(name, name), device=name * name.isupper()), TargetProfile()) for name in names]


def engine(*names: str) -> RoutingEngine:
    return RoutingEngine(offered(*names), POLICY, rules=RULES, rng=random.Random(2).random)


def ask(sharer: RoutingEngine, name: str = "", now: float = 0.0) -> RoutingDecision:
    return sharer.decide(RoutingContext(1, 1.0, pinned=name), now)


def in_flight(sharer: RoutingEngine) -> dict[str, int]:
    return {target.target.name: target.in_flight for target in sharer.snapshot(0.0)}


def test_who_stays_keeps_what_is_known_and_in_flight() -> None:
    """Its profile, its counts and its slots; the newcomer begins with what is passed and is reported."""
    sharer = engine("a", "b")
    for _ in range(20):
        sharer.finish(ask(sharer, "a"), GOOD, 0.0)
    held = ask(sharer, "a")
    added = sharer.reconfigure(POLICY, RULES, offered("a", "c"), kept={"a"})
    assert [target.target.name for target in added] == ["c"]
    a, c, gone = sharer.snapshot(0.0)
    assert (a.latency.count, a.chosen, a.in_flight) == (20, 21, 1)
    assert (c.latency.count, c.chosen) == (0, 0)
    assert (gone.target.name, gone.removed) == ("b", True)
    sharer.finish(held, GOOD, 0.0)
    assert in_flight(sharer) == {"a": 0, "c": 0, "b": 0}


def test_time_is_wasted_only_on_a_device_with_a_choice() -> None:
    """Where steady load finds one target on its device, nothing is charged; nor any more when the other has left."""
    device = Device()
    for targets, charged in ((1, False), (2, True), (1, False)):
        device.shared_by(targets)
        for _ in range(500):
            device.note_left(3.0)
        assert (device.steadiness > 0.0) is charged


def test_who_leaves_finishes_and_gets_nothing_new() -> None:
    """Its slot is released, the device it shares is not believed busy for ever, and only its sequences stay."""
    sharer = engine("a", "b")
    held = [ask(sharer, "b"), ask(sharer, "b")]
    sharer.reconfigure(POLICY, RULES, offered("a"), kept={"a"})
    assert [ask(sharer).target.name for _ in range(5)] == ["a"] * 5
    assert ask(sharer, "b").target.name == "b", "the sequence's state is there"
    for decision in held:
        sharer.finish(decision, GOOD, 0.0)
    assert in_flight(sharer) == {"a": 5, "b": 1}
    assert ask(sharer).load.in_flight == 6, "they share a device"


def test_who_comes_back_is_known() -> None:
    """What was learned of it, and counted, goes on."""
    sharer = engine("a", "b")
    for _ in range(20):
        sharer.finish(ask(sharer, "b"), GOOD, 0.0)
    sharer.reconfigure(POLICY, RULES, offered("a"), kept={"a"})
    sharer.reconfigure(POLICY, RULES, offered("a", "b"), kept={"a", "b"})
    (b,) = [target for target in sharer.snapshot(0.0) if target.target.name == "b"]
    assert (b.latency.count, b.chosen, b.removed) == (20, 20, False)


def test_another_model_under_a_name_is_learned_anew() -> None:
    """People and metrics count on; the old one's answers still release the old one's slots."""
    sharer = engine("a", "b")
    for _ in range(20):
        sharer.finish(ask(sharer, "a"), GOOD, 0.0)
    held = ask(sharer, "a")
    sharer.reconfigure(POLICY, RULES, offered("a", "b", a="a2"), kept={"b"})
    a = sharer.snapshot(0.0)[0]
    assert (a.target.model, a.latency.count, a.chosen, a.in_flight) == ("a2", 0, 21, 0)
    sharer.finish(held, GOOD, 0.0)
    assert in_flight(sharer) == {"a": 0, "b": 0}
    assert ask(sharer, "a").load.in_flight == 0


def test_a_sequence_stays_with_the_model_that_it_began_at() -> None:
    """Whatever has its target's name by now: the state is in the model, which still serves; twice changed, and back."""
    sharer = engine("a", "b")
    began = ask(sharer, "a").target

    def goes_on() -> str:
        return sharer.decide(RoutingContext(1, 1.0, pinned="a", holder=began), 0.0).target.model

    for model in ("a2", "a3"):
        sharer.reconfigure(POLICY, RULES, offered("a", "b", a=model), kept={"b"})
        assert ask(sharer, "a").target.model == model
        assert goes_on() == "a"
    sharer.reconfigure(POLICY, RULES, offered("b"), kept={"b"})
    assert goes_on() == "a"
    sharer.reconfigure(POLICY, RULES, offered("a", "b"), kept={"b"})
    assert goes_on() == "a"


def test_a_version_that_is_written_down_keeps_its_sequences_and_another_takes_none() -> None:
    """As a rollout begins by: the target is the same one. With another version it is not."""
    sharer = engine("a")
    began = ask(sharer, "a").target

    def goes_on() -> int | None:
        return sharer.decide(RoutingContext(1, 1.0, pinned="a", holder=began), 0.0).target.version

    sharer.reconfigure(POLICY, RULES, [(replace(began, version=3), TargetProfile())], kept={"a"})
    assert goes_on() == 3
    began = ask(sharer, "a").target
    sharer.reconfigure(POLICY, RULES, [(replace(began, version=4), TargetProfile())], kept=())
    assert goes_on() == 3


def test_the_longest_gone_are_forgotten() -> None:
    """So that names without end take no memory without end; a sequence of theirs is told to begin anew."""
    sharer = engine("a", "gone")
    for number in range(MAX_DEPARTED + 1):
        sharer.reconfigure(POLICY, RULES, offered("a", f"n{number}"), kept={"a"})
    assert len(sharer.snapshot(0.0)) == MAX_DEPARTED + 2
    with pytest.raises(RequestError, match="removed long ago"):
        ask(sharer, "gone")


NAMES = st.sets(st.sampled_from("abCDe"), min_size=1)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(NAMES, NAMES, st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12))
def test_slots_stay_exact_whatever_changes(steps: list[tuple[set[str], set[str], int, int]]) -> None:
    """Any targets come, go and change their model in any order, with requests in flight: all slots are released."""
    sharer = engine("a", "b")
    held: list[RoutingDecision] = []
    for names, kept, asked, answered in steps:
        models = {name: f"{name}-{len(held)}" for name in names - kept}
        sharer.reconfigure(POLICY, RULES, offered(*sorted(names), **models), kept=kept)
        held += [ask(sharer) for _ in range(asked)]
        assert {decision.target.name for decision in held[len(held) - asked :]} <= names
        for decision in held[:answered]:
            sharer.finish(decision, GOOD, 0.0)
        del held[:answered]
    for decision in held:
        sharer.finish(decision, GOOD, 0.0)
    assert not any(in_flight(sharer).values())
    last = ask(sharer)
    assert last.load == IDLE


def test_changes_among_threads_lose_no_slot() -> None:
    """Four threads ask and answer while a fifth changes the targets hundreds of times."""
    sharer = engine("a", "b")
    done = threading.Event()
    errors: list[BaseException] = []

    def serve() -> None:
        try:
            while not done.is_set():
                sharer.finish(ask(sharer), GOOD, 0.0)
        except BaseException as error:  # noqa: BLE001 - the thread's failure is the test's
            errors.append(error)

    threads = [threading.Thread(target=serve) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(300):
        names = ("a", "b", "C") if number % 2 else ("b", "D")
        sharer.reconfigure(POLICY, RULES, offered(*names), kept={"a", "b"})
    done.set()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert not any(in_flight(sharer).values())
