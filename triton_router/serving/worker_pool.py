"""Daemon threads on one queue, grown only when a job finds none of them idle.

Leaner than `concurrent.futures.ThreadPoolExecutor`, whose future and condition per job cost 60 us of the 500 a
routed request takes; nothing here waits for a job's result.
"""

from __future__ import annotations

import time
import traceback
from queue import SimpleQueue
from threading import Lock, Thread, current_thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_LOOK_EVERY_S = 0.001
"""While closing."""


class WorkerPool:
    """Runs jobs concurrently, at most ``limit`` at once; more wait in order.

    Jobs may submit jobs. An exception that escapes a job is printed and costs nobody else anything.
    """

    def __init__(self, limit: int, *, name: str) -> None:
        self._limit = limit
        self._name = name
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[Thread] = []
        self._lock = Lock()
        # Workers less jobs not yet finished: workers that are idle, or if negative, jobs that wait for one.
        self._spare = 0
        # Workers that have been told to end and have not yet.
        self._ending = 0

    def resize(self, limit: int) -> None:
        """Run at most ``limit`` jobs at once from now on; what was submitted already is run by those there are."""
        with self._lock:
            self._limit = limit
            surplus = max(0, len(self._threads) - self._ending - limit)
            self._ending += surplus
            self._spare -= surplus
        for _ in range(surplus):
            self._jobs.put(None)

    def is_full(self) -> bool:
        """Whether every worker there may be has something to do; true for a moment only."""
        return self._spare <= 0 and len(self._threads) - self._ending >= self._limit

    def submit(self, job: Callable[[], None]) -> None:
        """Have ``job`` run by an idle worker, by a new one, or, at the limit, by the next to become idle.

        Raises:
            RuntimeError: No thread can be started, and there is none yet: the job is not taken.
        """
        with self._lock:
            self._see_to_a_worker()
            self._spare -= 1
        self._jobs.put(job)

    def offer(self, job: Callable[[], None]) -> bool:
        """Have ``job`` run at once by an idle worker or a new one; False, and not taken, if there is none."""
        with self._lock:
            self._see_to_a_worker()
            if self._spare <= 0:
                return False
            self._spare -= 1
        self._jobs.put(job)
        return True

    def _see_to_a_worker(self) -> None:
        """Start a worker if none is idle, unless there may be no more of them."""
        if self._spare > 0 or len(self._threads) - self._ending >= self._limit:
            return
        thread = Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the process may have no more threads; those there are will do
            if not self._threads:
                raise
            return
        self._threads.append(thread)
        self._spare += 1

    def close(self) -> None:
        """Let the jobs submitted so far finish, and those that they submit, then end the workers."""
        while self._spare + self._ending < len(self._threads):
            time.sleep(_LOOK_EVERY_S)
        threads = self._threads.copy()
        for _ in threads:
            self._jobs.put(None)
        for thread in threads:
            thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception:  # noqa: BLE001 - reported in the server's log; the worker goes on with the next
                traceback.print_exc()
            finally:
                with self._lock:
                    self._spare += 1
        with self._lock:
            if self._ending:
                self._ending -= 1
                self._threads.remove(current_thread())
