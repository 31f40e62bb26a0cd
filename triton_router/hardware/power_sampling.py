"""Reads the meters now and then, and hands each device's draw to the one target that was at work on it.

Of several targets at work at once no meter tells who drew what: then nothing is recorded, and the target's figure
stays what it was, an estimate or a mean of earlier readings.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Protocol

from triton_router.rounds import Rounds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from triton_router.hardware.power import PowerReader
    from triton_router.routing.types import Backend

INTERVAL_S = 0.25
_HOPELESS = 8
"""Readings without a figure after which a meter is no longer asked."""


class Busy(Protocol):
    """Who is at work; the routing engine."""

    def sole_busy(self, backend: Backend) -> str:
        """Return the only target of a backend with requests in flight; "" if there is none, or several."""
        ...

    def record_power(self, target: str, watts: float) -> None:
        """Learn what a target draws."""
        ...


class PowerSampling:
    """Samples until closed.

    Args:
        meters: By the backend whose device they measure.
        engine: Says who is at work, and learns.
        warn: Writes a line to the server's log.
    """

    def __init__(self, meters: Mapping[Backend, PowerReader], engine: Busy, warn: Callable[[str], None]) -> None:
        self._meters = dict(meters)
        self._engine = engine
        self._warn = warn
        self._misses = dict.fromkeys(meters, 0)
        self._last: dict[Backend, str] = {}
        self._rounds = Rounds("power", self.sample, INTERVAL_S)
        self._is_running = False

    def start(self) -> None:
        """Begin, if there is anything to read."""
        if not self._meters:
            return
        try:
            self._rounds.start()
        except RuntimeError as error:
            self._warn(f"power is not measured: {error}")
        else:
            self._is_running = True

    def add(self, meters: Mapping[Backend, PowerReader]) -> None:
        """Read further meters from now on; those of backends that are measured already are not needed."""
        new = {backend: meter for backend, meter in meters.items() if backend not in self._meters}
        if not new:
            return
        self._misses = {**self._misses, **dict.fromkeys(new, 0)}
        self._meters = {**self._meters, **new}  # the thread goes through the one before, or through this one
        if self._is_running:
            self._rounds.wake()
        else:
            self.start()

    def close(self) -> None:
        """Stop."""
        self._rounds.close()

    def sample(self) -> None:
        """Read every meter once: its figure counts if one and the same target was at work before and after."""
        for backend, meter in self._meters.items():
            if self._misses[backend] >= _HOPELESS:
                continue
            before = self._last.get(backend, "")
            watts = meter.watts()
            busy = self._last[backend] = self._engine.sole_busy(backend)
            self._misses[backend] = 0 if watts is not None else self._misses[backend] + 1
            if watts is not None and busy and busy == before:
                self._engine.record_power(busy, watts)
        is_hopeless = all(misses >= _HOPELESS for misses in self._misses.values())
        self._rounds.every_s = inf if is_hopeless else INTERVAL_S  # until another meter comes

    def status(self) -> dict[str, str]:
        """Return for each backend what its meter is, or why there is none."""
        return {
            backend.value: f"{meter.name}: {meter.problem}" if meter.problem else meter.name
            for backend, meter in self._meters.items()
        }
