"""Deadlines: a client hears in time, whatever targets do; what they still do is accounted for."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.unit.serving.failing_targets import GOOD, Gate, Rig, answer_of, error, message_of, until
from triton_router.config.resilience_settings import DeadlineConfig
from triton_router.routing.resilience import Resilience
from triton_router.serving import forwarding
from triton_router.serving.timekeeper import Timekeeper
from triton_router.testing.fake_stub import FakeRequest, InferenceResponse, TritonError

DAY_US = 86_400_000_000


def test_a_late_answer_becomes_a_deadline_error() -> None:
    """The client hears what, how long and of which target; the slot is kept until the call ends, and then counted."""
    gate = Gate()
    rig = Rig(lambda _, __: gate(GOOD), targets=1)
    (response,) = rig.answered(FakeRequest(params={"router_max_latency_ms": 300}))
    assert message_of(response).startswith("[deadline-exceeded] no answer within 300 ms: target 't0' was asked ")
    assert "hint: allow more time" in message_of(response)
    assert response.error().code() == TritonError.UNAVAILABLE
    assert rig.engine.snapshot(0.0)[0].in_flight == 1
    assert rig.dispatcher.resilience_counts()["abandoned"] == 1
    gate.open()
    assert rig.closed() == {"deadline_errors_target": 1}
    assert rig.verdicts() == [("t0", "only", "success")]


@pytest.mark.parametrize(
    ("params", "timeout_us", "default_ms", "bound"),
    [
        ({"router_max_latency_ms": 200}, 0, 0.0, "200"),
        ({}, 300_000, 0.0, "300"),
        ({"router_max_latency_ms": 500}, 250_000, 0.0, "250"),
        ({"router_max_latency_ms": 250}, 500_000, 100.0, "250"),
        ({}, 0, 150.0, "150"),
        ({}, 2 * DAY_US, 150.0, "150"),
    ],
    ids=["parameter", "timeout", "timeout is smaller", "parameter is smaller", "default", "timeout of two days"],
)
def test_the_bound_is_the_smallest_that_was_asked_for(
    params: dict[str, Any], timeout_us: int, default_ms: float, bound: str
) -> None:
    """The request's own, of which the smaller; else the default."""
    gate = Gate()
    rig = Rig(lambda _, __: gate(GOOD), targets=1, deadline=DeadlineConfig(default_ms=default_ms))
    (response,) = rig.answered(FakeRequest(params=params, timeout_us=timeout_us))
    assert f"no answer within {bound} ms" in message_of(response)
    gate.open()
    assert rig.closed() == {"deadline_errors_target": 1}


def test_bounds_may_be_wishes_only() -> None:
    """Without enforcement a late answer is still the answer."""

    def slow(_: str, __: dict[str, Any]) -> Any:
        time.sleep(0.05)
        return GOOD

    rig = Rig(slow, targets=1, deadline=DeadlineConfig(enforce=False))
    (response,) = rig.answered(FakeRequest(params={"router_max_latency_ms": 1}))
    assert response.output_tensors()
    assert rig.closed() == {}


def test_what_is_late_already_is_not_sent_to_a_target() -> None:
    """A request whose time passes while it waits for a worker is answered then, and reaches no target."""
    gate = Gate()
    rig = Rig(lambda _, __: gate(GOOD), targets=1, workers=1)
    busy, waiting = FakeRequest(), FakeRequest(timeout_us=200_000)
    rig.execute(busy, waiting)
    assert "still waiting in the router, and no target was asked" in message_of(answer_of(waiting))
    assert len(rig.calls) == 1
    gate.open()
    answer_of(busy)
    assert rig.closed() == {"deadline_errors_waiting": 1}
    assert len(rig.calls) == 1


def test_what_failed_too_late_is_not_retried() -> None:
    """A failure after the deadline finds its client answered already."""
    gate = Gate()
    rig = Rig(lambda _, __: gate(error()))
    (response,) = rig.answered(FakeRequest(params={"router_max_latency_ms": 200}))
    assert message_of(response).startswith("[deadline-exceeded]")
    gate.open()
    assert rig.closed() == {"deadline_errors_target": 1}
    assert len(rig.calls) == 1


@pytest.mark.parametrize("first", [error(), error("[overloaded] no room", TritonError.UNAVAILABLE)])
def test_a_late_client_hears_of_every_target_that_was_asked(first: InferenceResponse) -> None:
    """Of one that failed, or had no room and did not fail, and of one that is still at it."""
    gate = Gate()
    rig = Rig(lambda name, _: first if name == "t0" else gate(GOOD))
    (response,) = rig.answered(FakeRequest(params={"router_max_latency_ms": 300}))
    assert "target 't0' did not serve it" in message_of(response)
    assert "target 't1' was asked" in message_of(response)
    gate.open()
    assert rig.closed()["deadline_errors_target"] == 1


