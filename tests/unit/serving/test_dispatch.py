"""Dispatch: every request is answered exactly once, whatever breaks, and every slot is released."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from triton_router.profiling.profile import TargetProfile
from triton_router.routing.engine import RoutingEngine
from triton_router.routing.policies import policy_named
from triton_router.routing.rules import RoutingRules
from triton_router.routing.types import Target
from triton_router.serving.assembly import Way, assembled
from triton_router.testing.fake_stub import FakeRequest, FakeStub, FakeTensor, InferenceResponse, TritonError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GOOD = InferenceResponse([FakeTensor("Y")])


class Rig:
    """A dispatcher over a fake stub."""

    def __init__(
        self, serve: Callable[[dict[str, Any]], Any], *, streaming: bool = False, inline: bool = False, targets: int = 1
    ) -> None:
        stub: Any = FakeStub(serve)
        self.engine = RoutingEngine(
            [(Target(f"t{i}", f"m{i}"), TargetProfile([(16, 0.5)])) for i in range(targets)],
            policy_named("least-request"),
            rules=RoutingRules(explore=0.0),
            rng=random.Random(8).random,
        )
        way = Way(streaming=streaming, inline=inline, workers=8, targets=targets)
        self.dispatcher = assembled(stub, self.engine, self.engine.finish, way, warn=print)

    def answered(self, *requests: FakeRequest) -> list[list[tuple[Any, int]]]:
        """Execute the requests and return their answers once all have had their last."""
        returned = self.dispatcher.execute(requests)
        if returned is not None:
            return [[(response, 1)] for response in returned]
        for request in requests:
            assert request.done.wait(60), "a request was never answered"
        return [request.answers for request in requests]

    def counts(self) -> dict[str, int]:
        self.dispatcher.close()
        snapshot = self.engine.snapshot(0.0)
        names = ("in_flight", "succeeded", "failed", "refused", "cancelled")
        return {name: sum(getattr(target, name) for target in snapshot) for name in names}


def none_but(**counts: int) -> dict[str, int]:
    return {"in_flight": 0, "succeeded": 0, "failed": 0, "refused": 0, "cancelled": 0, **counts}


def test_a_request_is_forwarded_whole_and_its_outputs_returned() -> None:
    """The target gets the request's id, outputs, parameters; the client gets the target's tensors."""
    seen: list[dict[str, Any]] = []
    rig = Rig(lambda arguments: seen.append(arguments) or GOOD)
    ((response, flags),) = rig.answered(FakeRequest(params={"a": 1, "b": "x", "c": True}))[0]
    assert flags == 1
    assert response.output_tensors() == GOOD.output_tensors()
    assert seen[0]["model_name"] == "m0"
    assert seen[0]["request_id"] == "id"
    assert seen[0]["requested_output_names"] == ["Y"]
    assert seen[0]["parameters"] == {"a": 1, "b": "x", "c": True}
    assert rig.counts() == none_but(succeeded=1)


def test_an_error_of_the_target_is_relayed_with_its_message() -> None:
    """A target's error reaches the client; it counts as the target's failure."""
    rig = Rig(lambda _: InferenceResponse([], TritonError("boom")))
    ((response, _),) = rig.answered(FakeRequest())[0]
    assert response.error().message() == "boom"
    assert rig.counts() == none_but(failed=1)


def test_a_wrong_request_is_not_the_targets_fault() -> None:
    """An error whose words are those of a wrong request gets INVALID_ARG back and spares the target's health."""
    message = "[request id: 1] unexpected shape for input 'X' for model 'm'. Expected [-1], got [2,2]"
    rig = Rig(lambda _: InferenceResponse([], TritonError(message)))
    ((response, _),) = rig.answered(FakeRequest())[0]
    assert response.error().code() == TritonError.INVALID_ARG
    assert response.error().message() == message
    assert rig.counts() == none_but(refused=1)


