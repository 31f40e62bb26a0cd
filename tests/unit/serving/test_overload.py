"""Overload: what waits does so in one order, what cannot be answered in time is refused, nobody is forgotten."""

from __future__ import annotations

import re
import threading
import time
from typing import Any

import numpy as np
import pytest

from tests.unit.serving.failing_targets import GOOD, Gate, Rig, answer_of, message_of, until
from triton_router.config.resilience_settings import QueueConfig
from triton_router.routing.resilience import Resilience
from triton_router.routing.types import Backend
from triton_router.serving.call_lane import CallLane
from triton_router.testing.fake_stub import FakeRequest, FakeTensor, InferenceResponse, TritonError

REFUSAL = re.compile(r"\[overloaded\] \[retry-after-ms=(\d+)\] .*\(hint: .*\)")


def numbered(serve: Any, served: list[int]) -> Any:
    """Return targets that note the number of each request that they get."""

    def noting(_: str, arguments: dict[str, Any]) -> Any:
        served.append((arguments["parameters"] or {}).get("n", -1))
        return serve(GOOD)

    return noting


def prioritised(n: int, priority: int = 0, **options: Any) -> FakeRequest:
    return FakeRequest(params={"n": n, "router_priority": priority} if priority else {"n": n}, **options)


def test_the_most_urgent_goes_first() -> None:
    """Whoever waits for the only worker is taken by priority, then by age."""
    gate, served = Gate(), list[int]()
    rig = Rig(numbered(gate, served), targets=1, workers=1)
    requests = [FakeRequest(), *[prioritised(n, priority) for n, priority in enumerate([0, -5, 7, 0, 7, -5, 100])]]
    rig.execute(*requests)
    gate.open()
    for request in requests:
        answer_of(request)
    assert served == [-1, 6, 2, 4, 0, 3, 1, 5]
    assert rig.closed() == {}


def test_a_header_names_the_priority_too() -> None:
    """``x-priority``, in whatever case; a parameter wins over it."""
    gate, served = Gate(), list[int]()
    rig = Rig(numbered(gate, served), targets=1, workers=1)
    headers: list[dict[str, Any]] = [
        {"X-Priority": "1"},
        {"x-priority": "3"},
        {"x-priority": "9", "router_priority": 2},
    ]
    requests = [FakeRequest(), *[FakeRequest(params={"n": n, **header}) for n, header in enumerate(headers)]]
    rig.execute(*requests)
    gate.open()
    for request in requests:
        answer_of(request)
    assert served == [-1, 1, 2, 0]
    assert rig.closed() == {}


@pytest.mark.parametrize("value", ["urgent", 101, -101, 1.5, "", "1" * 200])
def test_a_priority_is_a_small_whole_number(value: object) -> None:
    """Anything else is refused as the client's mistake."""
    rig = Rig(lambda _, __: GOOD, targets=1)
    (response,) = rig.answered(FakeRequest(params={"router_priority": value}))
    assert response.error().code() == TritonError.INVALID_ARG
    assert "router_priority" in message_of(response)
    assert rig.closed() == {}


def test_beyond_the_limit_the_arriving_is_refused() -> None:
    """With a prefix that programs read, when to come back, and what to do."""
    gate = Gate()
    rig = Rig(lambda _, __: gate(GOOD), targets=1, workers=2, queue=QueueConfig(limit=3))
    taken = [FakeRequest() for _ in range(3)]
    rig.execute(*taken)
    (response,) = rig.answered(FakeRequest())
    assert response.error().code() == TritonError.UNAVAILABLE
    found = REFUSAL.fullmatch(message_of(response))
    assert found
    assert 1 <= int(found[1]) <= 60_000
    gate.open()
    assert all(answer_of(request).output_tensors() for request in taken)
    assert rig.closed() == {"refused_full": 1}


