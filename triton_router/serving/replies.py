"""Each request's one last response: a target's, or what its client hears where there is none."""

from __future__ import annotations

import contextlib
import traceback
from typing import TYPE_CHECKING

from triton_router.errors import RequestCancelledError, TritonRouterError
from triton_router.routing.types import Verdict
from triton_router.serving.bounds import deadline_error

if TYPE_CHECKING:
    from triton_router.serving.exchange import Attempt, Exchange
    from triton_router.serving.outcomes import Outcomes
    from triton_router.serving.relay import Relay
    from triton_router.serving.resilience_counts import ResilienceCounts
    from triton_router.serving.stub import Response, ResponseSender

STALE_S = 0.005
"""A request that waited longer for a worker is asked whether its client is still there; asking costs 85 us."""


class Replies:
    """Answers the requests of one routed model, each once. Safe to use from several threads.

    Args:
        relay: Makes responses, and sends them.
        outcomes: Keeps an eye on the attempts that an answered request leaves behind.
        counts: Where trouble is counted.

    Attributes:
        served: Requests that a target's good answer went out for; one now and then may be missed.
    """

    def __init__(self, relay: Relay, outcomes: Outcomes, counts: ResilienceCounts) -> None:
        self._relay = relay
        self._outcomes = outcomes
        self._counts = counts
        # Setting and popping are atomic.
        self._under_way: dict[Exchange, None] = {}
        self.served = 0

    @property
    def under_way(self) -> int:
        """Requests begun and not yet answered."""
        return len(self._under_way)

    def exchanges(self) -> list[Exchange]:
        """Return the requests begun and not yet answered."""
        return list(self._under_way)

    def begin(self, exchange: Exchange) -> None:
        """Count a request as under way, until it is answered."""
        self._under_way[exchange] = None

    def withdraw(self, exchange: Exchange) -> None:
        """Forget that a request has begun: it could not, and the caller has to answer it."""
        self._under_way.pop(exchange, None)

    def answer(
        self, exchange: Exchange, last: Response | None, by: Attempt | None = None, *, is_served: bool = False
    ) -> None:
        """Send the last response of a request that the caller has claimed, or in its stead whatever can be sent.

        Never raises. The request's other attempts go on to their ends.

        Args:
            exchange: The request.
            last: The response; None ends a stream without one more.
            by: The attempt that brought it.
            is_served: Whether it is a target's good answer.
        """
        # Before the answer goes out: its receiver's next request must not find this one still under way.
        self._under_way.pop(exchange, None)
        self.served += is_served
        if exchange.attempts:
            self._outcomes.abandon(exchange)
        sender = exchange.sender
        if sender is None:  # it is being served inline, and answered by return
            return
        try:
            if exchange.explanation is not None and last is not None and by is not None:
                last = self._relay.explained(last, exchange.explanation, by.decision.target.name)
            self._relay.send_last(sender, last)
        except Exception as error:  # noqa: BLE001 - /dev/shm may be full; a short error may still fit
            self._send_instead(sender, error)

    def refuse(self, sender: ResponseSender, error: Exception) -> None:
        """Answer a request that was not begun. Never raises: others of its execution may have been."""
        try:
            self._relay.send_last(sender, self.response_for(error))
        except Exception as problem:  # noqa: BLE001 - as when an answer is sent
            self._send_instead(sender, problem)

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

    def expire(self, exchange: Exchange, now: float) -> None:
        """Answer a request whose time has passed, unless its client is being answered already."""
        if exchange.stream_of is not None or not exchange.claim():
            return
        if exchange.incomplete is not None:
            self.answer(exchange, exchange.incomplete, is_served=True)
            return
        was_asked = exchange.failed or any(attempt.asked_at is not None for attempt in exchange.attempts)
        self._counts.add("deadline_errors_target" if was_asked else "deadline_errors_waiting")
        self.answer(exchange, self._relay.refused(deadline_error(exchange, now)))

    def answer_cancelled(self, exchange: Exchange) -> None:
        """Answer a request whose client has left."""
        if exchange.claim():
            self.answer(exchange, self.cancelled()[1])

    def answer_failed(self, exchange: Exchange) -> None:
        """Answer a request that no target could answer, and nobody is at work on any more."""
        if exchange.claim():
            self.answer(exchange, self._relay.failed(exchange), is_served=exchange.incomplete is not None)

    def response_for(self, error: Exception) -> Response:
        """Return the response for an error of the router's own, foreseen or not."""
        return self._relay.refused(error) if isinstance(error, TritonRouterError) else self._relay.broken(error)

    def cancelled(self) -> tuple[Verdict, Response]:
        """Return the verdict and the response for a request whose client has left."""
        error = RequestCancelledError("the client cancelled the request before it reached a target")
        return Verdict.CANCELLED, self._relay.refused(error)

    def broken(self, error: Exception) -> tuple[Verdict, Response]:
        """Return the verdict and the response for an exception that nobody foresaw."""
        return Verdict.TARGET_ERROR, self._relay.broken(error)

    def _send_instead(self, sender: ResponseSender, error: Exception) -> None:
        """Tell a client why its last response could not be sent."""
        traceback.print_exc()
        with contextlib.suppress(Exception):  # nothing is left to try
            self._relay.send_last(sender, self._relay.broken(error))
