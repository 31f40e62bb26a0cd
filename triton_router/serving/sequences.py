"""Keeps a sequence on one target and its requests in order, whatever the worker threads do.

A stateful target holds a sequence's state, and clients rely on its requests being served in order. The router
neither batches nor splits sequences: correlation id and flags travel on, and the target's sequence batcher does
the rest.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_SEQUENCES = 16_384
"""Pins kept at once, about 5 MB. Beyond it the longest unused is forgotten; its next request is routed afresh."""

T = TypeVar("T")


class Lane(Generic[T]):
    """One sequence: where it is pinned, and its requests not yet served."""

    __slots__ = ("busy", "pending", "target")

    def __init__(self) -> None:
        self.target = ""
        self.pending: list[T] = []
        self.busy = False


class SequenceLanes(Generic[T]):
    """The sequences under way through one routed model. `lane` and `end` are for one thread; lanes for any."""

    def __init__(self, limit: int = MAX_SEQUENCES) -> None:
        self._limit = limit
        self._lanes: OrderedDict[int | str, Lane[T]] = OrderedDict()
        self._lock = Lock()

    def lane(self, correlation_id: int | str, *, start: bool) -> Lane[T]:
        """Return the sequence's lane; a new one if it starts (again) or is not known."""
        lane = self._lanes.get(correlation_id)
        if lane is None or start:
            lane = self._lanes[correlation_id] = Lane()
            self._forget_surplus()
        self._lanes.move_to_end(correlation_id)
        return lane

    def end(self, correlation_id: int | str) -> None:
        """Forget a sequence whose last request has arrived; its lane still serves what is pending."""
        self._lanes.pop(correlation_id, None)

    def enqueue(self, lane: Lane[T], call: T) -> bool:
        """Add a request to its lane; return True if nobody is serving the lane and the caller must see to it."""
        with self._lock:
            lane.pending.append(call)
            if lane.busy:
                return False
            lane.busy = True
            return True

    def drain(self, lane: Lane[T], serve: Callable[[T], None]) -> None:
        """Serve the lane's requests one after another until none is left."""
        while True:
            with self._lock:
                calls, lane.pending = lane.pending, []
                if not calls:
                    lane.busy = False
                    return
            for call in calls:
                serve(call)

    def _forget_surplus(self) -> None:
        while len(self._lanes) > self._limit:
            self._lanes.popitem(last=False)
