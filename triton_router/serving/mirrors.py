"""Sends copies of requests to other targets, to learn from; nobody waits for their answers, which are dropped.

The engine says when and where (`RoutingEngine.mirror`). The copy is complete before the request itself is served: once
a request is answered, nothing may be asked of it.
"""

from __future__ import annotations

import traceback
from threading import Lock
from typing import TYPE_CHECKING

from triton_router.routing.types import Outcome, Verdict
from triton_router.serving.copied_request import copied

if TYPE_CHECKING:
    from collections.abc import Callable

    from triton_router.routing.engine import RoutingEngine
    from triton_router.routing.types import RoutingDecision
    from triton_router.serving.exchange import Attempt
    from triton_router.serving.forwarding import Forwarder
    from triton_router.serving.outcomes import Finish
    from triton_router.serving.relay import Relay
    from triton_router.serving.stub import BlsRequest
    from triton_router.serving.worker_pool import WorkerPool

_NEVER = float("inf")


class Mirrors:
    """Mirrors the requests of one routed model. `take` is for the thread that takes requests; it never raises.

    Args:
        engine: Says which request is copied and to which target.
        finish: Is told how each copy ended.
        forwarder: Writes the copy.
        relay: Judges the answer.
        pool: Where copies run.
        clock: Monotonic seconds.

    Attributes:
        enabled: Whether a request may be executed more than once; if not, nothing is copied.
    """

    def __init__(
        self,
        engine: RoutingEngine,
        finish: Finish,
        forwarder: Forwarder,
        relay: Relay,
        pool: WorkerPool,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._finish = finish
        self._forwarder = forwarder
        self._relay = relay
        self._pool = pool
        self._clock = clock
        self.enabled = True
        # The copy that was sent last, while it is out, and when it is to be given up: others are to be looked at then.
        self._out: RoutingDecision | None = None
        self._overdue_at = _NEVER
        self._lock = Lock()

    def take(self, attempt: Attempt) -> None:
        """Send a copy of a decided request on its way, if one is due."""
        if not self.enabled:
            return
        try:
            self._give_up_if_overdue()
            decision = self._engine.mirror(attempt.decision)
        except Exception:  # noqa: BLE001 - shown in the server's log; the request itself must go its way
            traceback.print_exc()
            return
        if decision is None:
            return
        try:
            copy = self._copied(attempt, decision)
            if copy is not None:
                self._overdue_at = self._clock() + self._engine.overdue_ms(decision) / 1e3
                self._out = decision
                self._pool.submit(lambda: self._run(copy, decision))
                return
        except Exception:  # noqa: BLE001, S110 - what cannot be read or started is not mirrored
            pass
        # Paid for as if it had run: the next request like it would be looked at in vain just as well.
        self._finish(decision, Outcome(Verdict.CANCELLED, decision.alone_ms), self._clock())

    def close(self) -> None:
        """Wait for the copy under way, if there is one, then end where copies run."""
        self._pool.close()

    def _give_up_if_overdue(self) -> None:
        if self._clock() < self._overdue_at:
            return
        with self._lock:  # it is given up before its outcome is told, or not at all
            out, self._out, self._overdue_at = self._out, None, _NEVER
            if out is not None:
                self._engine.give_up(out, self._clock())

    def _copied(self, attempt: Attempt, decision: RoutingDecision) -> BlsRequest | None:
        """Return the copy; None if the request's inputs are too large for one or not in this machine's memory."""
        copy = copied(attempt.exchange.request)
        return self._forwarder.copy_for(decision.target, copy, copy.inputs) if copy is not None else None

    def _run(self, copy: BlsRequest, decision: RoutingDecision) -> None:
        begun_at = self._clock()
        verdict = Verdict.CANCELLED
        try:
            verdict = self._relay.verdict_on_copy(copy.exec())
        except Exception:  # noqa: BLE001 - nobody waits for it; the server's log shows it
            traceback.print_exc()
        finally:
            with self._lock:
                if self._out is decision:
                    self._out = None
            ended_at = self._clock()
            self._finish(decision, Outcome(verdict, (ended_at - begun_at) * 1e3), ended_at)
