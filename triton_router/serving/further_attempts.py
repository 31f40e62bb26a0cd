"""When another target is asked for a request: its target failed, takes long, is lost, or a second is to race the first.

Whoever sees to that holds the exchange's lock while it looks, and marks the exchange as moving: nobody else does then.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from triton_router.routing.types import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from triton_router.serving.exchange import Attempt, Exchange
    from triton_router.serving.failover import Failover
    from triton_router.serving.optional_outputs import OptionalOutputs
    from triton_router.serving.outcomes import Outcomes
    from triton_router.serving.replies import Replies
    from triton_router.serving.stub import Response

_ASK_AGAIN_S = 0.25
"""How often another target is looked for in vain; a spent budget has filled up by a retry or more within a second."""


class FurtherAttempts:
    """Has further attempts made of the requests of one routed model. Safe to use from several threads.

    Args:
        failover: Knows other targets, and keeps to the budget.
        replies: Answers the requests that nobody else is asked for.
        outcomes: Is told of the attempts that failed.
        optional: Says whether an answer that lacks outputs is a failure.
        clock: Monotonic seconds.

    Attributes:
        send: Has a further attempt made.
    """

    def __init__(
        self,
        failover: Failover,
        replies: Replies,
        outcomes: Outcomes,
        optional: OptionalOutputs,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._failover = failover
        self._replies = replies
        self._outcomes = outcomes
        self._optional = optional
        self._clock = clock
        self.send: Callable[[Attempt], None] = _nowhere

    def failed(self, attempt: Attempt, last: Response | None, now: float) -> None:
        """Take the result of an attempt that will not do as the answer: account for it, and have another one asked."""
        exchange = attempt.exchange
        verdict = attempt.blame
        with exchange.lock:
            exchange.end(attempt)
            exchange.failed = (*exchange.failed, attempt.decision)
            if last is None or last.has_error():
                exchange.failure = exchange.failure or last
            elif not self._optional.left_out(attempt, last):
                verdict = Verdict.SUCCESS
            ends_stream = exchange.stream_of is attempt
            is_mine = self._takes_on(exchange)
        # Before another is chosen, which is to know of this.
        self._outcomes.account(attempt, verdict, now)
        if ends_stream and exchange.claim():
            self._replies.answer(exchange, last)
        if is_mine:
            self._move_on(exchange, now)

    def won(self, attempt: Attempt, verdict: Verdict) -> None:
        """Take note that a further attempt has brought the answer."""
        self._failover.note_winner(attempt)
        if verdict is Verdict.SUCCESS:
            self._optional.supplied(attempt)

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

    def lose(self, target: str, before: float) -> None:
        """Give up every attempt that a target got before then (monotonic seconds): its process has ended.

        The server lets such requests fail one after the other, a second each, so that they would wait in vain.
        """
        now = self._clock()
        under_way = [attempt for exchange in self._replies.exchanges() for attempt in exchange.attempts]
        for attempt in [*under_way, *self._outcomes.abandoned()]:
            if attempt.begun_at < before and attempt.decision.target.name == target:
                self.overdue(attempt, now, lost=True)
        if self._outcomes.has_waiting:
            self._outcomes.released()

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
                self._replies.expire(exchange, now)
            elif self._failover.is_possible(exchange):
                if not exchange.is_cancelled():
                    another = self._failover.another(exchange, now, hedge=hedge, lost=lost)
                elif not hedge:
                    self._replies.answer_cancelled(exchange)
        except Exception:  # noqa: BLE001 - shown in the server's log; the client is answered below
            traceback.print_exc()
        with exchange.lock:
            exchange.is_moving = False
            if another is not None:
                exchange.attempts = (*exchange.attempts, another)
            # One that was given up may still answer, which is worth waiting for if there is no answer yet.
            is_hopeless = exchange.incomplete is not None and all(one.is_given_up for one in exchange.attempts)
            is_over = another is None and not exchange.is_answered and (not exchange.attempts or is_hopeless)
            exchange.is_moving = is_over and hedge
        if another is not None:
            self.send(another)
        elif is_over and hedge:  # the first attempt failed while a second was looked for
            self._move_on(exchange, now)
        elif is_over:
            self._replies.answer_failed(exchange)


def _nowhere(_: Attempt) -> None:
    """Before there are workers."""
