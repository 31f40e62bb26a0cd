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

    from triton_router.routing.types import Target

MAX_SEQUENCES = 16_384
"""Pins kept at once, about 5 MB. Beyond it the longest unused is forgotten; it may be remembered elsewhere."""

T = TypeVar("T")


class Lane(Generic[T]):
    """One sequence: the target that holds its state, None until there is one, and its requests not yet served."""

    __slots__ = ("busy", "pending", "target")

    def __init__(self, target: Target | None = None) -> None:
        self.target = target
        self.pending: list[T] = []
        self.busy = False


class SequenceLanes(Generic[T]):
    """The sequences under way through one routed model. Safe to use from several threads."""

    def __init__(self, limit: int = MAX_SEQUENCES) -> None:
        self._limit = limit
        self._lanes: OrderedDict[int | str, Lane[T]] = OrderedDict()
        self._lock = Lock()

    def find(self, correlation_id: int | str) -> Lane[T] | None:
        """Return the sequence's lane; None if it is not known."""
        with self._lock:
            return self._lanes.get(correlation_id)

    def keep(self, correlation_id: int | str, lane: Lane[T]) -> None:
        """Have this lane for the sequence from now on, as the one used last; the longest unused is forgotten."""
        with self._lock:
            self._lanes[correlation_id] = lane
            self._lanes.move_to_end(correlation_id)
            while len(self._lanes) > self._limit:
                self._lanes.popitem(last=False)

    def end(self, correlation_id: int | str, lane: Lane[T]) -> bool:
        """Forget a sequence, unless it has begun anew in another lane; whether it was known by this one."""
        with self._lock:
            if self._lanes.get(correlation_id) is not lane:
                return False
            del self._lanes[correlation_id]
            return True

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
