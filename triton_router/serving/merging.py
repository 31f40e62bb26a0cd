"""Several requests, one call: what waits for a target goes out together and comes back apart.

Only for targets whose rows are known not to depend on the rows beside them, so that an answer is the same, bit for
bit, whoever shared the call. What a merged call fails with says nothing about its members: they go out again, each
alone, and get their own answers.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from triton_router.routing.types import Verdict
from triton_router.serving.answering import STALE_S
from triton_router.serving.call_lane import LaneRequest
from triton_router.serving.forwarding import Alike
from triton_router.serving.relay import parameters_of
from triton_router.serving.rows import batch_rows, joined, layout, separated
from triton_router.serving.target_errors import batch_limit, is_of_the_target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from triton_router.routing.types import Target
    from triton_router.serving.answering import Answering
    from triton_router.serving.call_lane import CallLane
    from triton_router.serving.exchange import Attempt
    from triton_router.serving.forwarding import Forwarder
    from triton_router.serving.relay import Relay
    from triton_router.serving.stub import Response, StubModule

    Answer = tuple[Verdict, Response | None]

MAX_REQUEST_BYTES = 4 << 20
"""Inputs of a request that may be merged: copying more costs more than a call."""
MAX_STRINGS = 64
"""Likewise elements of a BYTES tensor, each of which costs a microsecond on each way."""
_ASKING_MS = 0.2
"""A row that costs a call less than this is not worth asking whether its client has left..."""
_LONG_S = 0.1
"""... unless it waited this long."""
_REMEMBERED = 16
"""Different parameters of requests that came last. Who has others, such as a key of its own, would wait for nobody."""


class MergedCalls:
    """Makes one call of several requests, and several answers of one.

    Args:
        stub: The Python backend's module.
        forwarder: Rewrites requests.
        relay: Reads a target's answer.
    """

    def __init__(self, stub: StubModule, forwarder: Forwarder, relay: Relay) -> None:
        self._stub = stub
        self._forwarder = forwarder
        self.relayed = relay.relayed

    def lacks_outputs(self, response: Response, group: Sequence[LaneRequest]) -> bool:
        """Whether a good response leaves outputs out that another target may have."""
        alike = group[0].alike
        return alike is not None and self.relayed(response, alike.outputs)[0] is not Verdict.SUCCESS

    def execute(self, target: Target, group: Sequence[LaneRequest]) -> Response:
        """Call the target. Raises whatever keeps the requests from being joined or forwarded."""
        first = group[0]
        if first.alike is None:
            raise TypeError("a request that nobody has read cannot be joined with others")
        tensors = joined([member.tensors for member in group])
        inputs = [self._stub.Tensor(name, array) for name, array in tensors.items()]
        exchange = first.attempt.exchange
        # A target's queue that refused the call for one of them would refuse it for all.
        left_us = max(self._forwarder.time_left_us(member.attempt.exchange) for member in group)
        with exchange.lock:
            request = self._forwarder.merged_request_for(target, first.alike, exchange, inputs, left_us)
        return request.exec()

    def parts(self, response: Response, group: Sequence[LaneRequest]) -> list[Response] | None:
        """Return each request's own rows of a good response; None if it cannot be cut into them."""
        if parameters_of(response):  # they say something of the call as a whole
            return None
        tensors = response.output_tensors()
        if not all(tensor.is_cpu() for tensor in tensors):
            return None
        outputs = {tensor.name(): tensor.as_numpy() for tensor in tensors}
        parts = separated(outputs, [member.rows for member in group])
        if parts is None:
            return None
        stub = self._stub
        return [stub.InferenceResponse([stub.Tensor(name, array) for name, array in part.items()]) for part in parts]

    def readable(self, attempt: Attempt) -> LaneRequest | None:
        """Return a request as one that can be merged; None if it cannot."""
        exchange = attempt.exchange
        with exchange.lock:
            if exchange.is_answered:
                return None
            try:
                return _readable(attempt)
            except Exception:  # noqa: BLE001 - the stub's own class: BF16 has no array. It goes out alone, as it is
                return None


