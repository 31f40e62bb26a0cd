"""A thread that does the same thing now and then, off the request path, until it is closed."""

from __future__ import annotations

import traceback
from math import inf
from threading import Event, Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Rounds:
    """The rounds of one thread. One that fails is told, and the next is made all the same.

    Args:
        name: Of the thread.
        make: Makes one round.
        every_s: Seconds before each round, the first included; infinite where each waits until it is woken.
        failed: Is told what ended a round, while it is being handled; by default the server's log shows it.
        ends_with_one: Whether one more is made, by the same thread, when it is closed.

    Attributes:
        every_s: As passed. May be changed at any time: a wait that has begun is not, unless it is woken.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], None],
        every_s: float = inf,
        *,
        failed: Callable[[Exception], None] = traceback.print_exception,
        ends_with_one: bool = False,
    ) -> None:
        self.every_s = every_s
        self._name = name
        self._make = make
        self._failed = failed
        self._ends_with_one = ends_with_one
        self._woken = Event()
        self._is_closing = False
        self._thread: Thread | None = None

    @property
    def is_closing(self) -> bool:
        """Whether no further round is begun: one that takes long may end early."""
        return self._is_closing

    def start(self) -> None:
        """Begin. Raises `RuntimeError` if no thread can be had; nothing has to be undone then."""
        thread = Thread(target=self._run, name=self._name, daemon=True)
        thread.start()
        self._thread = thread

    def wake(self) -> None:
        """Have the next round made at once, or as soon as the one under way has ended."""
        self._woken.set()

    def stop(self) -> None:
        """Make no further round. For any thread, the one that makes them included."""
        self._is_closing = True
        self._woken.set()

    def close(self) -> None:
        """Make no further round, and wait for the end of the one under way; harmless if there never was one."""
        self.stop()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while self._waits_for_next():
            self._make_one()
        if self._ends_with_one:
            self._make_one()

    def _waits_for_next(self) -> bool:
        """Wait until the next round is due; False if there is none."""
        if not self._is_closing:
            self._woken.wait(self.every_s if self.every_s < inf else None)
            self._woken.clear()
        return not self._is_closing

    def _make_one(self) -> None:
        try:
            self._make()
        except Exception as error:  # noqa: BLE001 - a defect in one round must not end the thread that makes the next
            self._failed(error)