@pytest.mark.parametrize("inline", [False, True])
def test_an_exception_is_answered(inline: bool) -> None:
    """Whatever a call raises, its client hears of it, and the next is served by the same workers."""

    def serve(arguments: dict[str, Any]) -> Any:
        if arguments["parameters"]:
            raise RuntimeError("broken pipe")
        return GOOD

    rig = Rig(serve, inline=inline)
    for _ in range(20):
        ((response, _),) = rig.answered(FakeRequest(params={"fail": 1}))[0]
        assert "broken pipe" in response.error().message()
    assert rig.answered(FakeRequest())[0][0][0].output_tensors()
    assert rig.counts() == none_but(failed=20, succeeded=1)


def test_a_request_that_cannot_even_be_read_is_answered() -> None:
    """An exception before any decision still reaches the client as an error."""

    class Unreadable(FakeRequest):
        def inputs(self) -> list[FakeTensor]:
            raise RuntimeError("no inputs for you")

    rig = Rig(lambda _: GOOD)
    ((response, _),) = rig.answered(Unreadable())[0]
    assert "no inputs for you" in response.error().message()
    assert rig.counts() == none_but()


def test_parameters_that_cannot_travel_are_refused_by_name() -> None:
    """A float parameter is refused with INVALID_ARG, never dropped."""
    rig = Rig(lambda _: GOOD)
    ((response, _),) = rig.answered(FakeRequest(params={"temperature": 0.7}))[0]
    assert response.error().code() == TritonError.INVALID_ARG
    assert "temperature" in response.error().message()
    assert rig.counts() == none_but(refused=1)


def test_sequences_whose_target_hangs_take_no_worker_from_others() -> None:
    """More sequences than there are workers wait for a target that hangs; a request of no sequence is answered."""
    released = threading.Event()

    def serve(arguments: dict[str, Any]) -> Any:
        if arguments["correlation_id"]:
            released.wait(60)
        return GOOD

    rig = Rig(serve)
    hanging = [FakeRequest(correlation=number, sequence_flags=3) for number in range(1, 21)]
    rig.dispatcher.execute(hanging)
    ((response, _),) = rig.answered(FakeRequest())[0]
    assert not response.has_error()
    assert not any(request.answers for request in hanging)
    released.set()
    for request in hanging:
        assert request.done.wait(60)
    assert rig.counts() == none_but(succeeded=21)


def test_what_is_meant_for_the_router_may_be_any_number() -> None:
    """A bound such as 2500.5 is read by the router, and goes on to the target as text."""
    seen: list[dict[str, Any]] = []
    rig = Rig(lambda arguments: seen.append(arguments) or GOOD)
    ((response, _),) = rig.answered(FakeRequest(params={"router_max_latency_ms": 2500.5}))[0]
    assert not response.has_error()
    assert seen[0]["parameters"] == {"router_max_latency_ms": "2500.5"}


def test_what_cannot_be_read_is_not_the_targets_fault() -> None:
    """An id that is not UTF-8 is refused as the client's; no number of them sends a healthy target out."""

    class Garbled(FakeRequest):
        def request_id(self) -> str:
            return b"\xff".decode()

    rig = Rig(lambda _: GOOD)
    for _ in range(10):
        ((response, _),) = rig.answered(Garbled())[0]
        assert response.error().code() == TritonError.INVALID_ARG
        assert "UTF-8" in response.error().message()
    assert rig.counts() == none_but(refused=10)


@pytest.mark.parametrize("inline", [False, True])
def test_a_garbled_correlation_id_is_answered(inline: bool) -> None:
    """Nothing that a request says makes execute() raise."""

    class Garbled(FakeRequest):
        def correlation_id(self) -> int | str:
            return b"\xff".decode()

    rig = Rig(lambda _: GOOD, inline=inline)
    for _ in range(20):
        request = FakeRequest()
        if rig.dispatcher.execute([request]) is None:
            assert request.done.wait(60)
    garbled = Garbled()
    answer = rig.dispatcher.execute([garbled])
    response = answer[0] if answer else garbled.answers[0][0]
    assert "utf-8" in response.error().message()


