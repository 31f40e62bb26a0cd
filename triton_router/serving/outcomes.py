"""Each attempt's one outcome: the engine is told of it, whatever becomes of the request."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from triton_router.routing.types import Outcome, RoutingDecision, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from triton_router.serving.exchange import Attempt, Exchange

    Finish = Callable[[RoutingDecision, Outcome, float], None]


class Outcomes:
    """Tells how the attempts of one routed model ended. Safe to use from several threads.

    Args:
        finish: Is told how each attempt ended.
        clock: Monotonic seconds.

    Attributes:
        has_waiting: Whether a request waits for its turn; if so...
        released: ... is called whenever a slot at a target has become free.
    """

    def __init__(self, finish: Finish, *, clock: Callable[[], float]) -> None:
        self._finish = finish
        self._clock = clock
        # Setting and popping are atomic.
        self._abandoned: dict[Attempt, None] = {}
        self.has_waiting = False
        self.released: Callable[[], None] = _nothing

    def abandoned(self) -> list[Attempt]:
        """Return the attempts that have not ended though their requests were answered."""
        return list(self._abandoned)

    def abandon(self, exchange: Exchange) -> None:
        """Keep an eye on the attempts that an answered exchange leaves behind."""
        for attempt in exchange.attempts:
            self._abandoned[attempt] = None
            if attempt.has_ended:  # perhaps only just: whoever ended it may have looked before it was noted
                self._abandoned.pop(attempt, None)

    def account(self, attempt: Attempt, verdict: Verdict, now: float) -> None:
        """Tell the engine how an attempt ended. Never raises."""
        try:
            self._finish(attempt.decision, Outcome(verdict, (now - attempt.begun_at) * 1e3), now)
            if self.has_waiting:
                self.released()
        except Exception:  # noqa: BLE001 - shown in the server's log; others may wait for this worker
            traceback.print_exc()
        if self._abandoned:
            self._abandoned.pop(attempt, None)

    def drop(self, attempt: Attempt) -> None:
        """End an attempt that never reached its target, whose exchange is answered by somebody else."""
        with attempt.exchange.lock:
            attempt.exchange.end(attempt)
        self.account(attempt, Verdict.CANCELLED, self._clock())


def _nothing() -> None:
    """Nobody waits for a slot."""
