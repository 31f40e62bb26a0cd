"""Admission: who would be late because of others is refused, nobody for ever, and told when to come back."""

from __future__ import annotations

import re
import threading
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.unit.serving.failing_targets import GOOD, Gate, Rig, answer_of, message_of, until
from triton_router.config.resilience_settings import QueueConfig
from triton_router.errors import OverloadedError
from triton_router.routing.resilience import Resilience
from triton_router.routing.types import Backend, Outcome, RoutingContext, Verdict
from triton_router.serving.admission import Admission
from triton_router.serving.call_lane import CallLane
from triton_router.serving.exchange import Attempt, Exchange
from triton_router.serving.lane_request import LaneRequest
from triton_router.serving.pace import Pace
from triton_router.serving.resilience_counts import ResilienceCounts
from triton_router.serving.waiting_room import WaitingRoom
from triton_router.testing.fake_stub import FakeRequest, FakeTensor, InferenceResponse

WORK = 16
REFUSAL = re.compile(r"\[overloaded\] \[retry-after-ms=\d+\] ")
RETRY_AFTER = re.compile(r"\[retry-after-ms=(\d+)\]")


def bounded(bound_ms: float, **options: Any) -> FakeRequest:
    return FakeRequest(params={"router_max_latency_ms": bound_ms}, **options)


def exchange_of(bound_ms: float, taken_at: float, **context: Any) -> Exchange:
    exchange = Exchange(FakeRequest(), RoutingContext(work=WORK, **context), taken_at)
    exchange.bound_ms = bound_ms
    return exchange


def echo(_: str, arguments: dict[str, Any]) -> Any:
    return InferenceResponse([FakeTensor.of("Y", arguments["inputs"][0].as_numpy())])


@pytest.mark.parametrize("bound_ms", [1005, 1100, 1190])
def test_who_has_nobody_in_front_is_let_in(bound_ms: float) -> None:
    """What is believed of an idle target is no load, however little time it leaves; so it is unlearned."""
    rig = Rig(lambda _, __: GOOD, targets=1, alone_ms=1000.0)
    for _ in range(20):
        assert rig.answered(bounded(bound_ms))[0].output_tensors()
    assert rig.engine.snapshot(0.0)[0].succeeded == 20
    assert rig.closed() == {}


def test_now_and_then_one_that_seems_late_is_let_in() -> None:
    """Behind something that never ends all would be refused for ever, whatever was wrongly believed of them."""
    gate = Gate()
    rig = Rig(lambda _, __: gate(GOOD), targets=1, alone_ms=20.0)
    rig.execute(busy := FakeRequest())
    until(lambda: rig.calls == ["t0"])
    refused = []
    for now in np.arange(100.0, 110.0, 0.1):
        exchange = exchange_of(21.0, now)
        attempt = Attempt(exchange, rig.engine.decide(exchange.context, now), now)
        try:
            rig.dispatcher.admission.refuse_late(attempt)
        except OverloadedError:
            refused.append(now)
        finally:
            rig.engine.finish(attempt.decision, Outcome(Verdict.CANCELLED, 0.0), now)
    assert 5 <= 100 - len(refused) <= 10
    assert refused[0] == 100.0
    gate.open()
    answer_of(busy)
    assert rig.closed() == {"refused_late": len(refused)}


def test_who_seems_late_even_alone_is_let_in_where_nobody_is_in_front() -> None:
    """A target that is never idle never shows what it takes alone: all it is asked may be late, and stay so."""
    gate = Gate()
    rig = Rig(lambda _, __: gate(GOOD), targets=1, alone_ms=1000.0)
    rig.execute(busy := FakeRequest())
    until(lambda: rig.calls == ["t0"])
    assert REFUSAL.match(message_of(rig.answered(bounded(500))[0]))
    gate.open()
    answer_of(busy)
    until(lambda: rig.engine.snapshot(0.0)[0].in_flight == 0)
    assert rig.answered(bounded(500))[0].output_tensors()
    assert rig.closed() == {"refused_late": 1}