def test_beyond_the_limit_the_least_urgent_makes_room() -> None:
    """The newest of the lowest priority goes, never one that a target is at work on; its equals do not displace it."""
    gate = Gate()
    rig = Rig(lambda _, __: gate(GOOD), targets=1, workers=1, queue=QueueConfig(limit=4))
    working, older, newer, middle = prioritised(0, -9), prioritised(1, -5), prioritised(2, -5), prioritised(3, 1)
    rig.execute(working, older, newer, middle)
    urgent = prioritised(4, 2)
    rig.execute(urgent)
    assert "a more urgent one took its place" in message_of(answer_of(newer))
    assert "no less urgent one waits" in message_of(rig.answered(prioritised(5, -5))[0])
    rig.execute(another := prioritised(6, 2))
    assert "a more urgent one" in message_of(answer_of(older))
    gate.open()
    assert all(answer_of(request).output_tensors() for request in (working, middle, urgent, another))
    assert rig.closed() == {"refused_displaced": 2, "refused_full": 1}


def test_what_waits_for_company_is_ordered_and_displaced_too() -> None:
    """At a target whose calls are merged, the more urgent go out in the next call, and make room like anywhere."""
    gate = Gate()
    seen: list[list[float]] = []

    def serve(_: str, arguments: dict[str, Any]) -> Any:
        array = arguments["inputs"][0].as_numpy()
        seen.append(array[:, 0].tolist())
        gate.wait()
        return InferenceResponse([FakeTensor.of("Y", array)])

    def valued(n: int, **options: Any) -> FakeRequest:
        return FakeRequest(tensors=(FakeTensor.of("X", np.full((1, 2), n, np.float32)),), **options)

    # Each row costs as much as a call: they go out one at a time.
    lane = CallLane(limit=1, max_rows=16, measured=[(rows, 3.0 * rows) for rows in (2, 64)] * 20)
    rig = Rig(serve, targets=1, lanes={"t0": lane}, queue=QueueConfig(limit=4))
    urgent = {"router_priority": 5}
    rig.execute(first := valued(0), low := valued(1), high := valued(2, params=urgent), displaced := valued(3))
    rig.execute(higher := valued(4, params=urgent))
    assert "more urgent" in message_of(answer_of(displaced))
    gate.open()
    for request in (first, low, high, higher):
        assert answer_of(request).output_tensors()
    assert [n for call in seen for n in call] == [0, 2, 4, 1]
    assert rig.closed() == {"refused_displaced": 1}


def test_a_request_without_a_chance_is_refused_at_once() -> None:
    """Alone it would be answered in time, behind what is in flight it would not: its client hears so at once."""
    gate, one_at_a_time = Gate(), threading.Lock()
    gate.open()

    def serve(_: str, __: dict[str, Any]) -> Any:
        gate.wait()
        with one_at_a_time:
            time.sleep(0.02)
        return GOOD

    rig = Rig(serve, targets=1, alone_ms=20.0)
    for _ in range(12):  # it learns what company costs
        rig.answered(*[FakeRequest() for _ in range(8)])
    gate.close()
    busy = [FakeRequest() for _ in range(7)]
    rig.execute(*busy)
    (response,) = rig.answered(FakeRequest(timeout_us=60_000))
    assert REFUSAL.fullmatch(message_of(response))
    assert "would not be answered within 60 ms" in message_of(response)
    gate.open()
    for request in busy:
        answer_of(request)
    assert rig.answered(FakeRequest(timeout_us=5_000_000))[0].output_tensors()
    assert rig.closed() == {"refused_late": 1}


def test_a_request_that_no_load_can_explain_is_tried() -> None:
    """What would be late even alone is sent all the same, as without the setting: the client may know better."""
    rig = Rig(lambda _, __: GOOD, targets=1, alone_ms=2000.0)
    assert rig.answered(FakeRequest(timeout_us=1_000_000))[0].output_tensors()
    assert rig.closed() == {}


