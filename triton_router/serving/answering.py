"""Sees each request that was taken to its one answer and each attempt to its one outcome, whatever breaks on the way.

The laws of the stub process that hold here were each paid for with a crash or a hang of the server: a
request that was taken is answered, whatever happens; and nothing is asked of a request after its last response.
"""

from __future__ import annotations

import contextlib
import traceback
from functools import partial
from typing import TYPE_CHECKING

from triton_router.errors import RequestCancelledError, TritonRouterError
from triton_router.routing.types import Outcome, RoutingDecision, Verdict
from triton_router.serving.bounds import deadline_error
from triton_router.serving.exchange import NOT_SENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from triton_router.serving.exchange import Attempt, Exchange
    from triton_router.serving.failover import Failover
    from triton_router.serving.relay import Relay
    from triton_router.serving.resilience_counts import ResilienceCounts
    from triton_router.serving.stub import Response, ResponseSender
    from triton_router.serving.worker_pool import WorkerPool

    Finish = Callable[[RoutingDecision, Outcome, float], None]

STALE_S = 0.005
"""A request that waited longer for a worker is asked whether its client is still there; asking costs 85 us."""

_ASK_AGAIN_S = 0.25
"""How often another target is looked for in vain; a spent budget has filled up by a retry or more within a second."""


