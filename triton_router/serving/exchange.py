"""One request and the attempts to answer it.

An *exchange* is a request taken from Triton: it ends with exactly one last response. An *attempt* is one decision for
it: a slot reserved at a target, which ends with exactly one outcome. An exchange has several attempts where targets
fail or take long, and they overlap: who answers is settled by an atomic claim, and what the others bring is counted
and dropped.

Two laws of the stub process live here. A request gets one last response, so whoever would send it has to `claim` or
`conclude` first. And nothing is asked of a request after its last response (some questions crash the server), so
whoever asks holds `lock` and looks at `is_answered`; claiming takes the same lock.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from triton_router.routing.types import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triton_router.routing.explanation import Explanation
    from triton_router.routing.types import RoutingContext, RoutingDecision
    from triton_router.serving.comparisons import Sample
    from triton_router.serving.stub import Request, Response, ResponseSender

FOREVER = float("inf")


class Exchange:
    """One request taken from Triton.

    What few requests need has its value here, in the class, so that the others do not pay for it.

    Args:
        request: As Triton gave it.
        context: What the engine is asked.
        taken_at: When it was taken, in monotonic seconds.

    Attributes:
        lock: Held while anything is asked of ``request`` or changes here.
        sender: None while the request may still be answered by return.
        wants_explanation: Whether it asks why its target is chosen.
        explanation: The answer to that.
        bound_ms: Time in which it has to be answered; 0 for any.
        deadline: The end of that time, in monotonic seconds.
        is_timed: Whether somebody will be there when its time has passed.
        hedge_at: When a second target is asked, likewise.
        ask_again_at: Before then no other target is looked for again in vain, likewise.
        timeout_us: Triton's ``timeout``, 0 for none.
        priority: Larger is more urgent.
        is_waiting: Whether it waits in the router, so that nothing is lost if it is refused.
        is_answered: Whether somebody has sent its last response, or is about to.
        is_pinned: Whether it belongs to a sequence, which stays with its target.
        is_moving: Whether somebody is looking for another target for it.
        stream_of: The attempt whose responses the client of a stream gets, once one has been sent.
        attempts: The attempts under way, in their order. Those that have ended are not kept: they know their exchange,
            and what knows each other, a request's tensors included, stays in memory until a collection.
        failed: The decisions of the attempts that failed.
        failure: The first error of a target.
        incomplete: A target's answer that lacked outputs: better than an error.
        incomplete_of: The target's name.
        outputs: The outputs that are wanted.
        sample: What is to be done with its answer beyond sending it; None for nothing.
    """

    sender: ResponseSender | None = None
    wants_explanation = False
    explanation: Explanation | None = None
    bound_ms = 0.0
    deadline = FOREVER
    is_timed = False
    hedge_at = FOREVER
    ask_again_at = 0.0
    timeout_us = 0
    priority = 0
    is_waiting = False
    is_answered = False
    is_pinned = False
    is_moving = False
    stream_of: Attempt | None = None
    attempts: tuple[Attempt, ...] = ()
    failed: tuple[RoutingDecision, ...] = ()
    failure: Response | None = None
    incomplete: Response | None = None
    incomplete_of: str = ""
    outputs: Sequence[str] = ()
    sample: Sample | None = None

    def __init__(self, request: Request, context: RoutingContext, taken_at: float) -> None:
        self.request = request
        self.context = context
        self.taken_at = taken_at
        self.lock = Lock()

    @property
    def due_at(self) -> float:
        """When something has to be done about it, in monotonic seconds."""
        return min(FOREVER if self.is_timed else self.deadline, self.hedge_at)

    def claim(self) -> bool:
        """Whether the caller, and nobody else, is to send the last response."""
        with self.lock:
            if self.is_answered:
                return False
            self.is_answered = True
            return True

    def conclude(self, attempt: Attempt) -> bool:
        """End an attempt whose result would do as the answer; whether the caller is to send it, as `claim`."""
        with self.lock:
            self.end(attempt)
            if self.is_answered or (self.stream_of is not None and self.stream_of is not attempt):
                return False
            self.is_answered = True
            return True

    def is_cancelled(self) -> bool:
        """Whether the client has left; False once it has been answered. Takes 85 us."""
        with self.lock:
            return not self.is_answered and self.request.is_cancelled()

    def send_part(self, attempt: Attempt, response: Response) -> bool:
        """Send one of a stream's responses; False where the client gets another attempt's, or nothing any more."""
        with self.lock:
            if self.is_answered or self.sender is None:
                return False
            if self.stream_of is None:
                self.stream_of = attempt
            if self.stream_of is not attempt:
                return False
            self.sender.send(response)
            return True

    def end(self, attempt: Attempt) -> None:
        """Let go of an attempt that has ended. The caller holds ``lock``."""
        attempt.has_ended = True
        others = self.attempts
        self.attempts = tuple(other for other in others if other is not attempt) if len(others) > 1 else ()


class Attempt:
    """One decision for an exchange, until its outcome is known. Whoever holds it sees to that.

    Args:
        exchange: What it is to answer.
        decision: The slot that it has reserved.
        begun_at: When that was decided, in monotonic seconds.

    Attributes:
        is_further: Whether it is not the exchange's first.
        has_ended: Whether its result is known.
        is_given_up: Whether the engine was told that it is overdue.
        is_turned_away: Whether its target had no room for it, so that another may be asked and nobody has failed.
        overdue_at: From when on it is; None while nobody has asked.
        asked_at: When its target was asked, in monotonic seconds; None while it waits.
    """

    is_further = False
    has_ended = False
    is_given_up = False
    is_turned_away = False
    overdue_at: float | None = None
    asked_at: float | None = None

    def __init__(self, exchange: Exchange, decision: RoutingDecision, begun_at: float) -> None:
        self.exchange = exchange
        self.decision = decision
        self.begun_at = begun_at

    @property
    def blame(self) -> Verdict:
        """What the engine is told of it where its target did not answer it."""
        return Verdict.CANCELLED if self.is_turned_away else Verdict.TARGET_ERROR


NOT_SENT: tuple[Verdict, None] = (Verdict.CANCELLED, None)
"""What becomes of an attempt whose exchange was answered before it reached its target."""