def test_an_answer_that_does_not_fit_becomes_an_error_that_does() -> None:
    """If the response cannot be sent, for want of shared memory say, the client still hears of it."""

    class Full(FakeRequest):
        def send(self, response: Any = None, flags: int = 0) -> None:
            if response is not None and not response.has_error():
                raise RuntimeError("Failed to increase the shared memory pool size")
            super().send(response, flags)

    rig = Rig(lambda _: GOOD)
    ((response, _),) = rig.answered(Full())[0]
    assert "shared memory" in response.error().message()
    assert rig.counts() == none_but(succeeded=1)


def test_a_refusal_that_cannot_be_sent_ends_nothing_else() -> None:
    """What cannot be sent when a request is refused never leaves execute(): others of it are under way."""

    class Full(FakeRequest):
        def send(self, response: Any = None, flags: int = 0) -> None:
            if "goal" in response.error().message():
                raise RuntimeError("Failed to increase the shared memory pool size")
            super().send(response, flags)

    rig = Rig(lambda _: GOOD)
    (response, _), (good, _) = (
        answers[-1] for answers in rig.answered(Full(params={"router_goal": "nonsense"}), FakeRequest())
    )
    assert "shared memory" in response.error().message()
    assert not good.has_error()
    assert rig.counts() == none_but(succeeded=1)


def test_no_slot_is_lost_when_no_worker_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without threads every request is answered with an error and its slot released."""

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    rig = Rig(lambda _: GOOD)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        ((response, _),) = rig.answered(FakeRequest())[0]
    assert "can't start new thread" in response.error().message()
    assert rig.counts() == none_but(cancelled=1)


def test_a_sequence_goes_on_after_no_worker_could_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """What no thread can be had for is served by execute() itself; the sequence's next request waits for nobody."""

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    rig = Rig(lambda _: GOOD)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        rig.answered(FakeRequest(correlation=7, sequence_flags=1))
    rig.answered(FakeRequest(correlation=7))
    assert rig.counts() == none_but(succeeded=2)


def test_a_slow_request_among_fast_ones_does_not_hold_execute_up() -> None:
    """However fast the small requests were, one predicted to be long goes to a worker."""

    def serve(arguments: dict[str, Any]) -> Any:
        work = arguments["inputs"][0].shape()[1]
        time.sleep(0.05 if work > 1000 else 0)
        return GOOD

    rig = Rig(serve, inline=True)
    big = (FakeTensor("X", (1, 4096)),)
    for tensors in [(FakeTensor(),)] * 5 + [big] * 5 + [(FakeTensor(),)] * 30:
        request = FakeRequest(tensors=tensors)
        if rig.dispatcher.execute([request]) is None:
            assert request.done.wait(60)
    request = FakeRequest(tensors=big)
    assert rig.dispatcher.execute([request]) is None
    assert request.done.wait(60)
    assert rig.counts()["in_flight"] == 0


def test_a_cancelled_stream_is_not_sent_on() -> None:
    """Once the client of a stream has left, the target's further responses are dropped and its time not learned."""
    request = FakeRequest()

    def serve(_: dict[str, Any]) -> Iterator[InferenceResponse]:
        yield GOOD
        request.cancelled = True
        time.sleep(0.06)
        for _ in range(5):
            yield GOOD

    rig = Rig(serve, streaming=True)
    answers = rig.answered(request)[0]
    assert [flags for _, flags in answers] == [0, 1]
    assert rig.counts() == none_but(cancelled=1)


def test_a_client_that_left_while_waiting_is_not_served() -> None:
    """With all workers busy, a request cancelled in the queue never reaches a target."""
    release = threading.Event()
    served: list[int] = []

    def serve(_: dict[str, Any]) -> Any:
        served.append(1)
        release.wait(60)
        return GOOD

    rig = Rig(serve)
    busy = [FakeRequest() for _ in range(8)]
    rig.dispatcher.execute(busy)
    waiting = FakeRequest(cancelled=True)
    rig.dispatcher.execute([waiting])
    time.sleep(0.02)
    release.set()
    assert waiting.done.wait(60)
    for request in busy:
        assert request.done.wait(60)
    assert "cancelled" in waiting.answers[0][0].error().message()
    assert len(served) == 8
    assert rig.counts() == none_but(succeeded=8), "no target was chosen for it"


