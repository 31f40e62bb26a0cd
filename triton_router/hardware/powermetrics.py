"""Power of Apple's processors by ``powermetrics``, which only root may run."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_COMMAND = ("/usr/bin/powermetrics", "-n", "1", "-i", "100", "--samplers", "cpu_power,gpu_power,ane_power")
_TIMEOUT_S = 5.0


class PowermetricsReader:
    """One part of the chip.

    Args:
        part: ``CPU``, ``GPU`` or ``ANE``.
        sample: Returns what the program prints.
    """

    name = "powermetrics"

    def __init__(self, part: str, sample: Callable[[], str] | None = None) -> None:
        self.problem = ""
        self._sample = sample or _sample
        self._line = re.compile(rf"^{part} Power:\s*(\d+(?:\.\d+)?)\s*mW\s*$", re.MULTILINE)

    def watts(self) -> float | None:
        """Return the mean draw over a tenth of a second; None where the program cannot be run or does not tell."""
        try:
            text = self._sample()
        except (OSError, subprocess.SubprocessError) as error:
            self.problem = f"powermetrics cannot be run (only root may): {error}"
            return None
        found = self._line.search(text)
        self.problem = "" if found else "powermetrics does not tell this part's power"
        return float(found[1]) / 1e3 if found else None


def _sample() -> str:
    done = subprocess.run(_COMMAND, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    return done.stdout
