"""One thread that does what is due: at an exact moment, or every now and then.

Only what is due within `HORIZON_S` is kept here, in a heap. Whatever is due later is found by the regular look at what
is under way: a request with a bound of minutes would otherwise be kept in memory until then, long after its answer.
"""

from __future__ import annotations

import traceback
from heapq import heappop, heappush
from threading import Condition, Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Job = Callable[[float], None]

LOOK_EVERY_S = 0.05
"""Between two regular looks while something is under way."""
IDLE_EVERY_S = 0.25
"""Likewise while nothing is: a server may have many routed models, and most of them rest."""
HORIZON_S = 2 * IDLE_EVERY_S
"""How far ahead moments are kept exactly: what lies farther will be seen by another look in time."""


class Timekeeper:
    """Does what is due. `at` may be called from any thread; jobs get the time and must be short.

    Args:
        look: Is called regularly, with the time; returns whether it has seen anything under way.
        clock: Monotonic seconds.
    """

    def __init__(self, look: Callable[[float], bool], *, clock: Callable[[], float]) -> None:
        self._look = look
        self._clock = clock
        self._due: list[tuple[float, int, Job]] = []
        self._entries = 0
        self._sleeps_until = 0.0
        self._changed = Condition()
        self._is_closing = False
        self._thread = Thread(target=self._run, name="timekeeper", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Stop; what was not due yet is not done."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def at(self, moment: float, job: Job) -> None:
        """Have a job done at a moment (monotonic seconds), which should lie within `HORIZON_S`."""
        with self._changed:
            self._entries += 1
            heappush(self._due, (moment, self._entries, job))
            if moment < self._sleeps_until:
                self._changed.notify()

    def _run(self) -> None:
        look_at = self._clock()
        while (jobs := self._next(look_at)) is not None:
            for job in jobs:
                self._do(job)
            if self._clock() >= look_at:
                look_at = self._clock() + (LOOK_EVERY_S if self._do(self._look) else IDLE_EVERY_S)

    def _next(self, look_at: float) -> list[Job] | None:
        """Sleep until something is due, and return it; None at the end."""
        with self._changed:
            now = self._clock()
            self._sleeps_until = min(look_at, self._due[0][0]) if self._due else look_at
            if not self._is_closing and self._sleeps_until > now:
                self._changed.wait(self._sleeps_until - now)
            self._sleeps_until = 0.0  # awake: nobody needs to be woken
            if self._is_closing:
                return None
            now = self._clock()
            jobs: list[Job] = []
            while self._due and self._due[0][0] <= now:
                jobs.append(heappop(self._due)[-1])
            return jobs

    def _do(self, job: Callable[[float], object]) -> object:
        try:
            return job(self._clock())
        except Exception:  # noqa: BLE001 - shown in the server's log; other requests depend on this thread
            traceback.print_exc()
            return True
