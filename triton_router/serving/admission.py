"""How many requests may be under way, who has to go where there are too many, and when to come back.

What waits is refused, never what a target works on. Under overload it is better to answer few in time than all too
late (*Site Reliability Engineering*, 2016, chapter 21): so a request that cannot be answered within its bound because
of what is in front of it is refused at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_router.errors import OverloadedError
from triton_router.serving.pace import Pace

if TYPE_CHECKING:
    from triton_router.errors import AllFullError
    from triton_router.serving.exchange import Attempt, Exchange
    from triton_router.serving.merging import Merging
    from triton_router.serving.replies import Replies
    from triton_router.serving.resilience_counts import ResilienceCounts
    from triton_router.serving.waiting_room import WaitingRoom

_MARGIN = 1.2
"""A wait is longer than expected as often as not, and in overload all that is let in comes to the edge of its bound."""
_TRIAL_EVERY_S = 1.0
"""So often one that seems late is let through, to see whether it is: without answers nothing is unlearned..."""
_TRIAL_TIMES = 20.0
_RAREST_TRIAL_S = 10.0
"""... but not before 20 times as long as it would take, or 10 seconds: who is late costs others time."""
_UNKNOWN_MS = 1000.0
_LONGEST_MS = 60_000.0


class Admission:
    """Lets requests of one routed model in, or not. Safe to use from several threads.

    Args:
        limit: Requests under way at most.
        reject_late: Whether those that would be late are refused at once.
        replies: Knows what is under way.
        room: Knows what waits for a worker or a slot...
        merging: ... and for company.
        counts: Where refusals are counted.
    """

    def __init__(
        self,
        limit: int,
        *,
        reject_late: bool,
        replies: Replies,
        room: WaitingRoom,
        merging: Merging,
        counts: ResilienceCounts,
    ) -> None:
        self.limit = limit
        self.reject_late = reject_late
        self._replies = replies
        self._room = room
        self._merging = merging
        self._counts = counts
        # The lowest priority that there ever was: who has no higher one takes nobody's place, and looks for none.
        self._least_urgent = 0
        # Of answers, and of turns. Calls go on for clients that were told that their time has passed.
        self._pace, self._turns = Pace(), Pace()
        # By target, when one that seemed late was let through, or else when the first was refused.
        self._tried_at: dict[str, float] = {}

    def admit(self, exchange: Exchange) -> None:
        """Let a request in, if need be in the place of one that is less urgent and still waits.

        Raises:
            OverloadedError: There is no place for it.
        """
        self._least_urgent = min(self._least_urgent, exchange.priority)
        if self._replies.under_way < self.limit:
            return
        while exchange.priority > self._least_urgent and (other := self._less_urgent_than(exchange)) is not None:
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
        if not self.reject_late or not exchange.bound_ms:
            return
        ahead = self._room.ahead_of(exchange)
        wait_ms = self._turns.wait_ms(ahead)
        if wait_ms * _MARGIN > exchange.bound_ms:
            raise self._late(exchange, wait_ms, f"{ahead} requests wait in front of it, for about {wait_ms:.0f} ms")

    def refuse_late(self, attempt: Attempt) -> None:
        """Refuse a request that others are in front of, and that its target will not answer in time.

        Where nobody is, it is let in, however little time its target seems to leave it: the client may know better,
        and its answer tells. For the same reason one is let in now and then though others are in front of it.

        Raises:
            OverloadedError: So it is; its attempt is the caller's to end.
        """
        if not self.reject_late:
            return
        decision, exchange = attempt.decision, attempt.exchange
        waited_ms = (attempt.begun_at - exchange.taken_at) * 1e3
        line = self._merging.ahead_of(attempt)
        if line is None:
            alone_ms, wait_ms = decision.alone_ms, decision.expected_latency_ms - decision.alone_ms
            why = f"no target is expected to answer in less than {alone_ms + wait_ms:.0f} ms, with what is in flight"
        else:
            ahead, wait_ms, alone_ms = line
            why = (
                f"{ahead} requests wait in front of it for target {decision.target.name!r}, for about {wait_ms:.0f} ms"
            )
        if wait_ms <= 0.0 and waited_ms <= 0.0:
            return
        takes_ms = alone_ms + _MARGIN * wait_ms
        # One that would be late even alone is refused as well. What a target takes alone is found out when it is idle,
        # which it never is where all whom it keeps waiting are let in.
        is_late = alone_ms > 0.0 and takes_ms + waited_ms > exchange.bound_ms > 0.0
        if is_late and not self._is_trial(decision.target.name, attempt.begun_at, takes_ms):
            raise self._late(exchange, wait_ms, why)

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
        return min(_LONGEST_MS, self._pace.wait_ms(self._replies.under_way) or _UNKNOWN_MS)

    def look(self, now: float) -> None:
        """Learn at ``now`` (monotonic seconds) how fast requests are answered; to be called regularly."""
        has_waiting = bool(len(self._room))
        self._turns.look(now, self._room.passed, is_held_up=has_waiting)
        is_held_up = has_waiting or self._merging.has_waiting or self._replies.under_way >= self.limit
        self._pace.look(now, self._replies.served, is_held_up=is_held_up)

    def _is_trial(self, target: str, now: float, takes_ms: float) -> bool:
        since = self._tried_at.setdefault(target, now)
        if now - since < min(_RAREST_TRIAL_S, max(_TRIAL_EVERY_S, _TRIAL_TIMES * takes_ms / 1e3)):
            return False
        self._tried_at[target] = now
        return True

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

    def _late(self, exchange: Exchange, wait_ms: float, why: str) -> OverloadedError:
        self._counts.add("refused_late")
        return OverloadedError(
            f"it would not be answered within {exchange.bound_ms:g} ms: {why}",
            retry_after_ms=self.retry_after_ms() if self._pace.per_s else max(1.0, min(_LONGEST_MS, wait_ms)),
            hint="come back after that time, allow more of it, or set queue.reject_late: false in router.yaml",
        )
