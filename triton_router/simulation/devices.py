"""Devices of the simulated world: how long requests take that share one."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush, heapreplace
from typing import Protocol


class Device(Protocol):
    """Serves jobs. Times are in seconds; time never runs backwards between calls."""

    def submit(self, job: int, service_s: float, now: float, lane: int = 0, instances: int = 0) -> None:
        """Take a job that would need ``service_s`` alone; of its lane so many run at once, any number if 0."""
        ...

    def next_end(self) -> float:
        """Return when the next job ends if no other comes; infinity if there is none."""
        ...

    def end(self) -> int:
        """Take out the job that ends next, at the time of `next_end`, and return it."""
        ...

    def expected_end(self, service_s: float, now: float, lane: int = 0, instances: int = 0) -> float:
        """Return when a job would end if it came now and none after it."""
        ...


class QueueDevice:
    """First come, first served, ``slots`` at a time."""

    __slots__ = ("_ends", "_free_at")

    def __init__(self, slots: int) -> None:
        self._free_at = [0.0] * slots
        self._ends: list[tuple[float, int]] = []

    def submit(self, job: int, service_s: float, now: float, lane: int = 0, instances: int = 0) -> None:  # noqa: ARG002 - it has one queue
        """See `Device`. When it begins is known at once: nothing overtakes."""
        end = max(now, self._free_at[0]) + service_s
        heapreplace(self._free_at, end)
        heappush(self._ends, (end, job))

    def next_end(self) -> float:
        """See `Device`."""
        return self._ends[0][0] if self._ends else float("inf")

    def end(self) -> int:
        """See `Device`."""
        return heappop(self._ends)[1]

    def expected_end(self, service_s: float, now: float, lane: int = 0, instances: int = 0) -> float:  # noqa: ARG002 - likewise
        """See `Device`."""
        return max(now, self._free_at[0]) + service_s


@dataclass(slots=True)
class _Lane:
    running: int = 0
    waiting: deque[tuple[float, int]] = field(default_factory=deque[tuple[float, int]])


class SharedDevice:
    """Everybody at once, each at ``slots / jobs`` of full speed where there are more jobs than slots.

    A lane is a target whose instances are counted: of its jobs, so many run, and the others wait in order. Kept in
    virtual time, which runs as fast as each running job is served: a job ends at a fixed point of it.
    """

    __slots__ = ("_at", "_jobs", "_lanes", "_slots", "_virtual")

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._jobs: list[tuple[float, int, int]] = []
        self._lanes: dict[int, _Lane] = {}
        self._virtual = 0.0
        self._at = 0.0

    def submit(self, job: int, service_s: float, now: float, lane: int = 0, instances: int = 0) -> None:
        """See `Device`."""
        self._advance(now)
        queue = self._lanes.setdefault(lane, _Lane())
        if instances and queue.running >= instances:
            queue.waiting.append((service_s, job))
            return
        queue.running += 1
        heappush(self._jobs, (self._virtual + service_s, job, lane))

    def next_end(self) -> float:
        """See `Device`."""
        if not self._jobs:
            return float("inf")
        return self._at + (self._jobs[0][0] - self._virtual) * self._slowness(len(self._jobs))

    def end(self) -> int:
        """See `Device`."""
        self._at = self.next_end()
        self._virtual, job, lane = heappop(self._jobs)
        queue = self._lanes[lane]
        if queue.waiting:
            service_s, following = queue.waiting.popleft()
            heappush(self._jobs, (self._virtual + service_s, following, lane))
        else:
            queue.running -= 1
        return job

    def expected_end(self, service_s: float, now: float, lane: int = 0, instances: int = 0) -> float:
        """See `Device`."""
        self._advance(now)
        ahead = SharedDevice(self._slots)
        ahead._at, ahead._virtual, ahead._jobs = now, self._virtual, list(self._jobs)
        ahead._lanes = {name: _Lane(own.running, deque(own.waiting)) for name, own in self._lanes.items()}
        ahead.submit(-1, service_s, now, lane, instances)
        while True:
            end = ahead.next_end()
            if ahead.end() == -1:
                return end

    def _advance(self, now: float) -> None:
        if self._jobs:
            self._virtual += (now - self._at) / self._slowness(len(self._jobs))
        self._at = now

    def _slowness(self, jobs: int) -> float:
        return max(1.0, jobs / self._slots)