def test_requests_are_served_concurrently_up_to_the_limit() -> None:
    """Eight workers have eight calls in flight at once, and never nine."""
    lock, now, most, all_at_once = threading.Lock(), [0], [0], threading.Event()

    def serve(_: dict[str, Any]) -> Any:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
            if now[0] == 8:
                all_at_once.set()
        all_at_once.wait(60)
        time.sleep(0.01)
        with lock:
            now[0] -= 1
        return GOOD

    rig = Rig(serve)
    rig.answered(*[FakeRequest() for _ in range(64)])
    assert most[0] == 8
    assert rig.counts() == none_but(succeeded=64)


def test_lone_requests_are_served_inline_and_answered_by_return() -> None:
    """After a run of lone fast requests most are answered by execute() itself; some still go to a worker."""
    rig = Rig(lambda _: GOOD, inline=True)
    returned = 0
    for _ in range(80):
        request = FakeRequest()
        answer = rig.dispatcher.execute([request])
        if answer is None:
            assert request.done.wait(60)
        else:
            returned += 1
            assert answer[0].output_tensors()
            assert not request.answers
    assert 40 < returned < 80
    assert rig.counts() == none_but(succeeded=80)


def test_a_stream_is_relayed_response_by_response() -> None:
    """Each response is sent as it comes, the empty last one only as the final flag."""
    rig = Rig(lambda _: [GOOD, GOOD, InferenceResponse([])], streaming=True)
    answers = rig.answered(FakeRequest())[0]
    assert [flags for _, flags in answers] == [0, 0, 1]
    assert answers[2][0] is None
    assert rig.counts() == none_but(succeeded=1)


def test_a_stream_that_breaks_ends_with_its_error() -> None:
    """An error in mid-stream is the last response."""

    def serve(_: dict[str, Any]) -> Iterator[InferenceResponse]:
        yield GOOD
        raise RuntimeError("stream lost")

    rig = Rig(serve, streaming=True)
    answers = rig.answered(FakeRequest())[0]
    assert [flags for _, flags in answers] == [0, 1]
    assert "stream lost" in answers[1][0].error().message()
    assert rig.counts() == none_but(failed=1)


def test_a_sequence_is_served_in_order_on_one_target() -> None:
    """Requests of one sequence reach one target, one at a time, in the order they came."""
    order: list[tuple[str, int]] = []

    def serve(arguments: dict[str, Any]) -> Any:
        time.sleep(random.Random(arguments["parameters"]["n"]).random() * 0.003)
        order.append((arguments["model_name"], arguments["parameters"]["n"]))
        return GOOD

    rig = Rig(serve, targets=3)
    flags = {0: 1, 29: 2}
    rig.answered(*[FakeRequest(params={"n": n}, correlation="s", sequence_flags=flags.get(n, 0)) for n in range(30)])
    assert [n for _, n in order] == list(range(30))
    assert len({model for model, _ in order}) == 1
    assert rig.counts() == none_but(succeeded=30)


def test_sequences_do_not_wait_for_each_other() -> None:
    """While one sequence's target call hangs, another sequence is served."""
    release = threading.Event()

    def serve(arguments: dict[str, Any]) -> Any:
        if arguments["correlation_id"] == 1:
            release.wait(60)
        return GOOD

    rig = Rig(serve)
    stuck = FakeRequest(correlation=1, sequence_flags=1)
    rig.dispatcher.execute([stuck])
    assert rig.answered(FakeRequest(correlation=2, sequence_flags=3))
    release.set()
    assert stuck.done.wait(60)
    assert rig.counts() == none_but(succeeded=2)