def _readable(attempt: Attempt) -> LaneRequest | None:
    exchange = attempt.exchange
    request = exchange.request
    inputs = request.inputs()
    if request.flags() or not all(tensor.is_cpu() for tensor in inputs):
        return None
    tensors = {tensor.name(): tensor.as_numpy() for tensor in inputs}
    rows = batch_rows(tensors)
    size = sum(array.nbytes for array in tensors.values())
    if not rows or size > MAX_REQUEST_BYTES or not all(map(_is_cheap, tensors.values())):
        return None
    alike = Alike(frozenset(request.requested_output_names()), request.parameters(), exchange.timeout_us)
    return LaneRequest(attempt, tensors, (layout(tensors), alike), rows, size, alike)


def _is_cheap(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bool:
    return array.dtype != np.object_ or array.size <= MAX_STRINGS


class Merging:
    """Serves the calls to targets that take merged ones. `take` is for one thread.

    Args:
        lanes: By name of the target.
        calls: Joins and separates.
        answering: Sees to answers and outcomes.
        warn: Tells the server's log.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        lanes: Mapping[str, CallLane],
        calls: MergedCalls,
        answering: Answering,
        warn: Callable[[str], None],
        *,
        clock: Callable[[], float],
    ) -> None:
        self._lanes = lanes
        self._calls = calls
        self._answering = answering
        self._warn = warn
        self._clock = clock
        self._lately: deque[str] = deque(maxlen=_REMEMBERED)
        # Lanes that are used no more, while anything is in flight or waits there.
        self._replaced: list[CallLane] = []
        self._lock = Lock()

    @property
    def lanes(self) -> Mapping[str, CallLane]:
        """The lanes by name of the target."""
        return self._lanes

    def use(self, lanes: Mapping[str, CallLane]) -> None:
        """Take further requests through these lanes. Those that wait at another one are served by it."""
        with self._lock:
            self._replaced += [lane for lane in self._lanes.values() if lane not in lanes.values()]
        self._lanes = lanes

    def counts(self) -> dict[str, dict[str, float]]:
        """Return what was merged so far, by target and then by metric."""
        counts = {name: lane.counts() for name, lane in self._lanes.items()}
        return {
            name: {
                "triton_router_merged_calls_total": count.merged_calls,
                "triton_router_merged_requests_total": count.merged_requests,
                "triton_router_split_calls_total": count.split_calls,
            }
            for name, count in counts.items()
        }

    def take(self, attempt: Attempt) -> bool:
        """Have a request's first attempt made once its target is free; False if it has to go its own way."""
        return self._take(attempt, begins=True)

    def take_begun(self, attempt: Attempt) -> bool:
        """Do the same for an attempt of a request that has begun. For any thread."""
        return self._take(attempt, begins=False)

    def send(self, attempt: Attempt) -> None:
        """Have a further attempt made of a request that has begun. For any thread."""
        if not self.take_begun(attempt):
            self._answering.send_alone(attempt)

    def renew(self, target: str) -> None:
        """Have a target take calls again at once whose process had some and has ended."""
        if lane := self._lanes.get(target):
            lane.renew()

    def sweep(self) -> None:
        """Let go of the requests that were answered while they waited; to be called regularly."""
        for lane in (*self._lanes.values(), *self._replaced):
            for request in lane.sweep():
                self._answering.drop(request.attempt)
            for group in lane.due(self._clock()):
                self._answering.submit(partial(self._run, lane, group))
        if self._replaced:
            with self._lock:
                self._replaced = [lane for lane in self._replaced if not lane.is_idle()]

    def _take(self, attempt: Attempt, *, begins: bool) -> bool:
        lane = self._lanes.get(attempt.decision.target.name)
        if lane is None or not lane.merges:
            return False
        if lane.enter():
            if begins:
                self._answering.begin(attempt.exchange)
            self._answering.submit(partial(self._run, lane, [LaneRequest(attempt)]))
            return True
        waiting = self._calls.readable(attempt)
        if waiting is None or waiting.alike is None or not self._may_have_company(waiting.alike.parameters):
            return False
        if begins:
            self._answering.begin(attempt.exchange)
        if lane.enter_or_wait(waiting):
            self._answering.submit(partial(self._run, lane, [waiting]))
        return True

    def _may_have_company(self, parameters: str) -> bool:
        if len(parameters) <= len("{}"):
            return True
        with self._lock:
            if parameters in self._lately:
                return True
            self._lately.append(parameters)
            return False

    def _run(self, lane: CallLane, group: Sequence[LaneRequest]) -> None:
        """Make one call after the other until nothing waits. While there is a next one, others see to the answers."""
        while True:
            generation = lane.generation
            present = [member for member in group if len(group) == 1 or not self._is_gone(lane, member.attempt)]
            try:
                answer = self._called(lane, present)
            except Exception as error:  # noqa: BLE001 - a worker that dies leaves its clients waiting for ever
                answer = partial(self._complete, present, [self._answering.broken(error) for _ in present])
            following = lane.leave(self._clock(), len(present), generation)
            if not following:
                answer()
                return
            group, *others = following
            for other in others:
                self._answering.submit(partial(self._run, lane, other))
            if not self._answering.offer(answer):
                # Behind whatever else waits for a worker: neither these answers nor others are to starve.
                self._answering.submit(partial(self._run, lane, group))
                answer()
                return

    def _called(self, lane: CallLane, group: Sequence[LaneRequest]) -> Callable[[], None]:
        """Make one call, and return what answers its requests."""
        if len(group) == 1:
            return self._called_alone(lane, group[0].attempt)
        if not group:
            return _nothing
        return self._called_together(lane, group)

    def _called_alone(self, lane: CallLane, attempt: Attempt) -> Callable[[], None]:
        started_at = self._clock()
        verdict, response = self._answering.call(attempt)
        if verdict is Verdict.SUCCESS:
            lane.learn(1, attempt.decision.context.work, started_at, self._clock())
        return partial(self._answering.ended, attempt, verdict, response)

    def _complete(
        self, group: Sequence[LaneRequest], answers: Sequence[Answer], _joint: Response | None = None
    ) -> None:
        """Answer each request; ``_joint`` stays until then, for their tensors may lie in its memory."""
        for member, answer in zip(group, answers, strict=True):
            self._answering.ended(member.attempt, *answer)

    def _is_gone(self, lane: CallLane, attempt: Attempt) -> bool:
        """End an attempt of a request that was answered, or whose client left where asking costs less than serving."""
        exchange = attempt.exchange
        if exchange.is_answered:
            self._answering.drop(attempt)
            return True
        after_s = STALE_S if lane.marginal_ms(attempt.decision.context.work) > _ASKING_MS else _LONG_S
        try:
            if not self._answering.is_cancelled(attempt, after_s):
                return False
        except Exception:  # noqa: BLE001 - who cannot be asked is served
            return False
        self._answering.cancel(attempt)
        return True

    def _called_together(self, lane: CallLane, group: Sequence[LaneRequest]) -> Callable[[], None]:
        target = group[0].attempt.decision.target
        started_at = self._clock()
        try:
            response = self._calls.execute(target, group)
        except Exception:  # noqa: BLE001 - whatever does not fit together may fit alone
            lane.split(len(group))
            return partial(self._apart, group)
        ended_at = self._clock()
        if response.has_error():
            return self._failed(lane, response, group)
        if self._calls.lacks_outputs(response, group):
            return partial(self._apart, group)
        parts = self._parts(response, group)
        if parts is None:
            lane.merges = False
            self._warn(
                f"target {target.name!r} answered {len(group)} requests in one call with parameters, or with an "
                "output that is not one row for each of theirs: its requests are no longer merged; it is not "
                "batch_independent"
            )
            return partial(self._apart, group)
        lane.learn(len(group), sum(member.attempt.decision.context.work for member in group), started_at, ended_at)
        return partial(self._complete, group, [(Verdict.SUCCESS, part) for part in parts], response)

    def _parts(self, response: Response, group: Sequence[LaneRequest]) -> list[Response] | None:
        try:
            return self._calls.parts(response, group)
        except Exception:  # noqa: BLE001 - an output without an array, such as BF16
            return None

    def _failed(self, lane: CallLane, response: Response, group: Sequence[LaneRequest]) -> Callable[[], None]:
        """Return what answers everybody where the target could have answered nobody, or else asks again for each."""
        message = response.error().message()
        if is_of_the_target(message):
            return partial(self._complete, group, [self._calls.relayed(response) for _ in group])
        lane.split(len(group), batch_limit(message))
        return partial(self._apart, group)

    def _apart(self, group: Sequence[LaneRequest]) -> None:
        for member in group:
            self._answering.submit(partial(self._answering.serve, member.attempt))


def _nothing() -> None:
    """Everybody has left."""
