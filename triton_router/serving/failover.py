"""Other targets for a request whose target failed, or takes long."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_router.serving.exchange import Attempt

if TYPE_CHECKING:
    from triton_router.routing.engine import RoutingEngine
    from triton_router.serving.exchange import Exchange
    from triton_router.serving.resilience_counts import ResilienceCounts

NEVER = float("inf")


class Failover:
    """Asks the engine for further attempts. Safe to use from several threads.

    Args:
        engine: Chooses, and keeps to the budget.
        counts: Where attempts are counted.
        retries: Whether a request may be executed more than once, and there is another target.
        hedges: Whether a request that takes long is sent to a second target; not for streams.
    """

    def __init__(
        self, engine: RoutingEngine, counts: ResilienceCounts, *, retries: bool = True, hedges: bool = False
    ) -> None:
        self._engine = engine
        self._counts = counts
        self.go_by(retries=retries, hedges=hedges)

    def go_by(self, *, retries: bool, hedges: bool) -> None:
        """Go by these settings from now on."""
        self._retries = retries
        self.hedges = hedges and retries

    def is_possible(self, exchange: Exchange) -> bool:
        """Whether another target may be asked: not in a sequence, nor once a stream has begun."""
        return self._retries and not exchange.is_pinned and exchange.stream_of is None

    def another(self, exchange: Exchange, now: float, *, hedge: bool = False, lost: bool = False) -> Attempt | None:
        """Return another attempt, with a slot reserved; None if there is no target or no budget left for one.

        ``hedge`` and ``lost`` are as `RoutingEngine.again` takes them.
        """
        earlier = [*exchange.failed, *(attempt.decision for attempt in exchange.attempts)]
        if not earlier:  # the attempt that was given up has just ended, and answered it
            return None
        decision = self._engine.again(earlier, now, hedge=hedge, lost=lost)
        if decision is None:
            return None
        self._counts.add("hedges" if hedge else "retries")
        attempt = Attempt(exchange, decision, now)
        attempt.is_further = True
        return attempt

    def hedge_at(self, attempt: Attempt) -> float:
        """Return when a second target is to be asked, in monotonic seconds."""
        after_ms = self._engine.hedge_after_ms(attempt.decision) if self.hedges else 0.0
        return attempt.begun_at + after_ms / 1e3 if after_ms > 0.0 else NEVER

    def overdue_at(self, attempt: Attempt) -> float:
        """Return when an attempt is to be given up, in monotonic seconds."""
        if attempt.overdue_at is None:
            after_ms = self._engine.overdue_ms(attempt.decision)
            attempt.overdue_at = attempt.begun_at + after_ms / 1e3 if after_ms > 0.0 else NEVER
        return attempt.overdue_at

    def give_up(self, attempt: Attempt, now: float) -> None:
        """Tell the engine that an attempt is overdue. It is told the outcome later, as of any."""
        attempt.is_given_up = True
        self._counts.add("overdue")
        self._engine.give_up(attempt.decision, now)

    def lose(self, attempt: Attempt, now: float) -> None:
        """Tell the engine that an attempt has no end: its target's process has ended."""
        if not attempt.is_given_up:
            attempt.is_given_up = True
            self._counts.add("overdue")
        self._engine.lose(attempt.decision, now)

    def note_winner(self, attempt: Attempt) -> None:
        """Count an answer that a further attempt brought."""
        if attempt.decision.reason == "hedge":
            self._counts.add("hedges_won")
        elif attempt.decision.reason == "retry":
            self._counts.add("retries_helped")
