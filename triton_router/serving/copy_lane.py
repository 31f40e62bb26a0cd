"""Copies of one kind, one at a time: from when a request is sampled until the answers have been compared.

A copy that hangs at its target is given up when it is overdue, and others are made; of those that hang there may be a
few, before no more are made at all.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING
from weakref import ref

from triton_router.serving.worker_pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Callable

    from triton_router.parity.sampling import Sampling
    from triton_router.routing.engine import RoutingEngine
    from triton_router.routing.types import RoutingDecision
    from triton_router.serving.exchange import Exchange

_HANGING = 4
"""Copies that may hang at their targets, all but one of them given up, before no more are made."""
_PATIENCE_S = 60.0
"""A sampled request that was not heard of for so long is not waited for."""


class CopyLane:
    """The lane of one kind of copies. Safe to use from several threads.

    Args:
        name: Of the kind.
        engine: Says when a copy is overdue.
        sampling: Which requests are sampled.
        clock: Monotonic seconds.

    Attributes:
        sampling: As passed.
    """

    def __init__(self, name: str, engine: RoutingEngine, sampling: Sampling, *, clock: Callable[[], float]) -> None:
        self.sampling = sampling
        self._engine = engine
        self._clock = clock
        self._pool = WorkerPool(_HANGING, name=name)
        self._lock = Lock()
        # First a request holds the lane, then the copy that follows its answer. The request, and with it the memory of
        # its tensors, is not kept for that: it may be over without an answer to compare.
        self._held_by: Callable[[], Exchange | None] = _nobody
        self._is_copying = False
        self._out: RoutingDecision | None = None
        self._overdue_at = 0.0

    def hold(self, exchange: Exchange, now: float) -> bool:
        """Take the lane for a request that is sampled, until its answer is at hand; False if it is taken."""
        with self._lock:
            held = self._held_by()
            if held is not None and not held.is_answered and now - held.taken_at < _PATIENCE_S:
                return False
            if self._is_copying:
                if now < self._overdue_at:
                    return False
                self._give_up(now)
            self._held_by = ref(exchange)
            return True

    def let_go(self, exchange: Exchange) -> None:
        """Give the lane back without a copy."""
        with self._lock:
            if self._held_by() is exchange:
                self._held_by = _nobody

    def submit(self, exchange: Exchange, job: Callable[[], None]) -> None:
        """Have a thread do the rest for the request that holds the lane, which ends with `end`; if one is left."""
        with self._lock:
            if self._held_by() is not exchange or self._is_copying:
                return
            self._held_by = _nobody
            self._is_copying = self._pool.offer(job)
            self._overdue_at = self._clock() + _PATIENCE_S

    def begin(self, decision: RoutingDecision) -> None:
        """Note which copy goes out."""
        overdue_ms = self._engine.overdue_ms(decision)
        with self._lock:
            self._out = decision
            if overdue_ms:
                self._overdue_at = self._clock() + overdue_ms / 1e3

    def go_on(self, before: RoutingDecision, decision: RoutingDecision) -> bool:
        """Note which copy goes out after one that is back; False if that was given up, and others have the lane."""
        overdue_ms = self._engine.overdue_ms(decision)
        with self._lock:
            if self._out is not before:
                return False
            self._out = decision
            self._overdue_at = self._clock() + (overdue_ms / 1e3 or _PATIENCE_S)
            return True

    def end(self, decision: RoutingDecision | None, took_ms: float) -> None:
        """Note that a copy is back and compared, or (None) that none went out, and pay for it."""
        with self._lock:
            if self._out is decision:
                self._out = None
                self._is_copying = False
        self.sampling.spend(took_ms)

    def _give_up(self, now: float) -> None:
        # Under the lock: it is given up before its outcome is told, or not at all.
        if self._out is not None:
            self._engine.give_up(self._out, now)
        self._out, self._is_copying = None, False

    def close(self) -> None:
        """Wait for the copy under way, if there is one."""
        self._pool.close()


def _nobody() -> None:
    """Hold nothing."""