def test_the_pace_of_turns_is_that_of_calls_and_not_of_answers() -> None:
    """Workers may be busy for clients who were told that their time has passed: they become free as calls end."""
    nobody: Any = SimpleNamespace(under_way=0, served=0, has_waiting=False)
    room = WaitingRoom()
    admission = Admission(1000, reject_late=True, replies=nobody, room=room, merging=nobody, counts=ResilienceCounts())
    for n in range(10):
        room.put(exchange_of(0.0, float(n)))
    admission.refuse_late_waiting(exchange_of(100.0, 10.0))
    for tick in range(20):
        room.note_sent()
        admission.look(10.0 + 0.05 * tick)
    with pytest.raises(OverloadedError, match="10 requests wait in front of it, for about 500 ms"):
        admission.refuse_late_waiting(exchange_of(599.0, 11.0))
    admission.refuse_late_waiting(exchange_of(601.0, 11.0))


def test_a_pace_is_that_of_a_queue() -> None:
    """While nobody waits, little may get through because little is asked: that says nothing of how fast it could."""
    pace = Pace()
    for tick in range(100):
        pace.look(tick * 0.05, tick, is_held_up=False)
    assert pace.wait_ms(10) == 0.0
    for tick in range(100, 200):
        pace.look(tick * 0.05, 100 + 5 * (tick - 100), is_held_up=True)
    assert pace.per_s == pytest.approx(100.0)
    assert pace.wait_ms(10) == pytest.approx(100.0)
    for tick in range(200, 400):
        pace.look(tick * 0.05, 600, is_held_up=False)
    assert pace.per_s == pytest.approx(100.0)


def test_who_hangs_slows_the_pace_and_who_is_back_restores_it() -> None:
    """A pace that has become nothing is not nothing for ever."""
    pace = Pace()
    passed = 0
    for tick, new in enumerate([5] * 50 + [0] * 600 + [5] * 100):
        passed += new
        pace.look(tick * 0.05, passed, is_held_up=True)
    assert pace.per_s == pytest.approx(100.0, rel=0.02)


def test_a_lane_tells_how_long_its_queue_takes() -> None:
    """By what went out while others waited: nobody waits where there is a slot; the more urgent wait for fewer."""
    lane = CallLane(limit=1, max_rows=16)
    assert lane.ahead_of(exchange_of(10.0, 0.0))[0] == 0
    assert lane.enter()
    rig = Rig(lambda _, __: GOOD, targets=1)
    waiting = [exchange_of(0.0, float(n)) for n in range(8)]
    for exchange in waiting:
        attempt = Attempt(exchange, rig.engine.decide(exchange.context, 0.0), 0.0)
        assert not lane.enter_or_wait(LaneRequest(attempt, key="alike"))
        rig.engine.finish(attempt.decision, Outcome(Verdict.CANCELLED, 0.0), 0.0)
    assert lane.ahead_of(exchange_of(10.0, 9.0)) == (8, 0.0, 0.0)  # how long is not known yet
    lane.look(10.0)
    for n in range(4):
        lane.leave(10.0, 1, lane.generation)
        lane.look(10.05 + 0.05 * n)
    ahead, wait_ms, _ = lane.ahead_of(exchange_of(10.0, 9.0))
    assert wait_ms == pytest.approx(ahead * 50.0)
    urgent = exchange_of(10.0, 9.0)
    urgent.priority = 1
    assert lane.ahead_of(urgent)[0] == 0
    assert rig.closed() == {}


