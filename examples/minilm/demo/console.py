"""How the demo talks: numbered parts with their duration, commands as a user would type them, a line of progress."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

_LINE_EVERY_S = 5.0
"""Pause between progress lines where they cannot overwrite one another."""


class Console:
    """Results go to stdout, what leads to them to stderr."""

    def __init__(self) -> None:
        self.durations: list[tuple[str, float]] = []
        self._moving = sys.stderr.isatty()
        self._shown = 0
        self._last_line = 0.0

    @contextlib.contextmanager
    def part(self, title: str) -> Generator[None]:
        """Announce a part, and note how long it took if it ends well."""
        self.say(f"\n== {len(self.durations) + 1}. {title}")
        started = time.monotonic()
        yield
        self.durations.append((title, time.monotonic() - started))

    def say(self, text: str) -> None:
        """Print a line on stderr."""
        self._clear()
        print(text, file=sys.stderr, flush=True)

    def show(self, text: str = "") -> None:
        """Print a line of results on stdout."""
        self._clear()
        print(text, flush=True)

    def command(self, words: Sequence[str | Path]) -> None:
        """Print a command as it can be typed."""
        self.say(f"$ {typed(words)}")

    def progress(self, text: str) -> None:
        """Show how far it is: in place on a terminal, now and then elsewhere."""
        if self._moving:
            self._clear()
            sys.stderr.write(text)
            sys.stderr.flush()
            self._shown = len(text)
        elif time.monotonic() - self._last_line >= _LINE_EVERY_S:
            self._last_line = time.monotonic()
            print(text, file=sys.stderr, flush=True)

    def _clear(self) -> None:
        if self._shown:
            sys.stderr.write("\r" + " " * self._shown + "\r")
            self._shown = 0


def typed(words: Sequence[str | Path]) -> str:
    """Return a command line for a shell in the working directory."""
    return shlex.join(_short(word) for word in words)


def _short(word: str | Path) -> str:
    if isinstance(word, str):
        return word
    # The path through a virtual environment is kept: resolving it would name the Python it was made from.
    path = os.path.relpath(word)
    return str(word) if path.startswith("..") else path