def test_late_requests_may_be_let_in() -> None:
    """Where the setting is off they wait like any other."""
    gate = Gate()
    rig = Rig(lambda _, __: gate(GOOD), targets=1, alone_ms=200.0, queue=QueueConfig(reject_late=False))
    busy = [FakeRequest() for _ in range(6)]
    rig.execute(*busy)
    (response,) = rig.answered(FakeRequest(timeout_us=400_000))
    assert "[deadline-exceeded]" in message_of(response)
    gate.open()
    for request in busy:
        answer_of(request)
    assert rig.closed() == {"deadline_errors_target": 1}


def test_full_targets_make_requests_wait() -> None:
    """With each target at its cap, requests wait in the router, hold no slot, and go when one becomes free."""
    gate = Gate()
    caps = Resilience(retry_burst=1000, caps={"t0": 2, "t1": 1})
    rig = Rig(lambda _, __: gate(GOOD), resilience=caps)
    requests = [FakeRequest() for _ in range(20)]
    rig.execute(*requests)
    until(lambda: len(rig.calls) == 3)
    assert sorted(target.in_flight for target in rig.engine.snapshot(0.0)) == [1, 2]
    assert rig.dispatcher.resilience_counts()["waiting"] == 17
    gate.open()
    assert all(answer_of(request).output_tensors() for request in requests)
    assert rig.closed() == {}


def test_who_needs_a_full_target_keeps_nobody_else_waiting() -> None:
    """A request that only the full target may serve does not stand in the way of one that another may."""
    gate = Gate()
    caps = Resilience(retry_burst=1000, caps={"t0": 1})
    rig = Rig(lambda name, _: gate(GOOD) if name == "t0" else GOOD, resilience=caps)
    held = FakeRequest()
    rig.execute(held)
    until(lambda: rig.calls == ["t0"])
    others = [FakeRequest() for _ in range(20)]
    assert all(answer.output_tensors() for answer in rig.answered(*others))
    gate.open()
    answer_of(held)
    assert rig.closed() == {}


def test_many_who_need_a_full_target_keep_nobody_else_waiting() -> None:
    """However many wait for the backend of a target that hangs, whoever may be served elsewhere is."""
    gate = Gate()
    rig = Rig(
        lambda name, _: gate(GOOD) if name == "t0" else GOOD,
        resilience=Resilience(retry_burst=1000, caps={"t0": 1}),
        backends=(Backend.GPU, Backend.CPU),
    )
    picky = [FakeRequest(params={"router_backends": "gpu"}) for _ in range(12)]
    rig.execute(*picky)
    until(lambda: rig.calls == ["t0"])
    others = [FakeRequest() for _ in range(5)]
    assert all(answer.output_tensors() for answer in rig.answered(*others))
    assert not any(request.answers for request in picky)
    gate.open()
    assert all(answer_of(request).output_tensors() for request in picky)
    assert rig.closed() == {}


def test_a_sequence_that_nobody_has_room_for_is_refused_by_name() -> None:
    """Its first request is told when to come back; one that a target holds goes on whatever is in flight."""
    gate = Gate()
    rig = Rig(lambda _, __: gate(GOOD), targets=1, resilience=Resilience(retry_burst=1000, caps={"t0": 1}))
    first, other, second = (FakeRequest(correlation=n, sequence_flags=flags) for n, flags in ((1, 1), (2, 1), (1, 0)))
    rig.execute(first, other, second)
    assert REFUSAL.fullmatch(message_of(answer_of(other)))
    gate.open()
    assert answer_of(first).output_tensors()
    assert answer_of(second).output_tensors()
    assert rig.closed() == {"refused_full": 1}


