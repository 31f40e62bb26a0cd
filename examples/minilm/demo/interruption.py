"""Ctrl-C and SIGTERM end the demo at any moment, but never between a process's start and the note of its number."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """Turns the signals that end a program into `KeyboardInterrupt`, later where one must not come now."""

    def __init__(self) -> None:
        self._held = 0
        self._pending = False

    @contextlib.contextmanager
    def watched(self) -> Generator[None]:
        """Take the signals over; call from the main thread."""
        previous = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def held(self) -> Generator[None]:
        """Hold an interruption back until the block is over."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        if self._pending and not self._held:
            self._pending = False
            raise KeyboardInterrupt

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self._held:
            self._pending = True
        else:
            raise KeyboardInterrupt
