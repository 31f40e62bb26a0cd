"""Several requests, one call: what waits for a target goes out together and comes back apart.

Only for targets whose rows are known not to depend on the rows beside them, so that an answer is the same, bit for
bit, whoever shared the call.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING

from triton_router.serving.lane_request import LaneRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from triton_router.serving.answering import Answering
    from triton_router.serving.call_lane import CallLane
    from triton_router.serving.exchange import Attempt
    from triton_router.serving.lane_worker import LaneWorker
    from triton_router.serving.merged_calls import MergedCalls

_REMEMBERED = 16
"""Different parameters of requests that came last. Who has others, such as a key of its own, would wait for nobody."""


class Merging:
    """Serves the calls to targets that take merged ones. `take` is for one thread.

    Args:
        lanes: By name of the target.
        calls: Says what can be joined.
        worker: Makes the calls.
        answering: Has workers.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        lanes: Mapping[str, CallLane],
        calls: MergedCalls,
        worker: LaneWorker,
        answering: Answering,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._lanes = lanes
        self._calls = calls
        self._answering = answering
        self._replies, self._outcomes = answering.replies, answering.outcomes
        self._run = worker.run
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

    @property
    def has_waiting(self) -> bool:
        """Whether a request waits for company."""
        return any(lane.has_waiting for lane in self._lanes.values())

    def ahead_of(self, attempt: Attempt) -> tuple[int, float, float] | None:
        """Return what `CallLane.ahead_of` says of the attempt's request; None where its calls are not merged."""
        lane = self._lanes.get(attempt.decision.target.name)
        return lane.ahead_of(attempt.exchange) if lane is not None and lane.merges else None

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

    def renew(self, target: str) -> None:
        """Have a target take calls again at once whose process had some and has ended."""
        if lane := self._lanes.get(target):
            lane.renew()

    def sweep(self) -> None:
        """Let go of the requests that were answered while they waited; to be called regularly."""
        now = self._clock()
        for lane in (*self._lanes.values(), *self._replaced):
            lane.look(now)
            for request in lane.sweep():
                self._outcomes.drop(request.attempt)
            for group in lane.due(now):
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
                self._replies.begin(attempt.exchange)
            self._answering.submit(partial(self._run, lane, [LaneRequest(attempt)]))
            return True
        waiting = self._calls.readable(attempt)
        if waiting is None or waiting.alike is None or not self._may_have_company(waiting.alike.parameters):
            return False
        if begins:
            self._replies.begin(attempt.exchange)
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
