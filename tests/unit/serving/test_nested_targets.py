"""Targets that are routed models themselves: what they have no room or no time for is no failure of theirs."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from tests.unit.serving.failing_targets import GOOD, Gate, Rig, answer_of, error, message_of
from triton_router.config.resilience_settings import RetryConfig
from triton_router.errors import DeadlineError, OverloadedError
from triton_router.routing.types import Verdict
from triton_router.serving.call_lane import CallLane
from triton_router.serving.forwarding import Forwarder
from triton_router.serving.inline_gate import InlineGate
from triton_router.serving.relay import Relay
from triton_router.testing.fake_stub import FakeRequest, FakeStub, FakeTensor, InferenceResponse, TritonError

FULL = str(OverloadedError("4 requests are under way in the router, as many as may be", retry_after_ms=70, hint="wait"))
LATE = str(DeadlineError("no answer within 20 ms: target 'x' was asked 20 ms ago", hint="allow more time"))
BLS = "Model inner - Error when running inference: "


@pytest.mark.parametrize("prefix", ["", BLS, "in ensemble 'e', "])
def test_an_overloaded_inner_model_is_no_failed_target(prefix: str) -> None:
    """Its refusal is tried elsewhere, however often it comes, and neither counted as a failure nor held against it."""

    def serve(name: str, _: dict[str, Any]) -> Any:
        if name == "t0":
            return error(prefix + FULL)
        time.sleep(0.02)  # the other one is expected to be quicker
        return GOOD

    rig = Rig(serve)
    for _ in range(20):
        assert rig.answered(FakeRequest())[0].output_tensors()
    assert rig.calls == ["t0", "t1"] * 20
    assert rig.closed() == {"retries": 20, "retries_helped": 20}
    assert rig.verdicts()[:2] == [("t0", "policy", "cancelled"), ("t1", "retry", "success")]
    assert [target.failed for target in rig.engine.snapshot(time.monotonic())] == [0, 0]


@pytest.mark.parametrize("said", [FULL, LATE])
def test_where_nobody_has_room_the_client_is_told_when_to_come_back(said: str) -> None:
    """The inner model's words stay in front, for programs to read, and get back the code that they left it with."""
    rig = Rig(lambda _, __: error(BLS + said))
    (response,) = rig.answered(FakeRequest())
    assert message_of(response) == f"{said} (2 targets were tried: 't0', 't1')"
    assert response.error().code() == TritonError.UNAVAILABLE
    assert rig.closed() == {"retries": 1}


@pytest.mark.parametrize("options", [{"params": {"router_max_latency_ms": 20}}, {"timeout_us": 20_000}])
def test_a_deadline_of_the_requests_own_is_no_failure(options: dict[str, Any]) -> None:
    """What the inner model has no time for because the client gave it none is held against nobody."""

    def serve(_: str, __: dict[str, Any]) -> Any:
        time.sleep(0.03)
        return error(LATE)

    rig = Rig(serve)
    (response,) = rig.answered(FakeRequest(**options))
    assert message_of(response).startswith("[deadline-exceeded] no answer within 20 ms")
    rig.dispatcher.close()
    assert rig.verdicts() == [("t0", "policy", "cancelled")]


def test_a_deadline_of_the_inner_models_own_is_a_failure() -> None:
    """An inner model that has a deadline of its own and misses it has failed, and another is asked."""
    rig = Rig(lambda name, _: error(LATE) if name == "t0" else GOOD)
    (response,) = rig.answered(FakeRequest(params={"router_max_latency_ms": 5000}))
    assert response.output_tensors()
    assert rig.closed() == {"retries": 1, "retries_helped": 1}
    assert rig.verdicts() == [("t0", "policy", "target_error"), ("t1", "retry", "success")]


def test_an_overloaded_inner_model_is_no_failed_target_in_line_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lone request that may not be tried again is answered with the refusal, which counts against nobody."""
    monkeypatch.setattr(InlineGate, "is_short", staticmethod(lambda _: True))  # whatever a busy machine makes of it
    full: list[bool] = []
    rig = Rig(lambda _, __: error(FULL) if full else GOOD, inline=True, retry=RetryConfig(idempotent=False))
    for _ in range(20):
        request = FakeRequest()
        if rig.dispatcher.execute([request]) is None:
            answer_of(request)
    full.append(True)
    answers = rig.dispatcher.execute([FakeRequest()])
    assert answers is not None
    assert message_of(answers[0]) == FULL
    assert rig.closed() == {}
    assert rig.verdicts()[-1][-1] == "cancelled"


def test_a_merged_call_that_there_is_no_room_for_is_not_made_many() -> None:
    """Each of its requests is tried elsewhere; the overloaded model is not asked again, once for each of them."""
    gate, full = Gate(), list[int]()

    def serve(name: str, arguments: dict[str, Any]) -> Any:
        array = arguments["inputs"][0].as_numpy()
        if name == "t1":
            return InferenceResponse([FakeTensor.of("Y", array)])
        gate.wait()
        full.append(len(array))
        return error(BLS + FULL)

    lane = CallLane(limit=1, max_rows=16, measured=[(2, 3.0), (64, 3.0)] * 20)
    rig = Rig(serve, lanes={"t0": lane})
    requests = [FakeRequest(tensors=(FakeTensor.of("X", np.full((1, 2), n, np.float32)),)) for n in range(7)]
    rig.execute(*requests)
    gate.open()
    for n, request in enumerate(requests):
        assert answer_of(request).output_tensors()[0].as_numpy().tolist() == [[n, n]]
    assert full == [1, 6]
    assert rig.closed() == {"retries": 7, "retries_helped": 7}
    assert {verdict for name, _, verdict in rig.verdicts() if name == "t0"} == {"cancelled"}


@pytest.mark.parametrize("said", [FULL, LATE])
def test_a_copy_that_there_is_no_room_or_time_for_is_no_failure(said: str) -> None:
    """A copy has the bound that a client gave its request: that an inner model goes by it says nothing of that."""
    stub: Any = FakeStub(lambda _: GOOD)
    relay = Relay(stub, Forwarder(stub, batched=True), streaming=False, clock=time.monotonic)
    assert relay.verdict_on_copy(error(BLS + said)) is Verdict.CANCELLED
    assert relay.verdict_on_copy(error("boom")) is Verdict.TARGET_ERROR
    assert relay.verdict_on_copy(GOOD) is Verdict.SUCCESS