def test_the_target_gets_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timeout that a client set is passed on as it came at first, and less by what was spent at a retry."""
    monkeypatch.setattr(forwarding, "_AT_ONCE_S", 0.4)  # a busy machine is not so quick
    seen: list[int] = []

    def serve(name: str, arguments: dict[str, Any]) -> Any:
        seen.append(arguments["timeout"])
        if name == "t0":
            time.sleep(0.5)
            return error()
        return GOOD

    rig = Rig(serve, resilience=Resilience(retry_burst=1000, overdue_ms=60_000.0))
    assert rig.answered(FakeRequest(timeout_us=50_000_000))[0].output_tensors()
    assert seen[0] == 50_000_000
    assert 0 < seen[1] <= 49_500_000
    assert rig.closed() == {"retries": 1, "retries_helped": 1}


@pytest.mark.parametrize("streaming", [False, True])
def test_a_timeout_of_the_clients_own_is_no_failure_of_the_target(streaming: bool) -> None:
    """Clients with little time neither send a target out nor use up retries; a queue's own limit is a failure still."""

    def serve(name: str, arguments: dict[str, Any]) -> Any:
        if name == "t1":
            return [GOOD] if streaming else GOOD
        time.sleep(arguments["timeout"] / 1e6)
        expired = error("Request timeout expired", TritonError.UNAVAILABLE)
        return [expired] if streaming else expired

    rig = Rig(serve, deadline=DeadlineConfig(enforce=False), streaming=streaming)
    for _ in range(5):
        (response,) = rig.answered(FakeRequest(timeout_us=3000))
        assert message_of(response) == "Request timeout expired"
    rig.answered(FakeRequest())
    assert rig.closed() == {"retries": 1, "retries_helped": 1}
    assert rig.verdicts()[4:] == [
        ("t0", "policy", "cancelled"),
        ("t0", "policy", "target_error"),
        ("t1", "retry", "success"),
    ]


def test_a_request_of_a_sequence_has_a_deadline_too() -> None:
    """It is answered in time; the sequence goes on in order behind the call that hangs."""
    gate = Gate()
    rig = Rig(lambda _, __: gate(GOOD))
    late = FakeRequest(correlation=7, sequence_flags=1, timeout_us=200_000)
    following = FakeRequest(correlation=7)
    rig.execute(late, following)
    assert "[deadline-exceeded]" in message_of(answer_of(late))
    gate.open()
    assert answer_of(following).output_tensors()
    assert rig.closed() == {"deadline_errors_target": 1}


def test_a_stream_has_to_begin_in_time() -> None:
    """A stream whose first response comes in time may take as long as it likes."""

    def serve(_: str, arguments: dict[str, Any]) -> Any:
        yield GOOD
        time.sleep(0.6)
        yield GOOD

    rig = Rig(serve, streaming=True)
    request = FakeRequest(params={"router_max_latency_ms": 500})
    rig.answered(request)
    assert [flags for _, flags in request.answers] == [0, 0, 1]
    assert rig.closed() == {}


def test_a_distant_deadline_keeps_nothing_in_memory() -> None:
    """Once a request is answered, the thread that meets deadlines knows nothing of it."""
    rig = Rig(lambda _, __: GOOD, targets=1)
    for _ in range(50):
        assert rig.answered(FakeRequest(timeout_us=60_000_000))[0].output_tensors()
    assert not rig.dispatcher._oversight._timekeeper._due  # pyright: ignore[reportPrivateUsage]
    assert rig.closed() == {}


def test_the_timekeeper_survives_its_jobs() -> None:
    """A job that raises keeps no other from being done, in the order in which they are due."""
    done: list[str] = []
    keeper = Timekeeper(lambda _: None, clock=time.monotonic)
    keeper.start()
    now = time.monotonic()

    def fail(_: float) -> None:
        raise ZeroDivisionError

    keeper.at(now + 0.45, lambda _: done.append("second"))
    keeper.at(now + 0.3, fail)
    keeper.at(now + 0.15, lambda _: done.append("first"))
    until(lambda: len(done) == 2)
    keeper.close()
    assert done == ["first", "second"]


def test_a_response_that_cannot_be_sent_at_the_deadline_ends_nothing_else() -> None:
    """A client that cannot be told is no reason for others not to be."""

    class Unreachable(FakeRequest):
        def send(self, response: Any = None, flags: int = 0) -> None:
            raise RuntimeError("the client's connection is gone")

    gate = Gate()
    rig = Rig(lambda _, __: gate(GOOD), targets=1)
    rig.execute(Unreachable(timeout_us=200_000))
    assert isinstance(rig.answered(FakeRequest(timeout_us=300_000))[0], InferenceResponse)
    gate.open()
    assert rig.closed() == {"deadline_errors_target": 2}
