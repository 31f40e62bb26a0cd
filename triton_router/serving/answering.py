"""Sees each request that was taken to its one answer and its one outcome, whatever breaks on the way.

The laws of the stub process that hold here were each paid for with a crash or a hang of the server: a
request that was taken is answered, whatever happens; and nothing is asked of a request after its last response.
"""

from __future__ import annotations

import contextlib
import traceback
from typing import TYPE_CHECKING, NamedTuple

from triton_router.errors import RequestCancelledError, TritonRouterError
from triton_router.routing.types import Outcome, RoutingDecision, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from triton_router.routing.explanation import Explanation
    from triton_router.serving.relay import Relay
    from triton_router.serving.stub import Request, Response, ResponseSender
    from triton_router.serving.worker_pool import WorkerPool

    Finish = Callable[[RoutingDecision, Outcome, float], None]

STALE_S = 0.005
"""A request that waited longer for a worker is asked whether its client is still there; asking costs 85 us."""


class Call(NamedTuple):
    """One request under way: taken from Triton, decided, not yet answered. ``decided_at`` is in monotonic seconds.

    ``sender`` is None while the request may still be answered by return; ``explanation`` unless it was asked for.
    """

    request: Request
    decision: RoutingDecision
    decided_at: float
    sender: ResponseSender | None = None
    explanation: Explanation | None = None


class Answering:
    """Answers the requests of one routed model. Only `hand_over` raises.

    Args:
        finish: Is told how each request ended.
        relay: Calls the target and answers the client.
        pool: Where calls run.
        clock: Monotonic seconds.
    """

    def __init__(self, finish: Finish, relay: Relay, pool: WorkerPool, *, clock: Callable[[], float]) -> None:
        self._finish = finish
        self._relay = relay
        self._pool = pool
        self._clock = clock
        # Appending and popping are atomic, which counting is not.
        self._under_way: list[None] = []

    @property
    def under_way(self) -> int:
        """Requests begun and not yet answered."""
        return len(self._under_way)

    def resize(self, limit: int) -> None:
        """Have at most so many calls in flight from now on."""
        self._pool.resize(limit)

    def begin(self) -> None:
        """Count a request as under way; `complete` must follow."""
        self._under_way.append(None)

    def hand_over(self, call: Call, job: Callable[[], None]) -> None:
        """Begin a request and have a worker do the job that completes it.

        Raises:
            RuntimeError: No worker can be had. The request is accounted for; the caller has to answer it.
        """
        self.begin()
        try:
            self._pool.submit(job)
        except BaseException:
            self._under_way.pop()
            self.finish(call, Verdict.CANCELLED, self._clock())
            raise

    def submit(self, job: Callable[[], None]) -> None:
        """Have a worker do a job of requests that have begun, or this thread if there is none to be had."""
        try:
            self._pool.submit(job)
        except RuntimeError:
            job()

    def offer(self, job: Callable[[], None]) -> bool:
        """Have an idle worker do such a job; False if there is none."""
        return self._pool.offer(job)

    def refuse(self, sender: ResponseSender, error: Exception) -> None:
        """Answer a request that was not begun."""
        self._relay.send_last(sender, self.response_for(error))

    def response_for(self, error: Exception) -> Response:
        """Return the response for an error of the router's own, foreseen or not."""
        return self._relay.refused(error) if isinstance(error, TritonRouterError) else self._relay.broken(error)

    def close(self) -> None:
        """See what was begun to its end, then end the workers."""
        self._pool.close()

    def serve(self, call: Call) -> None:
        """Call the target, answer and account."""
        self.complete(call, *self.attempt(call))

    def attempt(self, call: Call) -> tuple[Verdict, Response | None]:
        """Call the target and return the verdict and the last response, whatever happens on the way."""
        try:
            if self.is_cancelled(call, STALE_S):
                return self._cancelled()
            return self._relay.answer(call.decision.target, call.request, call.sender)
        except TritonRouterError as error:
            return Verdict.CLIENT_ERROR, self._relay.refused(error)
        except Exception as error:  # noqa: BLE001 - a worker that dies leaves its client waiting for ever
            return self.broken(error)

    def broken(self, error: Exception) -> tuple[Verdict, Response]:
        """Return the verdict and the response for an exception that nobody foresaw."""
        return Verdict.TARGET_ERROR, self._relay.broken(error)

    def is_cancelled(self, call: Call, after_s: float) -> bool:
        """Whether the client of a request that has waited so long already, in seconds, has left."""
        return self._clock() - call.decided_at > after_s and call.request.is_cancelled()

    def cancel(self, call: Call) -> None:
        """Complete a request whose client has left."""
        self.complete(call, *self._cancelled())

    def complete(self, call: Call, verdict: Verdict, last: Response | None) -> None:
        """Send the last response of a request that was begun, and account for it."""
        answered_at = self._clock()
        # Before the answer goes out: its receiver's next request must not find this one still under way.
        self._under_way.pop()
        try:
            self._send(call, last)
            # After the answer: the client does not wait for the learning.
            self.finish(call, verdict, answered_at)
        except Exception:  # noqa: BLE001 - shown in the server's log; others may wait for this worker
            traceback.print_exc()

    def finish(self, call: Call, verdict: Verdict, answered_at: float) -> None:
        """Tell the engine how it ended."""
        outcome = Outcome(verdict, (answered_at - call.decided_at) * 1e3)
        self._finish(call.decision, outcome, answered_at)

    def _cancelled(self) -> tuple[Verdict, Response]:
        error = RequestCancelledError("the client cancelled the request before it reached a target")
        return Verdict.CANCELLED, self._relay.refused(error)

    def _send(self, call: Call, last: Response | None) -> None:
        sender = call.sender
        if sender is None:
            raise TypeError("a request without a sender is answered by return")
        try:
            if call.explanation is not None and last is not None:
                last = self._relay.explained(last, call.explanation, call.decision.target.name)
            self._relay.send_last(sender, last)
        except Exception as error:  # noqa: BLE001 - /dev/shm may be full; a short error may still fit
            traceback.print_exc()
            with contextlib.suppress(Exception):  # nothing is left to try
                self._relay.send_last(sender, self._relay.broken(error))
