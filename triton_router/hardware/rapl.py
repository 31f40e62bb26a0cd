"""Power of the processor by RAPL, through Linux's powercap: counters of energy, in microjoules, that wrap around.

Newer kernels let only root read them (CVE-2020-8694): then there is no figure.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

POWERCAP = Path("/sys/class/powercap")
_SHORTEST_S = 0.01
"""The counters move about once in a millisecond; a shorter time says nothing."""


class RaplReader:
    """All processor packages together: the mean since the last reading.

    Args:
        root: Where the kernel shows the counters.
        clock: Monotonic seconds.
    """

    name = "RAPL"

    def __init__(self, root: Path = POWERCAP, clock: Callable[[], float] = time.monotonic) -> None:
        self.problem = ""
        self._root = root
        self._clock = clock
        self._last: tuple[float, dict[Path, int]] | None = None

    def watts(self) -> float | None:
        """Return the mean draw since the last reading; None for the first one, and where nothing can be read."""
        try:
            energies = {package: _number(package / "energy_uj") for package in self._packages()}
        except (OSError, ValueError) as error:
            self.problem = _reason(error)
            self._last = None
            return None
        now = self._clock()
        last, self._last = self._last, (now, energies)
        if not energies:
            self.problem = f"no processor package in {self._root}"
            return None
        self.problem = ""
        if last is None or last[1].keys() != energies.keys() or now - last[0] < _SHORTEST_S:
            return None
        try:
            used = sum(self._used(package, last[1][package], energies[package]) for package in energies)
        except (OSError, ValueError) as error:
            self.problem = _reason(error)
            return None
        return used / 1e6 / (now - last[0])

    def _packages(self) -> list[Path]:
        # intel-rapl:0 is a package (AMD's too); intel-rapl:0:1 is a part of one and would count twice, and psys, the
        # whole platform, holds the packages.
        found = sorted(path for path in self._root.glob("intel-rapl:*") if path.name.count(":") == 1)
        return [path for path in found if (path / "name").read_text(encoding="ascii").startswith("package")]

    @staticmethod
    def _used(package: Path, before: int, after: int) -> int:
        return after - before if after >= before else after - before + _number(package / "max_energy_range_uj")


def _number(path: Path) -> int:
    return int(path.read_text(encoding="ascii"))


def _reason(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "only root may read the energy counters; allow it to the server's user, or run as root"
    return f"the energy counters cannot be read: {error}"