def test_what_waits_for_company_is_refused_and_told_when_to_come_back() -> None:
    """At merged targets too: the number is the pace's, and what would wait for longer than it has goes at once."""
    one_at_a_time = threading.Lock()

    def serve(name: str, arguments: dict[str, Any]) -> Any:
        with one_at_a_time:
            time.sleep(0.02)
        return echo(name, arguments)

    # Each row costs as much as a call: they go out one at a time. What the engine believes of it is far off.
    lane = CallLane(limit=1, max_rows=16, measured=[(rows, 20.0 * rows / WORK) for rows in (16, 512)] * 20)
    patience = Resilience(retry_burst=1000, overdue_ms=60_000.0)
    rig = Rig(serve, targets=1, lanes={"t0": lane}, alone_ms=0.001, queue=QueueConfig(limit=80), resilience=patience)
    tensors = (FakeTensor.of("X", np.ones((1, WORK), np.float32)),)
    patient = [FakeRequest(tensors=tensors) for _ in range(80)]
    rig.execute(*patient)
    until(lambda: sum(bool(request.answers) for request in patient) >= 50)
    (late,) = rig.answered(FakeRequest(tensors=tensors, timeout_us=100_000))
    assert "requests wait in front of it for target 't0'" in message_of(late)
    found = RETRY_AFTER.search(message_of(late))
    assert found
    assert int(found[1]) not in {0, 1000}
    assert all(answer_of(request).output_tensors() for request in patient)
    assert rig.answered(FakeRequest(tensors=tensors, timeout_us=20_000_000))[0].output_tensors()
    assert rig.closed() == {"refused_late": 1}


def test_who_waits_for_another_backend_is_not_in_front() -> None:
    """Where a target hangs, those that only it may serve would hold everybody else up for ever."""
    gpu, cpu = frozenset({Backend.GPU}), frozenset({Backend.CPU})
    room = WaitingRoom()
    for demand, many in ((gpu, 5), (gpu | cpu, 3), (None, 2)):
        for _ in range(many):
            room.put(exchange_of(0.0, 0.0, allowed_backends=demand))
    assert room.ahead_of(exchange_of(1.0, 1.0)) == 2
    assert room.ahead_of(exchange_of(1.0, 1.0, allowed_backends=cpu)) == 5
    assert room.ahead_of(exchange_of(1.0, 1.0, allowed_backends=gpu)) == 10
    urgent = exchange_of(1.0, 1.0)
    urgent.priority = 3
    assert room.ahead_of(urgent) == 2
    room.put(urgent)
    assert room.ahead_of(urgent) == 1


def test_whose_time_passes_while_waiting_for_company_is_told_so() -> None:
    """No target was asked for it, and the count says where it was."""
    gate = Gate()
    rig = Rig(
        lambda name, arguments: gate(echo(name, arguments)), targets=1, lanes={"t0": CallLane(limit=1, max_rows=16)}
    )
    tensors = (FakeTensor.of("X", np.ones((1, WORK), np.float32)),)
    rig.execute(busy := FakeRequest(tensors=tensors))
    (response,) = rig.answered(FakeRequest(tensors=tensors, timeout_us=200_000))
    assert message_of(response).startswith(
        "[deadline-exceeded] no answer within 200 ms: it was still waiting in the router for target 't0', which was "
    )
    gate.open()
    answer_of(busy)
    assert rig.closed() == {"deadline_errors_waiting": 1}


def test_a_merged_call_that_takes_too_long_was_asked() -> None:
    """Who shares a call that hangs is told of its target, and since when it has had the request."""
    gate = Gate()
    calls: list[int] = []

    def serve(name: str, arguments: dict[str, Any]) -> Any:
        calls.append(len(arguments["inputs"][0].as_numpy()))
        if len(calls) > 1:
            gate.wait()
        else:
            until(lambda: rig.dispatcher.resilience_counts()["under_way"] == 3)
        return echo(name, arguments)

    lane = CallLane(limit=1, max_rows=16, measured=[(WORK, 3.0), (512, 3.0)] * 20)
    rig = Rig(serve, targets=1, lanes={"t0": lane}, queue=QueueConfig(reject_late=False))
    tensors = (FakeTensor.of("X", np.ones((1, WORK), np.float32)),)
    requests = [FakeRequest(tensors=tensors), *[FakeRequest(tensors=tensors, timeout_us=800_000) for _ in range(2)]]
    rig.execute(*requests)
    for request in requests[1:]:
        assert "target 't0' was asked " in message_of(answer_of(request))
    assert calls == [1, 2]
    gate.open()
    assert rig.closed() == {"deadline_errors_target": 2}