class Answering:
    """Answers the requests of one routed model. Only `hand_over` raises.

    Args:
        finish: Is told how each attempt ended.
        relay: Calls the target and answers the client.
        pool: Where calls run.
        failover: Knows other targets.
        counts: Where trouble is counted.
        clock: Monotonic seconds.

    Attributes:
        is_busy: Whether every worker there may be has something to do.
        has_waiting: Whether a request waits for its turn; if so...
        released: ... is called whenever a slot at a target has become free.
        answered: Requests that a target's answer went out for; one now and then may be missed.
    """

    def __init__(
        self,
        finish: Finish,
        relay: Relay,
        pool: WorkerPool,
        failover: Failover,
        counts: ResilienceCounts,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._finish = finish
        self._relay = relay
        self._pool = pool
        self._failover = failover
        self._counts = counts
        self._clock = clock
        # Setting and popping are atomic.
        self._under_way: dict[Exchange, None] = {}
        self._abandoned: dict[Attempt, None] = {}
        self.is_busy = pool.is_full
        self.has_waiting = False
        self.released: Callable[[], None] = _nothing
        self.answered = 0

    @property
    def under_way(self) -> int:
        """Requests begun and not yet answered."""
        return len(self._under_way)

    def go_by(self, limit: int, *, compares: bool) -> None:
        """Have at most so many calls in flight from now on; ``compares`` as `Relay` knows it."""
        self._pool.resize(limit)
        self._relay.compares = compares

    def exchanges(self) -> list[Exchange]:
        """Return the requests begun and not yet answered."""
        return list(self._under_way)

    def abandoned(self) -> list[Attempt]:
        """Return the attempts that have not ended though their requests were answered."""
        return list(self._abandoned)

    def begin(self, exchange: Exchange) -> None:
        """Count a request as under way, until it is answered."""
        self._under_way[exchange] = None

    def hand_over(self, attempt: Attempt) -> None:
        """Begin a request and have a worker make its first attempt.

        Raises:
            RuntimeError: No worker can be had. The attempt is accounted for; the caller has to answer the request.
        """
        self.begin(attempt.exchange)
        try:
            self._pool.submit(partial(self.serve, attempt))
        except BaseException:
            self._under_way.pop(attempt.exchange, None)
            self.drop(attempt)
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
        """Answer a request that was not begun. Never raises: others of its execution may have been."""
        try:
            self._relay.send_last(sender, self.response_for(error))
        except Exception as problem:  # noqa: BLE001 - as when an answer is sent
            self._send_instead(sender, problem)

    def response_for(self, error: Exception) -> Response:
        """Return the response for an error of the router's own, foreseen or not."""
        return self._relay.refused(error) if isinstance(error, TritonRouterError) else self._relay.broken(error)

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
            if (now >= exchange.deadline or now - since > STALE_S) and self.is_over(exchange, since, now):
                return NOT_SENT
            return self._relay.answer(attempt)
        except TritonRouterError as error:
            return Verdict.CLIENT_ERROR, self._relay.refused(error)
        except Exception as error:  # noqa: BLE001 - a worker that dies leaves its client waiting for ever
            return self.broken(error)

    def broken(self, error: Exception) -> tuple[Verdict, Response]:
        """Return the verdict and the response for an exception that nobody foresaw."""
        return Verdict.TARGET_ERROR, self._relay.broken(error)

    def is_over(self, exchange: Exchange, since: float, now: float) -> bool:
        """Answer a request whose time has passed, or whose client left while it waited; whether that is so.

        Args:
            exchange: The request.
            since: Since when it has waited, in monotonic seconds.
            now: What it is now.
        """
        if now >= exchange.deadline:
            self.expire(exchange, now)
        elif now - since > STALE_S and exchange.is_cancelled():
            self.answer_cancelled(exchange)
        return exchange.is_answered

    def answer_cancelled(self, exchange: Exchange) -> None:
        """Answer a request whose client has left."""
        if exchange.claim():
            self.answer(exchange, self.cancelled()[1])

    def is_cancelled(self, attempt: Attempt, after_s: float) -> bool:
        """Whether the client of a request that has waited so long already, in seconds, has left."""
        return self._clock() - attempt.begun_at > after_s and attempt.exchange.is_cancelled()

    def cancel(self, attempt: Attempt) -> None:
        """End an attempt whose client has left."""
        self.ended(attempt, *self.cancelled())

    def drop(self, attempt: Attempt) -> None:
        """End an attempt that never reached its target, whose exchange is answered by somebody else."""
        with attempt.exchange.lock:
            attempt.exchange.end(attempt)
        self._abandoned.pop(attempt, None)
        self.account(attempt, Verdict.CANCELLED, self._clock())

    def ended(self, attempt: Attempt, verdict: Verdict, last: Response | None) -> None:
        """Take the result of an attempt: answer with it, or have another target asked, and account for it."""
        now = self._clock()
        exchange = attempt.exchange
        if verdict is Verdict.TARGET_ERROR:
            self._failed(attempt, last, now)
        else:
            if exchange.conclude(attempt):
                # Before the answer goes out: its receiver's next request must not find this one still under way.
                self._under_way.pop(exchange, None)
                if verdict is Verdict.SUCCESS:
                    self.answered += 1
                if attempt.is_further or exchange.attempts:
                    self._failover.note_winner(attempt)
                    self._abandon(exchange)
                self._send(exchange, last, attempt)
                if exchange.sample is not None:
                    exchange.sample.answered(attempt, verdict, last)
            # After the answer: the client does not wait for the learning.
            self.account(attempt, verdict, now)
        if self._abandoned:
            self._abandoned.pop(attempt, None)

    def account(self, attempt: Attempt, verdict: Verdict, now: float) -> None:
        """Tell the engine how an attempt ended."""
        try:
            self._finish(attempt.decision, Outcome(verdict, (now - attempt.begun_at) * 1e3), now)
            if self.has_waiting:
                self.released()
        except Exception:  # noqa: BLE001 - shown in the server's log; others may wait for this worker
            traceback.print_exc()

    def expire(self, exchange: Exchange, now: float) -> None:
        """Answer a request whose time has passed, unless its client is being answered already."""
        if exchange.stream_of is not None or not exchange.claim():
            return
        was_asked = exchange.attempts or exchange.failed
        self._counts.add("deadline_errors_target" if was_asked else "deadline_errors_waiting")
        self.answer(exchange, self._relay.refused(deadline_error(exchange, now)))

    def answer(self, exchange: Exchange, last: Response | None) -> None:
        """Send the last response of a request that the caller has claimed; its attempts go on to their ends."""
        self._under_way.pop(exchange, None)
        self._abandon(exchange)
        self._send(exchange, last)

    def lose(self, target: str, before: float) -> None:
        """Give up every attempt that a target got before then (monotonic seconds): its process has ended.

        The server lets such requests fail one after the other, a second each, so that they would wait in vain.
        """
        now = self._clock()
        under_way = [attempt for exchange in self.exchanges() for attempt in exchange.attempts]
        for attempt in [*under_way, *self.abandoned()]:
            if attempt.begun_at < before and attempt.decision.target.name == target:
                self.overdue(attempt, now, lost=True)
        if self.has_waiting:
            self.released()

    def overdue(self, attempt: Attempt, now: float, *, lost: bool = False) -> None:
        """Give an attempt up, be it late or ``lost``, and have another target asked; what answers first counts."""
        exchange = attempt.exchange
        with exchange.lock:
            if attempt.has_ended or exchange.stream_of is attempt or (attempt.is_given_up and not lost):
                return
            # Under the lock: an attempt is given up before its outcome is told, or not at all.
            if lost:
                self._failover.lose(attempt, now)
            else:
                self._failover.give_up(attempt, now)
            is_mine = self._takes_on(exchange)
        if is_mine:
            self._move_on(exchange, now, lost=lost)

    def ask_again(self, exchange: Exchange, now: float) -> None:
        """Have another target asked for a request all of whose attempts are given up: the budget has filled up perhaps.

        Without that, one that was refused a retry would wait as long as its target hangs.
        """
        with exchange.lock:
            if now < exchange.ask_again_at or not exchange.attempts:
                return
            exchange.ask_again_at = now + _ASK_AGAIN_S
            is_mine = self._takes_on(exchange)
        if is_mine:
            self._move_on(exchange, now)

    def hedge(self, exchange: Exchange, now: float) -> None:
        """Ask a second target, if the first is still at it."""
        with exchange.lock:
            if exchange.is_answered or exchange.is_moving or exchange.failed or len(exchange.attempts) != 1:
                return
            exchange.is_moving = True
        self._move_on(exchange, now, hedge=True)

    def _failed(self, attempt: Attempt, last: Response | None, now: float) -> None:
        exchange = attempt.exchange
        with exchange.lock:
            exchange.end(attempt)
            exchange.failed = (*exchange.failed, attempt.decision)
            if last is None or last.has_error():
                exchange.failure = exchange.failure or last
            else:
                exchange.incomplete = last
            ends_stream = exchange.stream_of is attempt
            is_mine = self._takes_on(exchange)
        # Before another is chosen, which is to know of this.
        self.account(attempt, Verdict.TARGET_ERROR, now)
        if ends_stream and exchange.claim():
            self.answer(exchange, last)
        if is_mine:
            self._move_on(exchange, now)

    def _takes_on(self, exchange: Exchange) -> bool:
        """Whether the caller, who holds the lock, is to see to another attempt: nobody is, and none is promising."""
        if exchange.is_answered or exchange.is_moving or exchange.stream_of is not None:
            return False
        if any(not attempt.is_given_up for attempt in exchange.attempts):
            return False
        exchange.is_moving = True
        return True

    def _move_on(self, exchange: Exchange, now: float, *, hedge: bool = False, lost: bool = False) -> None:
        """Have another target asked, or else, if nobody else is at work on it, answer with what went wrong."""
        another: Attempt | None = None
        try:
            if now >= exchange.deadline:
                self.expire(exchange, now)
            elif self._failover.is_possible(exchange):
                if not exchange.is_cancelled():
                    another = self._failover.another(exchange, now, hedge=hedge, lost=lost)
                elif not hedge:
                    self.answer_cancelled(exchange)
        except Exception:  # noqa: BLE001 - shown in the server's log; the client is answered below
            traceback.print_exc()
        with exchange.lock:
            exchange.is_moving = False
            if another is not None:
                exchange.attempts = (*exchange.attempts, another)
            # One that was given up may still answer.
            is_over = another is None and not exchange.is_answered and not exchange.attempts
            exchange.is_moving = is_over and hedge
        if another is not None:
            self.submit(partial(self.serve, another))
        elif is_over and hedge:  # the first attempt failed while a second was looked for
            self._move_on(exchange, now)
        elif is_over and exchange.claim():
            self.answer(exchange, self._relay.failed(exchange))

    def _abandon(self, exchange: Exchange) -> None:
        """Keep an eye on the attempts that an answered exchange leaves behind."""
        for attempt in exchange.attempts:
            self._abandoned[attempt] = None
            if attempt.has_ended:  # perhaps only just: whoever ended it may have looked before it was noted
                self._abandoned.pop(attempt, None)

    def cancelled(self) -> tuple[Verdict, Response]:
        """Return the verdict and the response for a request whose client has left."""
        error = RequestCancelledError("the client cancelled the request before it reached a target")
        return Verdict.CANCELLED, self._relay.refused(error)

    def _send(self, exchange: Exchange, last: Response | None, winner: Attempt | None = None) -> None:
        """Send the last response, or in its stead whatever can be sent. Never raises."""
        sender = exchange.sender
        if sender is None:  # it is being served inline, and answered by return
            return
        try:
            if exchange.explanation is not None and last is not None and winner is not None:
                last = self._relay.explained(last, exchange.explanation, winner.decision.target.name)
            self._relay.send_last(sender, last)
        except Exception as error:  # noqa: BLE001 - /dev/shm may be full; a short error may still fit
            self._send_instead(sender, error)

    def _send_instead(self, sender: ResponseSender, error: Exception) -> None:
        """Tell a client why its last response could not be sent."""
        traceback.print_exc()
        with contextlib.suppress(Exception):  # nothing is left to try
            self._relay.send_last(sender, self._relay.broken(error))


def _nothing() -> None:
    """Nobody waits for a slot."""
