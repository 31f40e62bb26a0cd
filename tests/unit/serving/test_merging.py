"""Merging: whatever goes out together, every request comes back to its owner, once, and is counted once."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.serving.failing_targets import until
from triton_router.profiling.profile import TargetProfile
from triton_router.routing.engine import RoutingEngine
from triton_router.routing.policies import policy_named
from triton_router.routing.types import RoutingContext, Target
from triton_router.serving.assembly import Way, assembled
from triton_router.serving.call_lane import CallLane
from triton_router.serving.exchange import Attempt, Exchange
from triton_router.serving.lane_request import LaneRequest
from triton_router.serving.merged_calls import MAX_STRINGS
from triton_router.testing.fake_stub import FakeRequest, FakeStub, FakeTensor, InferenceResponse, TritonError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_ROWS = 16


class Rig:
    """A dispatcher over one target that takes merged calls; its first call waits until ``go`` is set."""

    def __init__(self, serve: Callable[[dict[str, Any]], Any], *, limit: int = 1, workers: int = 8) -> None:
        self.go = threading.Event()
        self.calls: list[dict[str, Any]] = []
        self.warnings: list[str] = []

        def gated(arguments: dict[str, Any]) -> Any:
            self.calls.append(arguments)
            assert self.go.wait(60)
            return serve(arguments)

        stub: Any = FakeStub(gated)
        self.engine = RoutingEngine(
            [(Target("t", "m"), TargetProfile([(16, 0.5)]))], policy_named("latency"), rng=random.Random(8).random
        )
        # All overhead, so that what can go together does.
        self.lane = CallLane(limit=limit, max_rows=MAX_ROWS, measured=[(2, 3.0), (64, 3.0)] * 20)
        way = Way(workers=workers, lanes={"t": self.lane})
        self.dispatcher = assembled(stub, self.engine, self._finish, way, warn=self.warnings.append)

    def _finish(self, *outcome: Any) -> None:
        self.engine.finish(*outcome)

    def answered(self, *requests: FakeRequest) -> list[Any]:
        """Execute the requests, of which the first goes out alone and the rest wait, and return their answers."""
        assert self.dispatcher.execute(requests) is None
        self.go.set()
        for request in requests:
            assert request.done.wait(60), "a request was never answered"
        assert all([flags for _, flags in request.answers] == [1] for request in requests)
        return [request.answers[0][0] for request in requests]

    def counts(self) -> dict[str, int]:
        self.dispatcher.close()
        (target,) = self.engine.snapshot(0.0)
        names = ("in_flight", "succeeded", "failed", "refused", "cancelled")
        return {name: getattr(target, name) for name in names if getattr(target, name)}

    @property
    def sizes(self) -> list[int]:
        """Rows of each call."""
        return [call["inputs"][0].shape()[0] for call in self.calls]


def doubled(arguments: dict[str, Any]) -> InferenceResponse:
    """A target: twice its input; a negative value is refused."""
    array = arguments["inputs"][0].as_numpy()
    if (array < 0).any():
        return InferenceResponse([], TritonError(f"negative value {array.min()}"))
    return InferenceResponse([FakeTensor.of("Y", array * 2)])


class Parameterised(InferenceResponse):
    """An answer with a parameter of its own, as servers from 25.02 on have them."""

    def parameters(self) -> str:
        return '{"tokens": 4}'


def request(value: float = 1.0, rows: int = 1, columns: int = 2, **options: Any) -> FakeRequest:
    array = np.full((rows, columns), value, np.float32)
    return FakeRequest(tensors=(FakeTensor.of("X", array),), **options)


def values(response: Any) -> list[list[float]]:
    (tensor,) = response.output_tensors()
    return tensor.as_numpy().tolist()


mixes = st.lists(
    st.tuples(st.integers(1, 6), st.integers(1, 2), st.sampled_from([{}, {"a": 1}]), st.booleans()), max_size=24
)


@settings(deadline=None, max_examples=60)
@given(mixes, st.integers(1, 3))
def test_any_mix_comes_back_to_its_owner(mix: list[tuple[int, int, dict[str, Any], bool]], limit: int) -> None:
    """Each request gets twice its own values or its own error, whoever shared its call; every slot is released."""
    rig = Rig(doubled, limit=limit)
    requests = [
        request(-n - 1 if bad else n, rows, columns, params=params)
        for n, (rows, columns, params, bad) in enumerate(mix)
    ]
    for n, ((rows, columns, _, bad), response) in enumerate(zip(mix, rig.answered(*requests), strict=True)):
        if bad:
            assert response.error().message() == f"negative value {float(-n - 1)}"
        else:
            assert values(response) == [[2.0 * n] * columns] * rows
    bad_ones = sum(bad for *_, bad in mix)
    assert rig.counts() == {
        name: count for name, count in (("succeeded", len(mix) - bad_ones), ("failed", bad_ones)) if count
    }
    assert all(size <= MAX_ROWS for size in rig.sizes)
    for call in rig.calls:
        assert call["parameters"] in (None, {"a": 1})


def test_what_waits_goes_out_together() -> None:
    """While the first call is under way eight requests arrive; they share the second."""
    rig = Rig(doubled)
    assert [values(answer) for answer in rig.answered(*map(request, range(9)))] == [[[2.0 * n] * 2] for n in range(9)]
    assert rig.sizes == [1, 8]
    assert (rig.lane.counts().calls, rig.lane.counts().merged_requests) == (2, 8)


def test_a_lone_request_is_forwarded_untouched() -> None:
    """What goes out alone keeps its id and its own tensors, as without merging."""
    rig = Rig(doubled)
    alone = request(3)
    rig.answered(alone)
    assert rig.calls[0]["inputs"] == list(alone.tensors)
    assert rig.calls[0]["request_id"] == "id"


def test_answers_do_not_starve_behind_further_calls() -> None:
    """With a single worker and requests that never stop waiting, what has been answered is sent all the same."""
    sent: list[int] = []

    def serve(arguments: dict[str, Any]) -> Any:
        if len(rig.calls) < 50:
            rig.dispatcher.execute([request(len(rig.calls))])
        sent.append(sum(one.done.is_set() for one in first))
        return doubled(arguments)

    rig = Rig(serve, workers=1)
    first = [request(n) for n in range(3)]
    rig.answered(*first)
    rig.dispatcher.close()
    assert len(sent) >= 50
    assert sent[10] == 3


def test_nothing_of_one_client_travels_with_anothers() -> None:
    """A merged call has no id, no sequence and only the outputs that all its requests asked for."""
    rig = Rig(doubled)
    rig.answered(*map(request, range(4)))
    merged = rig.calls[1]
    assert not merged.get("request_id")
    assert not merged.get("correlation_id")
    assert merged["requested_output_names"] == ["Y"]


@pytest.mark.parametrize(
    "other",
    [
        {"columns": 3},
        {"outputs": frozenset({"Y", "Z"})},
    ],
)
def test_what_differs_goes_apart(other: dict[str, Any]) -> None:
    """Requests with another row shape or other outputs do not share a call."""
    rig = Rig(doubled)
    rig.answered(request(0), request(1), request(2, **other), request(3), request(4, **other))
    assert rig.sizes == [1, 2, 2]


def test_who_can_have_no_company_does_not_wait_for_any() -> None:
    """Parameters that nobody had lately, such as a caller's key, go out at once; those seen before share calls."""
    rig = Rig(doubled)
    keyed = [request(n, params={"key": n % 3}) for n in range(9)]
    assert rig.dispatcher.execute([request(0), *keyed[:3]]) is None
    until(lambda: len(rig.calls) == 4)  # those with parameters of their own do not wait for the first
    for n, answer in enumerate(rig.answered(*keyed[3:]), 3):
        assert values(answer) == [[2.0 * n] * 2]
    assert rig.sizes == [1, 1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize(
    "tensor",
    [
        FakeTensor("X", (1, 2)),
        FakeTensor("X", (1, 2), np.ones((1, 2), np.float32), on_cpu=False),
        FakeTensor.of("X", np.full((1, MAX_STRINGS + 1), b"x", np.object_)),
        FakeTensor.of("X", np.float32(1.0).reshape(())),
        FakeTensor.of("X", np.ones((0, 2), np.float32)),
    ],
    ids=["no array", "on a GPU", "many strings", "no batch dimension", "no rows"],
)
def test_what_cannot_be_joined_goes_alone_and_at_once(tensor: FakeTensor) -> None:
    """A tensor that is no array, not in memory, costly, or without rows does not wait and is not merged."""
    rig = Rig(lambda arguments: InferenceResponse([FakeTensor("Y")]))
    rig.answered(*[FakeRequest(tensors=(tensor,)) for _ in range(4)])
    assert len(rig.calls) == 4
    assert all(call["inputs"] == [tensor] for call in rig.calls)
    assert rig.counts() == {"succeeded": 4}


def test_a_sequence_is_never_merged() -> None:
    """Requests of sequences are called one by one, whatever waits."""
    rig = Rig(doubled)
    rig.answered(request(0), *[request(n, correlation=5, sequence_flags=int(n == 1)) for n in range(1, 5)])
    assert rig.sizes == [1] * 5


def test_one_bad_request_fails_alone() -> None:
    """The error of a merged call is nobody's: its requests go out again, and only the bad one gets an error."""
    rig = Rig(doubled)
    answers = rig.answered(request(0), *[request(-7 if n == 3 else n) for n in range(1, 8)])
    assert answers[3].error().message() == "negative value -7.0"
    assert [values(answers[n]) for n in (1, 2, 4, 5, 6, 7)] == [[[2.0 * n] * 2] for n in (1, 2, 4, 5, 6, 7)]
    assert rig.sizes[1] == 7
    assert rig.counts() == {"succeeded": 7, "failed": 1}
    assert rig.lane.counts().split_calls == 1
    assert rig.lane.counts().calls == len(rig.calls) == 9


def test_a_target_that_answers_nobody_is_not_asked_again_for_each() -> None:
    """The error of a target that is not there is everybody's at once: asking a dead one costs a second each."""
    rig = Rig(lambda _: InferenceResponse([], TritonError("Stub process 'm_0' is not healthy.")))
    answers = rig.answered(*map(request, range(6)))
    assert len(rig.calls) == rig.lane.counts().calls <= 3
    assert all("not healthy" in answer.error().message() for answer in answers)
    assert rig.counts() == {"failed": 6}


@pytest.mark.parametrize(
    "broken",
    [
        lambda _: InferenceResponse([FakeTensor.of("Y", np.ones((3, 2), np.float32))]),
        lambda _: InferenceResponse([FakeTensor("Y", (4, 2))]),
        lambda a: InferenceResponse([FakeTensor("Y", (4, 2), a["inputs"][0].as_numpy() * 2, on_cpu=False)]),
        lambda a: Parameterised([FakeTensor.of("Y", a["inputs"][0].as_numpy() * 2)]),
    ],
    ids=["wrong rows", "no array", "on a GPU", "parameters"],
)
def test_an_output_that_cannot_be_cut_ends_merging(broken: Callable[[dict[str, Any]], Any]) -> None:
    """Its requests are answered by calls of their own, the log says so once, and no more are merged."""
    rig = Rig(lambda a: broken(a) if a["inputs"][0].shape()[0] > 1 else doubled(a))
    answers = rig.answered(*map(request, range(5)))
    assert [values(answer) for answer in answers] == [[[2.0 * n] * 2] for n in range(5)]
    assert not rig.lane.merges
    assert len(rig.warnings) == 1
    assert rig.counts() == {"succeeded": 5}


def test_exceptions_while_joining_cost_nobody_the_answer() -> None:
    """If a merged call cannot even be made, its requests go out apart."""

    def full(arguments: dict[str, Any]) -> Any:
        if arguments["inputs"][0].shape()[0] > 1:
            raise RuntimeError("Failed to increase the shared memory pool size")
        return doubled(arguments)

    rig = Rig(full)
    assert [values(answer) for answer in rig.answered(*map(request, range(5)))] == [[[2.0 * n] * 2] for n in range(5)]
    assert rig.counts() == {"succeeded": 5}


def test_an_engine_that_breaks_costs_nobody_the_answer() -> None:
    """Even if accounting raises, every client is answered and the lane goes on."""
    rig = Rig(doubled)
    honest = rig.engine.finish
    broken = [True]

    def finish(*arguments: Any) -> None:
        honest(*arguments)
        if broken.pop() if broken else False:
            raise ZeroDivisionError

    rig.engine.finish = finish  # type: ignore[method-assign]
    assert len(rig.answered(*map(request, range(9)))) == 9
    assert rig.counts() == {"succeeded": 9}


def test_a_target_with_a_smaller_batch_than_the_router_is_learned() -> None:
    """A target that says how many rows it takes gets no more from then on."""

    def small(arguments: dict[str, Any]) -> Any:
        if arguments["inputs"][0].shape()[0] > 4:
            return InferenceResponse([], TritonError("inference request batch-size must be <= 4 for 'm'"))
        return doubled(arguments)

    rig = Rig(small)
    rig.answered(*map(request, range(9)))
    while rig.engine.snapshot(0.0)[0].in_flight:
        time.sleep(0.001)
    rig.calls.clear()
    rig.go.clear()
    rig.answered(*map(request, range(9)))
    assert max(rig.sizes) <= 4
    assert rig.lane.counts().split_calls == 1
    assert rig.counts() == {"succeeded": 18}


@pytest.mark.parametrize(
    "echoed", ["inference request batch-size must be <= 1 for 'x'", "Stub process 'x' is not healthy."]
)
def test_what_a_client_has_a_target_say_harms_nobody(echoed: str) -> None:
    """Words like Triton's in a target's own error neither fail others nor bound what goes together from then on."""

    def echo(arguments: dict[str, Any]) -> Any:
        if len(rig.calls) == 2:
            return InferenceResponse([], TritonError(f"no such text: {echoed}"))
        return doubled(arguments)

    rig = Rig(echo)
    assert not any(answer.has_error() for answer in rig.answered(*map(request, range(9))))
    while rig.engine.snapshot(0.0)[0].in_flight:
        time.sleep(0.001)
    rig.calls.clear()
    rig.go.clear()
    rig.answered(*map(request, range(9)))
    assert rig.sizes[1] > 1


def test_clients_that_left_are_not_served() -> None:
    """Of requests that waited long, those whose clients have left are dropped before the call."""
    rig = Rig(doubled)
    requests = [request(n, cancelled=n % 2 == 1) for n in range(9)]
    assert rig.dispatcher.execute(requests) is None
    time.sleep(0.15)
    answers = rig.answered()
    for one in requests:
        assert one.done.wait(60)
    assert answers == []
    assert rig.sizes == [1, 4]
    assert all("cancelled" in one.answers[0][0].error().message() for one in requests[1::2])
    assert rig.counts() == {"succeeded": 5, "cancelled": 4}


def test_a_call_to_a_process_that_has_ended_keeps_nobody_waiting() -> None:
    """The server lets such calls fail a second each, while the target's next process has nothing to do."""
    rig = Rig(doubled)
    requests = [request(n) for n in range(3)]
    assert rig.dispatcher.execute(requests) is None
    until(lambda: len(rig.calls) == 1)
    rig.dispatcher.lose("t", time.monotonic())
    until(lambda: len(rig.calls) == 2)
    assert rig.engine.snapshot(0.0)[0].in_flight == 0
    rig.answered()
    assert all(one.done.wait(60) and len(one.answers) == 1 for one in requests)
    assert rig.sizes == [1, 2]
    assert rig.counts() == {"failed": 3}


def test_a_deadline_bounds_the_company() -> None:
    """Of a target that takes 900 ms for a call and 30 for each row, a bound of 1 s is met by three together."""
    engine = RoutingEngine([(Target("t", "m"), TargetProfile())], policy_named("latency"), rng=random.Random(8).random)
    lane = CallLane(limit=1, max_rows=MAX_ROWS, measured=[(rows, 900.0 + 30.0 * rows) for rows in (1, 16)] * 50)
    assert lane.enter()
    for _ in range(8):
        context = RoutingContext(1, 1.0, max_latency_ms=1000.0)
        exchange = Exchange(FakeRequest(), context, 10.0)
        exchange.bound_ms = 1000.0
        attempt = Attempt(exchange, engine.decide(context, 10.0), 10.0)
        assert not lane.enter_or_wait(LaneRequest(attempt, {}, "alike", rows=1))
    assert [len(group) for group in lane.leave(10.0, 1, lane.generation)] == [3]
    late = lane.leave(10.1, 3, lane.generation)
    assert [len(group) for group in late] == [5], "too late already: nothing is gained by going apart"


@pytest.mark.parametrize(("limit", "workers"), [(1, 8), (2, 8), (1, 1), (3, 2)])
def test_many_at_once_from_a_jittery_target(limit: int, workers: int) -> None:
    """Under load from eight clients with random service times and failures, all is answered and counted."""
    rng = random.Random(5)

    def jittery(arguments: dict[str, Any]) -> Any:
        time.sleep(rng.random() * 2e-3)
        if rng.random() < 0.05:
            raise RuntimeError("boom")
        return doubled(arguments)

    rig = Rig(jittery, limit=limit, workers=workers)
    rig.go.set()
    lock = threading.Lock()

    def client(seed: int) -> Iterator[bool]:
        draw = random.Random(seed)
        for n in range(100):
            one = request(seed * 1000 + n, draw.randint(1, 3), draw.choice([2, 2, 5]))
            with lock:  # execute() is called by one thread at a time
                rig.dispatcher.execute([one])
            assert one.done.wait(60)
            response = one.answers[0][0]
            good = not response.has_error()
            assert not good or values(response)[0][0] == 2.0 * (seed * 1000 + n)
            yield good

    with ThreadPoolExecutor(8) as clients:
        good = sum(sum(results) for results in clients.map(lambda seed: list(client(seed)), range(8)))
    rig.dispatcher.close()
    counts = rig.counts()
    assert counts.get("succeeded") == good
    assert counts.get("failed", 0) == 800 - good
    assert rig.lane.counts().merged_calls > 10
