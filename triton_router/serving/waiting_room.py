"""Where requests wait while no worker is free, or every target has as many requests as it may have.

They wait undecided: which target is best is known when one of them can go, and a request that leaves (refused, or late)
has no slot to give back. The most urgent goes first, among equals the one that came first.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from triton_router.routing.types import Backend
    from triton_router.serving.exchange import Exchange

    Demand = frozenset[Backend] | None
    _Entry = tuple[int, float, int, Exchange]


def demand_of(exchange: Exchange) -> Demand:
    """Return what decides who can serve a request: where no target has room for one, none has for its like."""
    return exchange.context.allowed_backends


class WaitingRoom:
    """The waiting requests of one routed model. Safe to use from several threads.

    Attributes:
        passed: Requests that waited here and were sent to a target.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        # By their demand: there are as many as there are sets of backends, and those stay.
        self._heaps: dict[Demand, list[_Entry]] = {}
        self._waiting = 0
        self._arrivals = 0
        self.passed = 0
        self._is_ranked = False

    def __len__(self) -> int:
        """Return how many wait, those that were answered meanwhile included until they are swept out."""
        return self._waiting

    def put(self, exchange: Exchange) -> None:
        """Have a request wait."""
        with self._lock:
            self._arrivals += 1
            self._waiting += 1
            exchange.is_waiting = True
            self._is_ranked |= exchange.priority != 0
            heap = self._heaps.setdefault(demand_of(exchange), [])
            heappush(heap, (-exchange.priority, exchange.taken_at, self._arrivals, exchange))

    def ahead_of(self, exchange: Exchange) -> int:
        """Return how many wait that will be served before a request that would begin to wait now.

        Who demands what this one does not may wait for a target that hangs, and is passed by.
        """
        rivals, mine = 0, demand_of(exchange)
        with self._lock:
            for demand, heap in self._heaps.items():
                if demand is None or (mine is not None and mine <= demand):
                    rivals += sum(entry[0] <= -exchange.priority for entry in heap) if self._is_ranked else len(heap)
        return rivals

    def take(self, without: Collection[Demand] = ()) -> Exchange | None:
        """Return the request whose turn it is; None if none waits but those that demand what others got in vain."""
        with self._lock:
            heaps = [heap for demand, heap in self._heaps.items() if heap and demand not in without]
            while heaps:
                heap = min(heaps)
                exchange = heappop(heap)[-1]
                self._waiting -= 1
                exchange.is_waiting = False
                if not exchange.is_answered:
                    return exchange
                if not heap:
                    heaps.remove(heap)
        return None

    def note_sent(self) -> None:
        """Take note that a request whose turn it was is sent to a target, and was neither late nor put back."""
        with self._lock:
            self.passed += 1

    def sweep(self) -> None:
        """Let go of the requests that were answered while they waited."""
        with self._lock:
            for demand, heap in self._heaps.items():
                waiting = [entry for entry in heap if not entry[-1].is_answered]
                if len(waiting) < len(heap):
                    heapify(waiting)
                    self._heaps[demand] = waiting
                    self._waiting -= len(heap) - len(waiting)
