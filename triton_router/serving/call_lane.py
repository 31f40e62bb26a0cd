"""The calls to one target that may be merged: how many are in flight, and which requests wait for one to end.

A request goes out at once while fewer calls than the limit are in flight: at low load nothing waits for company.
Otherwise it waits, and whenever a call ends, requests that fit together go out as the next one.
"""

from __future__ import annotations

from collections import deque
from math import ceil
from threading import Lock
from typing import TYPE_CHECKING

from triton_router.serving.lane_request import CallCounts
from triton_router.serving.merge_size import CallCosts, in_time, merge_size
from triton_router.serving.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Iterable

    from triton_router.serving.exchange import Attempt, Exchange
    from triton_router.serving.lane_request import LaneRequest

MAX_MERGED_BYTES = 16 << 20
"""Most input bytes of a merged call: they are there twice while it runs, and /dev/shm never shrinks."""
_FOREVER = float("inf")


class CallLane:
    """The lane of one target. Safe to use from several threads.

    Args:
        limit: Calls in flight at once.
        max_rows: Most rows of a merged call.
        measured: ``(work, latency_ms)`` pairs measured beforehand.
    """

    def __init__(self, *, limit: int, max_rows: int, measured: Iterable[tuple[float, float]] = ()) -> None:
        self.merges = True
        self._limit = limit
        self._max_rows = max_rows
        self._lock = Lock()
        self._in_flight = 0
        self.generation = 0
        """Counts the processes of the target, as far as their ends were noticed."""
        self._waiting: dict[object, deque[LaneRequest]] = {}
        self._costs = CallCosts(measured)
        # After a merged call that failed: requests that may go together, until calls succeed again.
        self._cap = _FOREVER
        self._counts = [0, 0, 0, 0]
        self._pace = Pace()
        self._passed = 0

    def resize(self, limit: int) -> None:
        """Have so many calls in flight at once from now on; what waits goes out when the next call ends."""
        with self._lock:
            self._limit = limit

    @property
    def has_waiting(self) -> bool:
        """Whether a request waits for a call to end."""
        return bool(self._waiting)

    def is_idle(self) -> bool:
        """Whether nothing is in flight or waits."""
        return self._in_flight == 0 and not self._waiting

    def renew(self) -> None:
        """Forget the calls in flight: the process that had them has ended, and another one takes its place."""
        with self._lock:
            self.generation += 1
            self._in_flight = 0

    def enter(self) -> bool:
        """Take a slot for one request, if there is one; whoever got it calls `leave` after the call."""
        with self._lock:
            return self._entered()

    def enter_or_wait(self, request: LaneRequest) -> bool:
        """Take a slot; or else (False) have the request wait for a call that ends."""
        with self._lock:
            if self._entered():
                return True
            request.attempt.exchange.is_waiting = True
            queue = self._waiting.setdefault(request.key, deque())
            at = len(queue)
            while at and queue[at - 1].order > request.order:
                at -= 1
            queue.insert(at, request)
            return False

    def ahead_of(self, exchange: Exchange) -> tuple[int, float, float]:
        """Return how many requests wait in front of one that comes now, for how long, and what a call takes then.

        Both in milliseconds, and 0 where that is not known.
        """
        with self._lock:
            if self._in_flight < self._limit:
                ahead = 0
            elif exchange.priority:
                order = (-exchange.priority, exchange.taken_at)
                ahead = sum(request.order < order for queue in self._waiting.values() for request in queue)
            else:
                ahead = sum(map(len, self._waiting.values()))
            fixed, marginal = self._costs.fixed_and_marginal(exchange.context.work)
            wait_ms = self._pace.wait_ms(ahead) or self._planned_ms(ahead, fixed, marginal)
            return ahead, wait_ms, fixed + marginal

    def look(self, now: float) -> None:
        """Learn at ``now`` (monotonic seconds) how fast requests go out; to be called regularly."""
        self._pace.look(now, self._passed, is_held_up=bool(self._waiting))

    def sweep(self) -> list[LaneRequest]:
        """Let go of the requests that were answered while they waited, and return them."""
        with self._lock:
            gone: list[LaneRequest] = []
            for key, queue in list(self._waiting.items()):
                left: deque[LaneRequest] = deque()
                for request in queue:
                    (gone if request.attempt.exchange.is_answered else left).append(request)
                if left:
                    self._waiting[key] = left
                else:
                    del self._waiting[key]
            return gone

    def leave(self, now: float, requests: int, generation: int) -> list[list[LaneRequest]]:
        """Give a slot back after a call of so many requests, or of none, that began in a ``generation``.

        Returns:
            The groups of requests that are to go out now, each with a slot taken.
        """
        with self._lock:
            if generation == self.generation:
                self._in_flight = max(0, self._in_flight - 1)
            self._passed += requests
            self._count(requests)
            return self._following(now)

    def due(self, now: float) -> list[list[LaneRequest]]:
        """Return the groups that wait though there are slots, each with one taken: calls were forgotten."""
        if not self._waiting or self._in_flight >= self._limit:
            return []
        with self._lock:
            return self._following(now)

    def learn(self, requests: int, work: float, started_at: float, ended_at: float) -> None:
        """Learn from a call that succeeded, all its requests' work together."""
        with self._lock:
            self._costs.observe(started_at, ended_at, work)
            if requests >= self._cap:
                self._cap += 1

    def split(self, requests: int, max_rows: int | None = None) -> None:
        """Note that a merged call failed and that its requests go out again, each in a call of its own.

        Fewer go together for a while, so that one bad client costs little.

        Args:
            requests: How many it carried.
            max_rows: The most rows of a call, where the target said so.
        """
        with self._lock:
            self._counts[0] += requests
            self._counts[3] += 1
            if max_rows is None:
                self._cap = max(1, requests // 2)
            else:
                self._max_rows = min(self._max_rows, max_rows)

    def marginal_ms(self, work: float) -> float:
        """Return what one more request of this work costs a call."""
        with self._lock:
            return self._costs.fixed_and_marginal(work)[1]

    def counts(self) -> CallCounts:
        """Return what went through so far."""
        with self._lock:
            return CallCounts(*self._counts)

    def _planned_ms(self, ahead: int, fixed: float, marginal: float) -> float:
        """Return how long so many requests take at best, while no more is known than what calls cost."""
        size = min(merge_size(ahead, fixed, marginal), self._cap)
        return (ceil(ahead / size) * fixed + ahead * marginal) / self._limit

    def _entered(self) -> bool:
        if self._in_flight >= self._limit:
            return False
        self._in_flight += 1
        return True

    def _following(self, now: float) -> list[list[LaneRequest]]:
        groups: list[list[LaneRequest]] = []
        while self._waiting and self._in_flight < self._limit:
            groups.append(self._next(now))
            self._in_flight += 1
        return groups

    def _count(self, requests: int) -> None:
        if requests:
            self._counts[0] += 1
        if requests > 1:
            self._counts[1] += 1
            self._counts[2] += requests

    def _next(self, now: float) -> list[LaneRequest]:
        """Take the request whose turn it is and those that go with it."""
        key = min(self._waiting, key=lambda key: self._waiting[key][0].order)
        queue = self._waiting[key]
        first = queue[0]
        fixed, marginal = self._costs.fixed_and_marginal(first.attempt.decision.context.work)
        size = int(min(merge_size(len(queue), fixed, marginal), self._cap)) if self.merges else 1
        size = in_time(size, fixed, marginal, (_left_ms(request.attempt, now) for request in queue))
        group = [queue.popleft()]
        rows, held = first.rows, first.size
        while queue and len(group) < size:
            rows, held = rows + queue[0].rows, held + queue[0].size
            if rows > self._max_rows or held > MAX_MERGED_BYTES:
                break
            group.append(queue.popleft())
        if not queue:
            del self._waiting[key]
        for request in group:
            request.attempt.exchange.is_waiting = False
        return group


def _left_ms(attempt: Attempt, now: float) -> float:
    exchange = attempt.exchange
    return exchange.bound_ms - (now - exchange.taken_at) * 1e3 if exchange.bound_ms else _FOREVER
