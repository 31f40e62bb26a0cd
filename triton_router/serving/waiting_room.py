"""Where requests wait while no worker is free, or every target has as many requests as it may have.

They wait undecided: which target is best is known when one of them can go, and a request that leaves (refused, or late)
has no slot to give back. The most urgent goes first, among equals the one that came first.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from triton_router.serving.exchange import Exchange


class WaitingRoom:
    """The waiting requests of one routed model. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._heap: list[tuple[int, float, int, Exchange]] = []
        self._arrivals = 0

    def __len__(self) -> int:
        """Return how many wait, those that were answered meanwhile included until they are swept out."""
        return len(self._heap)

    def put(self, exchange: Exchange) -> None:
        """Have a request wait."""
        with self._lock:
            self._arrivals += 1
            exchange.is_waiting = True
            heappush(self._heap, (-exchange.priority, exchange.taken_at, self._arrivals, exchange))

    def take(self) -> Exchange | None:
        """Return the request whose turn it is; None if none waits."""
        with self._lock:
            while self._heap:
                exchange = heappop(self._heap)[-1]
                exchange.is_waiting = False
                if not exchange.is_answered:
                    return exchange
        return None

    def sweep(self) -> None:
        """Let go of the requests that were answered while they waited."""
        with self._lock:
            waiting = [entry for entry in self._heap if not entry[-1].is_answered]
            if len(waiting) < len(self._heap):
                heapify(waiting)
                self._heap = waiting
