"""Looks at a routed model again and again: when was a target out, when was it back, how much was under way?"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from triton_router.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_LOOK_EVERY_S = 0.04


class Look(NamedTuple):
    """What one look saw: targets left out, targets that take part (on trial is neither), requests in flight at all."""

    at: float
    out: frozenset[str]
    well: frozenset[str]
    in_flight: int


def in_flight(status: dict[str, Any]) -> int:
    """Return the requests in flight at all targets of a status."""
    return sum(target["in_flight"] for target in status["targets"])


class HealthWatch:
    """Looks in a thread of its own for as long as its ``with`` block runs.

    Args:
        read: Returns the status; raises `UnavailableError` while there is none.
    """

    def __init__(self, read: Callable[[], dict[str, Any]]) -> None:
        self.looks: list[Look] = []
        self._read = read
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join(10)

    def wait(self, wanted: Callable[[Look], bool], since: float, *, within_s: float, what: str) -> float:
        """Wait for a look after ``since`` (monotonic seconds) that is as wanted; return how long after.

        Raises:
            TimeoutError: There is none; ``what`` says of what.
        """
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            for look in self.looks:
                if look.at >= since and wanted(look):
                    return look.at - since
            time.sleep(_LOOK_EVERY_S)
        raise TimeoutError(f"{what} not seen within {within_s} s; last: {self.looks[-1:]}")

    def _run(self) -> None:
        while not self._ending.is_set():
            begun = time.monotonic()
            try:
                status = self._read()
            except UnavailableError:
                self._ending.wait(_LOOK_EVERY_S)
                continue
            stages = {target["target"]["name"]: target["stage"] for target in status["targets"]}
            out = frozenset(name for name, stage in stages.items() if stage == "out")
            well = frozenset(name for name, stage in stages.items() if stage in {"well", "returning"})
            self.looks.append(Look(begun, out, well, in_flight(status)))
            self._ending.wait(_LOOK_EVERY_S)