def test_what_was_answered_while_it_waited_is_let_go_of() -> None:
    """Behind a target that hangs, requests whose time has passed do not pile up."""
    gate = Gate()
    rig = Rig(lambda _, __: gate(GOOD), targets=1, workers=1, queue=QueueConfig(reject_late=False))
    rig.execute(busy := FakeRequest())
    waiting = [FakeRequest(timeout_us=20_000) for _ in range(100)]
    rig.execute(*waiting)
    for request in waiting:
        assert "[deadline-exceeded]" in message_of(answer_of(request))
    until(lambda: rig.dispatcher.resilience_counts()["waiting"] == 0)
    gate.open()
    answer_of(busy)
    assert rig.closed() == {"deadline_errors_waiting": 100}


def test_a_merged_target_that_hangs_keeps_nobody_in_memory() -> None:
    """Requests that were answered while they waited for company are let go of, and their slots given back."""
    gate = Gate()

    def serve(_: str, arguments: dict[str, Any]) -> Any:
        gate.wait()
        return InferenceResponse([FakeTensor.of("Y", arguments["inputs"][0].as_numpy())])

    lane = CallLane(limit=1, max_rows=16)
    rig = Rig(serve, targets=1, lanes={"t0": lane}, queue=QueueConfig(reject_late=False))
    tensors = (FakeTensor.of("X", np.ones((1, 16), np.float32)),)
    rig.execute(busy := FakeRequest(tensors=tensors))
    waiting = [FakeRequest(tensors=tensors, timeout_us=20_000) for _ in range(50)]
    rig.execute(*waiting)
    for request in waiting:
        answer_of(request)
    until(lambda: rig.engine.snapshot(0.0)[0].in_flight == 1)
    gate.open()
    answer_of(busy)
    assert rig.closed() == {"deadline_errors_waiting": 50}


def test_a_lane_that_an_edit_replaced_keeps_nobody_in_memory_either() -> None:
    """What waits at a target that hangs is let go of when it was answered, although others go another way by now."""
    gate = Gate()

    def serve(_: str, arguments: dict[str, Any]) -> Any:
        return gate(InferenceResponse([FakeTensor.of("Y", arguments["inputs"][0].as_numpy())]))

    rig = Rig(serve, targets=1, lanes={"t0": CallLane(limit=1, max_rows=16)}, queue=QueueConfig(reject_late=False))
    tensors = (FakeTensor.of("X", np.ones((1, 16), np.float32)),)
    rig.execute(busy := FakeRequest(tensors=tensors))
    waiting = [FakeRequest(tensors=tensors, timeout_us=20_000) for _ in range(50)]
    rig.execute(*waiting)
    rig.dispatcher.reconfigure(8, {}, inline=False, compares=False)
    for request in waiting:
        answer_of(request)
    until(lambda: rig.engine.snapshot(0.0)[0].in_flight == 1)
    gate.open()
    answer_of(busy)
    assert rig.closed() == {"deadline_errors_waiting": 50}


def test_waiting_requests_are_not_copied() -> None:
    """Where requests may be executed once only, there are no copies to learn from either."""
    rig = Rig(lambda _, __: GOOD, resilience=Resilience(idempotent=False))
    rig.dispatcher.mirrors.enabled = False
    for _ in range(50):
        rig.answered(FakeRequest())
    assert len(rig.calls) == 50
    assert rig.closed() == {}


def test_time_passes_while_waiting() -> None:
    """A request that waited is decided, and told to its target, with the time that is left."""
    gate, timeouts = Gate(), list[int]()

    def serve(_: str, arguments: dict[str, Any]) -> Any:
        timeouts.append(arguments["timeout"])
        return gate(GOOD)

    rig = Rig(serve, targets=1, workers=1)
    requests = [FakeRequest(), FakeRequest(timeout_us=5_000_000)]
    rig.execute(*requests)
    time.sleep(0.05)
    gate.open()
    for request in requests:
        answer_of(request)
    assert 0 < timeouts[1] <= 4_950_000
    bounds = [decision.context.max_latency_ms for decision, _ in rig.outcomes]
    assert 0 < max(bounds) <= 4_950
    assert rig.closed() == {}
