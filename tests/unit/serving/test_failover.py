"""Failover: whatever targets do, each request is answered once, each attempt accounted for once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.unit.serving.failing_targets import GOOD, Gate, Rig, answer_of, error, message_of, until
from triton_router.config.resilience_settings import HedgeConfig, RetryConfig
from triton_router.routing.resilience import Resilience
from triton_router.routing.types import RoutingContext
from triton_router.serving.call_lane import CallLane
from triton_router.serving.exchange import Exchange
from triton_router.serving.inline_gate import InlineGate
from triton_router.serving.replies import STALE_S
from triton_router.testing.fake_stub import FakeRequest, FakeTensor, InferenceResponse, TritonError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from triton_router.routing.types import RoutingDecision

WRONG = "[request id: 1] unexpected shape for input 'X' for model 'm'. Expected [-1], got [2,2]"
OVERDUE = Resilience(retry_burst=1000, overdue_ms=300.0)


def test_a_failed_attempt_goes_to_the_next_target() -> None:
    """The client gets the second target's answer and hears nothing of the first."""
    rig = Rig(lambda name, _: error() if name == "t0" else GOOD)
    (response,) = rig.answered(FakeRequest())
    assert response.output_tensors() == GOOD.output_tensors()
    assert rig.closed() == {"retries": 1, "retries_helped": 1}
    assert rig.verdicts() == [("t0", "policy", "target_error"), ("t1", "retry", "success")]


def test_an_exception_is_a_failed_attempt_too() -> None:
    """What exec() raises is no reason for the client to hear of it while there is another target."""

    def serve(name: str, _: dict[str, Any]) -> Any:
        if name == "t0":
            raise RuntimeError("broken pipe")
        return GOOD

    rig = Rig(serve)
    assert rig.answered(FakeRequest())[0].output_tensors()
    assert rig.closed() == {"retries": 1, "retries_helped": 1}


def test_the_first_failure_is_what_the_client_hears() -> None:
    """When all have failed, the message is the first target's, with who else was tried."""
    rig = Rig(lambda name, _: error(f"{name} is out of memory", TritonError.UNAVAILABLE), targets=5)
    (response,) = rig.answered(FakeRequest())
    assert message_of(response) == "t0 is out of memory (3 targets were tried: 't0', 't1', 't2')"
    assert response.error().code() == TritonError.UNAVAILABLE
    assert rig.closed() == {"retries": 2}


def test_where_one_target_was_tried_its_message_is_unchanged() -> None:
    """A single failure is relayed word for word."""
    rig = Rig(lambda _, __: error("boom"), targets=1)
    assert message_of(rig.answered(FakeRequest())[0]) == "boom"
    assert rig.closed() == {}


def test_an_error_of_the_client_is_never_retried() -> None:
    """A wrong request is wrong everywhere."""
    rig = Rig(lambda _, __: error(WRONG))
    assert message_of(rig.answered(FakeRequest())[0]) == WRONG
    assert rig.calls == ["t0"]
    assert rig.closed() == {}


def test_what_may_be_executed_once_is_executed_once() -> None:
    """Where requests are not idempotent a target's failure is the client's."""
    rig = Rig(lambda _, __: error("boom"), resilience=Resilience(idempotent=False), retry=RetryConfig(idempotent=False))
    assert message_of(rig.answered(FakeRequest())[0]) == "boom"
    assert rig.closed() == {}


def test_the_budget_bounds_the_load() -> None:
    """Without tokens a failure is the client's: an outage does not double the load."""
    rig = Rig(lambda _, __: error("boom"), resilience=Resilience(retry_burst=2, retry_share=0.0))
    for _ in range(10):
        rig.answered(FakeRequest())
    assert len(rig.calls) == 12
    assert rig.closed() == {"retries": 2}


def test_a_sequence_is_never_retried() -> None:
    """Not even its first request: the state would be elsewhere."""
    rig = Rig(lambda _, __: error("boom"))
    requests = [FakeRequest(correlation=7, sequence_flags=flags) for flags in (1, 0, 2)]
    assert [message_of(response) for response in rig.answered(*requests)] == ["boom"] * 3
    assert rig.calls == ["t0"] * 3
    assert rig.closed() == {}


def test_a_lone_request_served_inline_is_retried_too() -> None:
    """A failure in execute() itself goes on in a worker."""
    failures: list[int] = []
    rig = Rig(lambda _, __: error() if failures and failures.pop() else GOOD, inline=True)
    for _ in range(20):
        request = FakeRequest()
        if rig.dispatcher.execute([request]) is None:
            answer_of(request)
    failures.append(1)
    request = FakeRequest()
    assert rig.dispatcher.execute([request]) is None
    assert answer_of(request).output_tensors()
    assert rig.closed() == {"retries": 1, "retries_helped": 1}


