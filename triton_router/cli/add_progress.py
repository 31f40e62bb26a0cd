"""Progress of an addition on stderr: a moving bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING

from triton_router.cli import output
from triton_router.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Generator

    from triton_router.repository.variants import Progress

_BAR = "{desc:<18} {bar:24} {n_fmt}/{total_fmt} [{elapsed}]{postfix}"


@contextlib.contextmanager
def progress() -> Generator[Progress]:
    """Yield what suits stderr."""
    shown = _Bar() if sys.stderr.isatty() else _Lines()
    try:
        yield shown
    finally:
        shown.close()


class _Lines:
    """One line per step with its duration, for logs."""

    def __init__(self) -> None:
        self._title = ""
        self._start = 0.0

    def begin(self, steps: int) -> None:
        self.close()
        output.note(f"{steps} steps")

    def step(self, title: str) -> None:
        self.close()
        self._title, self._start = title, time.monotonic()

    def detail(self, text: str) -> None:
        """Say nothing: a log wants steps, not what flickers by."""

    def close(self) -> None:
        if self._title:
            output.note(f"{self._title}: {time.monotonic() - self._start:.1f} s")
        self._title = ""


class _Bar:
    """A tqdm bar over the steps, with what the child says beside it."""

    def __init__(self) -> None:
        try:
            from tqdm import tqdm
        except ImportError as error:
            raise UnsupportedError(
                "the Python package 'tqdm' is not installed", hint="pip install 'triton-router[onnx]'"
            ) from error
        self._bar = tqdm(total=1, file=sys.stderr, leave=False, bar_format=_BAR, dynamic_ncols=True)
        self._started = False

    def begin(self, steps: int) -> None:
        self._bar.reset(total=steps)
        self._started = False

    def step(self, title: str) -> None:
        if self._started:
            self._bar.update(1)
        self._started = True
        self._bar.set_description_str(title, refresh=False)
        self._bar.set_postfix_str("")

    def detail(self, text: str) -> None:
        self._bar.set_postfix_str(text)

    def close(self) -> None:
        self._bar.close()
