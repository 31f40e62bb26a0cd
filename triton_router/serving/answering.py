"""Sees each request that was taken to its one answer and each attempt to its one outcome, whatever breaks on the way.

The laws of the stub process that hold here were each paid for with a crash or a hang of the server: a
request that was taken is answered, whatever happens; and nothing is asked of a request after its last response.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from triton_router.errors import TritonRouterError
from triton_router.routing.types import Verdict
from triton_router.serving.exchange import NOT_SENT
from triton_router.serving.replies import STALE_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from triton_router.serving.exchange import Attempt
    from triton_router.serving.further_attempts import FurtherAttempts
    from triton_router.serving.outcomes import Outcomes
    from triton_router.serving.relay import Relay
    from triton_router.serving.replies import Replies
    from triton_router.serving.stub import Response
    from triton_router.serving.worker_pool import WorkerPool


class Answering:
    """Has workers make the attempts of one routed model. Only `hand_over` raises.

    Args:
        relay: Calls the target.
        pool: Where calls run.
        replies: Answers clients.
        outcomes: Tells the engine.
        further: Has another target asked where one has failed.
        clock: Monotonic seconds.

    Attributes:
        replies, outcomes, further: As passed.
        is_busy: Whether every worker there may be has something to do.
    """

    def __init__(
        self,
        relay: Relay,
        pool: WorkerPool,
        replies: Replies,
        outcomes: Outcomes,
        further: FurtherAttempts,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._relay = relay
        self._pool = pool
        self.replies = replies
        self.outcomes = outcomes
        self.further = further
        self._clock = clock
        self.is_busy = pool.is_full
        further.send = self._send

    def go_by(self, limit: int, *, compares: bool) -> None:
        """Have at most so many calls in flight from now on; ``compares`` as `Relay` knows it."""
        self._pool.resize(limit)
        self._relay.compares = compares

    def hand_over(self, attempt: Attempt) -> None:
        """Begin a request and have a worker make its first attempt.

        Raises:
            RuntimeError: No worker can be had. The attempt is accounted for; the caller has to answer the request.
        """
        self.replies.begin(attempt.exchange)
        try:
            self._pool.submit(partial(self.serve, attempt))
        except BaseException:
            self.replies.withdraw(attempt.exchange)
            self.outcomes.drop(attempt)
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

    def close(self) -> None:
        """See what was begun to its end, then end the workers."""
        self._pool.close()

    def serve(self, attempt: Attempt) -> None:
        """Call the target, answer and account."""
        self.ended(attempt, *self.call(attempt))

    def call(self, attempt: Attempt) -> tuple[Verdict, Response | None]:
        """Call the target and return the verdict and the last response, whatever happens on the way."""
        exchange = attempt.exchange
        try:
            now = self._clock()
            since = attempt.begun_at
            if (now >= exchange.deadline or now - since > STALE_S) and self.replies.is_over(exchange, since, now):
                return NOT_SENT
            attempt.asked_at = now
            return self._relay.answer(attempt)
        except TritonRouterError as error:
            return Verdict.CLIENT_ERROR, self._relay.refused(error)
        except Exception as error:  # noqa: BLE001 - a worker that dies leaves its client waiting for ever
            return self.replies.broken(error)

    def ended(self, attempt: Attempt, verdict: Verdict, last: Response | None) -> None:
        """Take the result of an attempt: answer with it, or have another target asked, and account for it."""
        now = self._clock()
        if verdict is Verdict.TARGET_ERROR:
            self.further.failed(attempt, last, now)
            return
        exchange = attempt.exchange
        if exchange.conclude(attempt):
            if attempt.is_further:
                self.further.won(attempt, verdict)
            self.replies.answer(exchange, last, attempt, is_served=verdict is Verdict.SUCCESS)
            if exchange.sample is not None:
                exchange.sample.answered(attempt, verdict, last)
        # After the answer: the client does not wait for the learning.
        self.outcomes.account(attempt, verdict, now)

    def _send(self, attempt: Attempt) -> None:
        """Have a worker make a further attempt, in a call of its own."""
        self.submit(partial(self.serve, attempt))
