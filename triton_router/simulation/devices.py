"""Devices of the simulated world: how long requests take that share one."""

from __future__ import annotations

from heapq import heappop, heappush, heapreplace
from typing import Protocol


class Device(Protocol):
    """Serves jobs. Times are in seconds; time never runs backwards between calls."""

    def submit(self, job: int, service_s: float, now: float) -> None:
        """Take a job that would need ``service_s`` alone."""
        ...

    def next_end(self) -> float:
        """Return when the next job ends if no other comes; infinity if there is none."""
        ...

    def end(self) -> int:
        """Take out the job that ends next, at the time of `next_end`, and return it."""
        ...

    def expected_end(self, service_s: float, now: float) -> float:
        """Return when a job would end if it came now and none after it."""
        ...


class QueueDevice:
    """First come, first served, ``slots`` at a time."""

    __slots__ = ("_ends", "_free_at")

    def __init__(self, slots: int) -> None:
        self._free_at = [0.0] * slots
        self._ends: list[tuple[float, int]] = []

    def submit(self, job: int, service_s: float, now: float) -> None:
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

    def expected_end(self, service_s: float, now: float) -> float:
        """See `Device`."""
        return max(now, self._free_at[0]) + service_s


class SharedDevice:
    """Everybody at once, each at ``slots / jobs`` of full speed where there are more jobs than slots.

    Kept in virtual time, which runs as fast as each job is served: a job ends at a fixed point of it.
    """

    __slots__ = ("_at", "_jobs", "_slots", "_virtual")

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._jobs: list[tuple[float, int]] = []
        self._virtual = 0.0
        self._at = 0.0

    def submit(self, job: int, service_s: float, now: float) -> None:
        """See `Device`."""
        self._advance(now)
        heappush(self._jobs, (self._virtual + service_s, job))

    def next_end(self) -> float:
        """See `Device`."""
        if not self._jobs:
            return float("inf")
        return self._at + (self._jobs[0][0] - self._virtual) * self._slowness(len(self._jobs))

    def end(self) -> int:
        """See `Device`."""
        self._at = self.next_end()
        self._virtual, job = heappop(self._jobs)
        return job

    def expected_end(self, service_s: float, now: float) -> float:
        """See `Device`."""
        self._advance(now)
        mine = self._virtual + service_s
        time, virtual = now, self._virtual
        sharing = len(self._jobs) + 1
        for end in sorted(end for end, _ in self._jobs if end < mine):
            time += (end - virtual) * self._slowness(sharing)
            virtual = end
            sharing -= 1
        return time + (mine - virtual) * self._slowness(sharing)

    def _advance(self, now: float) -> None:
        if self._jobs:
            self._virtual += (now - self._at) / self._slowness(len(self._jobs))
        self._at = now

    def _slowness(self, jobs: int) -> float:
        return max(1.0, jobs / self._slots)