def test_a_lone_client_that_left_before_its_target_was_asked_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long deciding took, whoever is served in execute() gets an answer from it."""
    monkeypatch.setattr(InlineGate, "is_short", staticmethod(lambda _: True))  # whatever a busy machine makes of it
    rig = Rig(lambda _, __: GOOD, inline=True)
    for _ in range(20):
        request = FakeRequest()
        if rig.dispatcher.execute([request]) is None:
            answer_of(request)
    decide = rig.engine.decide

    def slowly(context: RoutingContext, now: float) -> RoutingDecision:
        time.sleep(2 * STALE_S)
        return decide(context, now)

    monkeypatch.setattr(rig.engine, "decide", slowly)
    calls = len(rig.calls)
    answers = rig.dispatcher.execute([FakeRequest(cancelled=True)])
    assert answers is not None
    assert "cancelled" in message_of(answers[0])
    assert len(rig.calls) == calls
    assert rig.verdicts()[-1][-1] == "cancelled"
    assert rig.closed() == {}


def test_a_cancelled_request_is_not_retried() -> None:
    """Before another target is asked, the client is."""
    request = FakeRequest()

    def serve(_: str, __: dict[str, Any]) -> Any:
        request.cancelled = True
        return error()

    rig = Rig(serve)
    assert "cancelled" in message_of(rig.answered(request)[0])
    assert rig.calls == ["t0"]
    assert rig.closed() == {}


def test_a_stream_fails_over_before_its_first_response() -> None:
    """Nobody has seen anything yet, so that another target may begin."""

    def serve(name: str, _: dict[str, Any]) -> Iterator[InferenceResponse]:
        yield from [error()] if name == "t0" else [GOOD, GOOD]

    rig = Rig(serve, streaming=True)
    request = FakeRequest()
    rig.answered(request)
    assert [flags for _, flags in request.answers] == [0, 0, 1]
    assert rig.closed() == {"retries": 1, "retries_helped": 1}


def test_a_stream_that_has_begun_does_not_begin_again() -> None:
    """After its first response an error is the client's."""

    def serve(_: str, __: dict[str, Any]) -> Iterator[InferenceResponse]:
        yield from [GOOD, error()]

    rig = Rig(serve, streaming=True)
    request = FakeRequest()
    assert message_of(rig.answered(request)[0]) == "boom"
    assert [flags for _, flags in request.answers] == [0, 1]
    assert rig.calls == ["t0"]
    assert rig.closed() == {}


def test_a_target_that_hangs_is_given_up() -> None:
    """The client gets the other's answer; the slot is kept until the call really ends, and then given back."""
    gate = Gate()
    rig = Rig(lambda name, _: gate(GOOD) if name == "t0" else GOOD, resilience=OVERDUE)
    (response,) = rig.answered(FakeRequest())
    assert response.output_tensors()
    assert rig.engine.snapshot(0.0)[0].in_flight == 1
    gate.open()
    assert rig.closed() == {"retries": 1, "retries_helped": 1, "overdue": 1}
    assert sorted(rig.verdicts()) == [("t0", "policy", "success"), ("t1", "retry", "success")]
    assert [target.failed for target in rig.engine.snapshot(0.0)] == [1, 0]


def test_an_attempt_that_was_given_up_may_still_answer() -> None:
    """If nobody else can, a late answer is better than none."""
    gate = Gate()
    rig = Rig(lambda name, _: gate(GOOD) if name == "t0" else error(), resilience=OVERDUE)
    request = FakeRequest()
    rig.execute(request)
    until(lambda: len(rig.outcomes) == 1)
    assert not request.done.is_set()
    gate.open()
    assert answer_of(request).output_tensors()
    assert rig.closed() == {"retries": 1, "overdue": 1}


def test_what_a_dead_target_had_goes_elsewhere_whatever_the_budget() -> None:
    """Its process has ended: nobody works on it any more, so serving it elsewhere puts no more load on anybody."""
    gate = Gate()
    rig = Rig(
        lambda name, _: gate(GOOD) if name == "t0" else GOOD,
        targets=3,
        resilience=Resilience(retry_share=0.0, retry_burst=0),
    )
    request = FakeRequest()
    rig.execute(request)
    until(lambda: rig.calls == ["t0"])
    rig.dispatcher.lose("t0", 0.0)
    rig.dispatcher.lose("t1", time.monotonic())
    assert not rig.dispatcher.resilience_counts()["overdue"], "neither what came later nor what others have is lost"
    rig.dispatcher.lose("t0", time.monotonic())
    assert answer_of(request).output_tensors() == GOOD.output_tensors()
    gate.open()
    assert rig.closed() == {"overdue": 1, "retries": 1, "retries_helped": 1}


def test_who_was_refused_a_retry_gets_one_when_the_budget_has_filled_up() -> None:
    """A request at a target that hangs, overdue while the budget is spent, does not wait until the target answers."""
    gate = Gate()
    spent = Resilience(retry_burst=0, retry_share=3.0, overdue_ms=20.0)
    rig = Rig(lambda name, _: gate(GOOD) if name == "t0" else GOOD, resilience=spent)
    request = FakeRequest()
    rig.execute(request)
    until(lambda: rig.engine.snapshot(0.0)[0].failed == 1)
    assert not request.done.is_set()
    another = FakeRequest()
    rig.execute(another)  # its part of the budget is enough for both
    until(request.done.is_set)
    gate.open()
    assert answer_of(request).output_tensors()
    assert answer_of(another).output_tensors()
    counts = rig.closed()
    assert counts["retries"] == counts["retries_helped"] == 2


