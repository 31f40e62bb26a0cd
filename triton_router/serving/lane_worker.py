"""What a worker does for a lane: one call after the other until nothing waits there, and every request answered.

What a merged call fails with says nothing about its members: they go out again, each alone, and get their own answers.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from triton_router.routing.types import Verdict
from triton_router.serving.replies import STALE_S
from triton_router.serving.target_errors import batch_limit, is_of_the_target

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from triton_router.serving.answering import Answering
    from triton_router.serving.call_lane import CallLane
    from triton_router.serving.exchange import Attempt
    from triton_router.serving.lane_request import LaneRequest
    from triton_router.serving.merged_calls import MergedCalls
    from triton_router.serving.stub import Response

    Answer = tuple[Verdict, Response | None]

_ASKING_MS = 0.2
"""A row that costs a call less than this is not worth asking whether its client has left..."""
_LONG_S = 0.1
"""... unless it waited this long."""


class LaneWorker:
    """Makes the calls of all lanes of one routed model. Safe to use from several threads.

    Args:
        calls: Joins and separates.
        answering: Sees to answers and outcomes.
        warn: Tells the server's log.
        clock: Monotonic seconds.
    """

    def __init__(
        self, calls: MergedCalls, answering: Answering, warn: Callable[[str], None], *, clock: Callable[[], float]
    ) -> None:
        self._calls = calls
        self._answering = answering
        self._replies, self._outcomes = answering.replies, answering.outcomes
        self._warn = warn
        self._clock = clock

    def run(self, lane: CallLane, group: Sequence[LaneRequest]) -> None:
        """Make one call after the other until nothing waits. While there is a next one, others see to the answers."""
        while True:
            generation = lane.generation
            present = [member for member in group if len(group) == 1 or not self._is_gone(lane, member.attempt)]
            try:
                answer = self._called(lane, present)
            except Exception as error:  # noqa: BLE001 - a worker that dies leaves its clients waiting for ever
                answer = partial(self._complete, present, [self._replies.broken(error) for _ in present])
            # Whose time had passed was not sent: that the lane is rid of it says nothing of its pace.
            sent = sum(member.attempt.asked_at is not None for member in present)
            following = lane.leave(self._clock(), sent, generation)
            if not following:
                answer()
                return
            group, *others = following
            for other in others:
                self._answering.submit(partial(self.run, lane, other))
            if not self._answering.offer(answer):
                # Behind whatever else waits for a worker: neither these answers nor others are to starve.
                self._answering.submit(partial(self.run, lane, group))
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
            self._outcomes.drop(attempt)
            return True
        after_s = STALE_S if lane.marginal_ms(attempt.decision.context.work) > _ASKING_MS else _LONG_S
        try:
            if self._clock() - attempt.begun_at <= after_s or not exchange.is_cancelled():
                return False
        except Exception:  # noqa: BLE001 - who cannot be asked is served
            return False
        self._answering.ended(attempt, *self._replies.cancelled())
        return True

    def _called_together(self, lane: CallLane, group: Sequence[LaneRequest]) -> Callable[[], None]:
        target = group[0].attempt.decision.target
        started_at = self._clock()
        for member in group:
            member.attempt.asked_at = started_at
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
            return partial(
                self._complete, group, [self._calls.relayed_for(member.attempt, response) for member in group]
            )
        lane.split(len(group), batch_limit(message))
        return partial(self._apart, group)

    def _apart(self, group: Sequence[LaneRequest]) -> None:
        for member in group:
            self._answering.submit(partial(self._answering.serve, member.attempt))


def _nothing() -> None:
    """Everybody has left."""
