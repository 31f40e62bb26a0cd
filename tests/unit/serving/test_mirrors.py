"""Mirrored requests: complete copies, for the engine's targets only, whose answers nobody gets."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from triton_router.profiling.profile import TargetProfile
from triton_router.routing.engine import RoutingEngine
from triton_router.routing.policies import policy_named
from triton_router.routing.rules import RoutingRules
from triton_router.routing.types import Outcome, RoutingContext, Target, Verdict
from triton_router.serving.copied_request import MAX_BYTES
from triton_router.serving.exchange import Attempt, Exchange
from triton_router.serving.forwarding import Forwarder
from triton_router.serving.mirrors import Mirrors
from triton_router.serving.relay import Relay
from triton_router.serving.worker_pool import WorkerPool
from triton_router.testing.fake_stub import FakeRequest, FakeStub, FakeTensor, InferenceResponse, TritonError

if TYPE_CHECKING:
    from collections.abc import Callable

GOOD = InferenceResponse([FakeTensor("Y")])


def attempt(request: FakeRequest, decision: Any) -> Attempt:
    return Attempt(Exchange(request, decision.context, 0.0), decision, 0.0)


class Rig:
    """Mirrors over a fake stub, with a budget that is open after the first served request."""

    def __init__(self, serve: Callable[[dict[str, Any]], Any]) -> None:
        stub: Any = FakeStub(serve)
        self.engine = RoutingEngine(
            [(Target("known", "a"), TargetProfile([(16, 2.0)])), (Target("unknown", "b"), TargetProfile())],
            policy_named("latency"),
            rules=RoutingRules(mirror=0.01),
            rng=random.Random(8).random,
        )
        forwarder = Forwarder(stub, batched=True)
        relay = Relay(stub, forwarder, streaming=False, clock=time.monotonic)
        self.pool = WorkerPool(2, name="test")
        self.mirrors = Mirrors(self.engine, self.engine.finish, forwarder, relay, self.pool, clock=time.monotonic)
        self.served()

    def served(self, **wish: Any) -> Any:
        """Serve a request at the engine; return its decision."""
        decision = self.engine.decide(replace(RoutingContext(1, 16.0), **wish), 0.0)
        self.engine.finish(decision, Outcome(Verdict.SUCCESS, 2.0), 0.0)
        return decision

    def mirrored(self, request: FakeRequest, **wish: Any) -> dict[str, int]:
        """Have a request mirrored, wait for its copy, and return the counts of the target of unknown speed."""
        self.mirrors.take(attempt(request, self.served(**wish)))
        request.done.set()  # from here on the fake refuses to be asked anything, as the real one crashes
        self.pool.close()
        self.pool = WorkerPool(2, name="test")
        snapshot = self.engine.snapshot(0.0)[1]
        names = ("mirrored", "chosen", "succeeded", "failed", "refused", "cancelled", "in_flight")
        return {name: count for name in names if (count := getattr(snapshot, name))}


def test_a_copy_is_complete_before_the_request_is_answered() -> None:
    """Values, outputs and parameters travel in memory of the copy's own; the id does not, for it is the client's."""
    seen: list[dict[str, Any]] = []
    array = np.arange(16, dtype=np.float32).reshape(1, 16)
    rig = Rig(lambda arguments: seen.append(arguments) or GOOD)
    request = FakeRequest(tensors=(FakeTensor.of("X", array),), params={"mode": "x"})
    assert rig.mirrored(request) == {"mirrored": 1}
    (arguments,) = seen
    (copy,) = arguments["inputs"]
    assert (arguments["model_name"], arguments["parameters"]) == ("b", {"mode": "x"})
    assert set(arguments["requested_output_names"]) == {"Y"}
    assert not {"request_id", "trace", "correlation_id"} & set(arguments)
    np.testing.assert_array_equal(copy.as_numpy(), array)
    assert not np.shares_memory(copy.as_numpy(), array)
    assert request.answers == []


def test_closing_waits_for_the_copy_under_way() -> None:
    """A copy has no client whom Triton waits for: none may be out once the model is gone. Closing twice is no harm."""
    begun, go, seen = threading.Event(), threading.Event(), list[bool]()

    def serve(_: dict[str, Any]) -> Any:
        begun.set()
        assert go.wait(60)
        seen.append(True)
        return GOOD

    rig = Rig(serve)
    request = FakeRequest(tensors=(FakeTensor.of("X", np.zeros((1, 16), np.float32)),))
    rig.mirrors.take(attempt(request, rig.served()))
    assert begun.wait(60)
    threading.Timer(0.05, go.set).start()
    rig.mirrors.close()
    assert seen
    rig.mirrors.close()


def test_what_a_copy_shows_is_learned() -> None:
    """After its copy, a target of unknown speed has one."""
    rig = Rig(lambda _: GOOD)
    rig.mirrored(FakeRequest(tensors=(FakeTensor.of("X", np.zeros((1, 16), np.float32)),)))
    learned = rig.engine.snapshot(0.0)[1]
    assert learned.latency.count == 1


def test_a_failing_copy_counts_against_its_target_and_nobody_else() -> None:
    """An error of the target's own is a failure there; an exception is nobody's and leaves no slot taken."""
    array = FakeTensor.of("X", np.zeros((1, 16), np.float32))
    rig = Rig(lambda _: InferenceResponse([], TritonError("boom")))
    assert rig.mirrored(FakeRequest(tensors=(array,))) == {"mirrored": 1}
    failing = rig.engine.snapshot(0.0)[1]
    assert (failing.consecutive_failures, failing.error_rate > 0.0) == (1, True)


@pytest.mark.parametrize(
    "tensor",
    [
        FakeTensor("X", (1, 16)),  # BF16: has no array
        FakeTensor("X", (1, 16), np.zeros((1, 16), np.float32), on_cpu=False),
        FakeTensor.of("X", np.zeros((1, MAX_BYTES), np.int16)),
        FakeTensor.of("X", np.full((1, 65), "text", object)),
    ],
    ids=["bf16", "gpu", "large", "many strings"],
)
def test_what_cannot_be_copied_is_not_mirrored_and_tried_by_a_request_itself(tensor: FakeTensor) -> None:
    """No call, no slot taken; and as copies cannot find out about the target, live requests may."""
    rig = Rig(lambda _: pytest.fail("nothing must be called"))
    assert rig.mirrored(FakeRequest(tensors=(tensor,))) == {"mirrored": 1}
    assert "unknown" in {rig.served().target.name for _ in range(50)}


def test_requests_that_are_bound_to_a_target_are_not_mirrored() -> None:
    """A sequence's request has effects on its target's state; one with constraints may not go anywhere."""
    rig = Rig(lambda _: pytest.fail("nothing must be called"))
    assert rig.mirrored(FakeRequest(), may_explore=False, pinned="known") == {}
    assert rig.mirrored(FakeRequest(), max_memory_mb=1.0) == {}


def test_a_copy_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its target has failed, and other targets are looked at again; its slot comes back when it ends."""
    gate = threading.Event()

    def serve(_: dict[str, Any]) -> InferenceResponse:
        gate.wait(60)
        return GOOD

    rig = Rig(serve)
    monkeypatch.setattr(rig.engine, "overdue_ms", lambda _: 1.0)
    request = FakeRequest(tensors=(FakeTensor.of("X", np.ones((1, 16), np.float32)),))
    rig.mirrors.take(attempt(request, rig.served()))
    assert rig.engine.snapshot(0.0)[1].in_flight == 1
    time.sleep(0.01)
    rig.mirrors.take(attempt(request, rig.served()))
    unknown = rig.engine.snapshot(0.0)[1]
    assert (unknown.consecutive_failures, unknown.failed, unknown.in_flight) == (1, 0, 1)
    assert not rig.engine._mirrors.under_way
    gate.set()
    rig.pool.close()
    unknown = rig.engine.snapshot(0.0)[1]
    assert (unknown.consecutive_failures, unknown.in_flight, unknown.mirrored) == (1, 0, 1)
