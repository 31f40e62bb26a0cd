"""How many requests may be under way, who has to go where there are too many, and when to come back.

What waits is refused, never what a target works on. Under overload it is better to answer few in time than all too
late (*Site Reliability Engineering*, 2016, chapter 21): so a request that cannot be answered within its bound because
of what is in front of it is refused at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_router.errors import OverloadedError

if TYPE_CHECKING:
    from triton_router.errors import AllFullError
    from triton_router.serving.exchange import Attempt, Exchange
    from triton_router.serving.replies import Replies
    from triton_router.serving.resilience_counts import ResilienceCounts
    from triton_router.serving.waiting_room import WaitingRoom

_FRESH = 0.05
"""Weight of the latest look in the pace: half of what is known is from the last 0.7 s."""
_MARGIN = 1.2
"""What is expected is exceeded as often as not, and in overload all that is let in comes to the edge of its bound."""
_UNKNOWN_MS = 1000.0
_LONGEST_MS = 60_000.0


class Admission:
    """Lets requests of one routed model in, or not. Safe to use from several threads.

    Args:
        limit: Requests under way at most.
        reject_late: Whether those that would be late are refused at once.
        replies: Knows what is under way.
        room: Knows what waits.
        counts: Where refusals are counted.
    """

    def __init__(
        self, limit: int, *, reject_late: bool, replies: Replies, room: WaitingRoom, counts: ResilienceCounts
    ) -> None:
        self.limit = limit
        self.reject_late = reject_late
        self._replies = replies
        self._room = room
        self._counts = counts
        self._has_priorities = False
        self._looked_at = 0.0
        self._answered = 0
        # Answers per second while requests wait; 0 while that is not known.
        self._pace = 0.0

    def admit(self, exchange: Exchange) -> None:
        """Let a request in, if need be in the place of one that is less urgent and still waits.

        Raises:
            OverloadedError: There is no place for it.
        """
        self._has_priorities |= exchange.priority != 0
        if self._replies.under_way < self.limit:
            return
        while self._has_priorities and (other := self._less_urgent_than(exchange)) is not None:
            if other.claim():
                self._counts.add("refused_displaced")
                self._replies.answer(other, self._replies.response_for(self._full("a more urgent one took its place")))
                return
        self._counts.add("refused_full")
        raise self._full("no less urgent one waits")

    def refuse_late_waiting(self, exchange: Exchange) -> None:
        """Refuse a request that would wait in the router for longer than it has time.

        Raises:
            OverloadedError: It would.
        """
        if not self.reject_late or not exchange.bound_ms or not self._pace:
            return
        wait_ms = len(self._room) / self._pace * 1e3
        if wait_ms * _MARGIN > exchange.bound_ms:
            raise self._late(exchange, f"{len(self._room)} requests wait in front of it, for about {wait_ms:.0f} ms")

    def refuse_late(self, attempt: Attempt) -> None:
        """Refuse a request that its target would answer in time if nothing else were in flight, and as it is will not.

        Raises:
            OverloadedError: So it is; its attempt is the caller's to end.
        """
        decision, exchange = attempt.decision, attempt.exchange
        if not self.reject_late or not 0.0 < decision.alone_ms <= exchange.bound_ms:
            return
        left_ms = exchange.bound_ms - (attempt.begun_at - exchange.taken_at) * 1e3
        if decision.expected_latency_ms * _MARGIN > left_ms:
            raise self._late(
                exchange,
                f"no target is expected to answer in less than {decision.expected_latency_ms:.0f} ms, with what is in "
                "flight",
            )

    def refusal_of_sequence(self, error: AllFullError) -> OverloadedError:
        """Return what the client hears of a sequence that no target has room for, and count it."""
        self._counts.add("refused_full")
        return OverloadedError(
            error.message,
            retry_after_ms=self.retry_after_ms(),
            hint="begin the sequence again after that time, or raise max_in_flight in router.yaml",
        )

    def retry_after_ms(self) -> float:
        """Return after how long another try is worth it: when what is under way now will have been answered."""
        if not self._pace:
            return _UNKNOWN_MS
        return min(_LONGEST_MS, self._replies.under_way / self._pace * 1e3)

    def look(self, now: float) -> None:
        """Learn at ``now`` (monotonic seconds) how fast requests are answered; to be called regularly."""
        answered, elapsed = self._replies.served, now - self._looked_at
        new = answered - self._answered
        self._answered, self._looked_at = answered, now
        if len(self._room) and 0.0 < elapsed < 1.0:
            pace = new / elapsed
            self._pace += (pace - self._pace) * (_FRESH if self._pace else 1.0)

    def _less_urgent_than(self, exchange: Exchange) -> Exchange | None:
        """Return, of the waiting requests that are less urgent than this one, the newest of the least urgent."""
        waiting = (
            other
            for other in self._replies.exchanges()
            if other.is_waiting and not other.is_answered and other.priority < exchange.priority
        )
        return min(waiting, key=lambda other: (other.priority, -other.taken_at), default=None)

    def _full(self, why: str) -> OverloadedError:
        return OverloadedError(
            f"{self.limit} requests are under way in the router, as many as may be, and {why}",
            retry_after_ms=self.retry_after_ms(),
            hint="come back after that time, send it with a higher x-priority, or raise queue.limit in router.yaml",
        )

    def _late(self, exchange: Exchange, why: str) -> OverloadedError:
        self._counts.add("refused_late")
        return OverloadedError(
            f"it would not be answered within {exchange.bound_ms:g} ms: {why}",
            retry_after_ms=self.retry_after_ms(),
            hint="come back after that time, allow more of it, or set queue.reject_late: false in router.yaml",
        )