def test_two_streams_do_not_mix() -> None:
    """The client gets the responses of the attempt whose first came first, whatever another brings later."""
    gate, other = Gate(), Gate()
    late = InferenceResponse([FakeTensor("Y", (9, 9))])

    def serve(name: str, _: dict[str, Any]) -> Iterator[InferenceResponse]:
        if name == "t0":
            gate.wait()
            yield late
            other.open()
        else:
            yield GOOD
            gate.open()
            other.wait()
            yield GOOD

    rig = Rig(serve, streaming=True, resilience=OVERDUE)
    request = FakeRequest()
    rig.answered(request)
    assert [response for response, _ in request.answers] == [GOOD, GOOD, None]
    assert rig.closed() == {"retries": 1, "retries_helped": 1, "overdue": 1}


HEDGED: dict[str, Any] = {
    "resilience": Resilience(retry_burst=1000, hedge_share=1.0),
    "hedge": HedgeConfig(share=1.0),
}


def test_the_first_answer_of_a_hedged_request_counts() -> None:
    """A second target answers while the first is at it; the first one's outcome is recorded all the same."""
    gate = Gate()
    rig = Rig(lambda name, _: gate(GOOD) if name == "t0" else GOOD, **HEDGED)
    (response,) = rig.answered(FakeRequest())
    assert response.output_tensors()
    gate.open()
    assert rig.closed() == {"hedges": 1, "hedges_won": 1}
    assert sorted(rig.verdicts()) == [("t0", "policy", "success"), ("t1", "hedge", "success")]


def test_a_failed_hedge_is_nobodys_error() -> None:
    """The first attempt is still at it and answers."""
    gate = Gate()
    rig = Rig(lambda name, _: gate(GOOD) if name == "t0" else error(), **HEDGED)
    request = FakeRequest()
    rig.execute(request)
    until(lambda: len(rig.outcomes) == 1)
    assert not request.done.is_set()
    gate.open()
    assert answer_of(request).output_tensors()
    assert rig.closed() == {"hedges": 1}


def test_if_both_of_a_hedged_request_fail_the_third_is_asked() -> None:
    """Whoever fails last sees to the retry."""
    gate = Gate()

    def serve(name: str, _: dict[str, Any]) -> Any:
        if name == "t0":
            gate.wait()
        return GOOD if name == "t2" else error()

    rig = Rig(serve, targets=3, **HEDGED)
    request = FakeRequest()
    rig.execute(request)
    until(lambda: len(rig.outcomes) == 1)
    gate.open()
    assert answer_of(request).output_tensors()
    assert rig.closed() == {"hedges": 1, "retries": 1, "retries_helped": 1}


def test_a_cancelled_request_is_not_hedged() -> None:
    """Its client has left: nobody waits for a faster answer."""
    gate = Gate()
    rig = Rig(lambda _, __: gate(GOOD), **HEDGED)
    request = FakeRequest(cancelled=True)
    rig.execute(request)
    time.sleep(0.1)
    gate.open()
    answer_of(request)
    assert rig.calls == ["t0"]
    assert rig.closed() == {}


@pytest.mark.parametrize("workers", [1, 8])
def test_every_member_of_a_merged_call_fails_over(workers: int) -> None:
    """A merged call to a target that answers nobody sends each of its requests elsewhere."""
    gate = Gate()
    dead = "Stub process 't0' is not healthy."

    def serve(name: str, arguments: dict[str, Any]) -> Any:
        if name == "t0":
            gate.wait()
            return error(dead)
        return InferenceResponse([FakeTensor.of("Y", arguments["inputs"][0].as_numpy() * 2)])

    lane = CallLane(limit=1, max_rows=16, measured=[(2, 3.0), (64, 3.0)] * 20)
    rig = Rig(serve, lanes={"t0": lane}, workers=workers, targets=2)
    requests = [FakeRequest(tensors=(FakeTensor.of("X", np.full((1, 16), n, np.float32)),)) for n in range(9)]
    rig.execute(*requests)
    gate.open()
    for n, request in enumerate(requests):
        assert answer_of(request).output_tensors()[0].as_numpy()[0, 0] == 2.0 * n
    assert rig.calls.count("t0") <= 3
    counts = rig.closed()
    assert counts["retries"] == counts["retries_helped"] > 0


def test_a_request_whose_last_attempt_has_just_ended_is_not_tried_again() -> None:
    """Whoever gave an attempt up may come to ask for another one when it has ended, and answered the request."""
    rig = Rig(lambda _, __: GOOD)
    exchange = Exchange(FakeRequest(), RoutingContext(1, 16), time.monotonic())
    assert rig.dispatcher.failover.another(exchange, time.monotonic()) is None
