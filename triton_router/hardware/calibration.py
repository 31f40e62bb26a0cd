"""What this machine's processor really does: arithmetic and memory traffic, measured once in a tenth of a second.

It replaces the documented priors of ``routing.capabilities``, and is kept beside what the routers learn; on another
kind of machine it is measured again.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, NamedTuple, cast

from triton_router.files import make_private_directory, open_regular, replace_private
from triton_router.hardware.machine import machine_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CALIBRATION_FILE = "calibration.json"
BUDGET_S = 0.1
_SIDE = 384
"""Of the matrices: large enough to reach the peak, small enough for several rounds in the budget."""
_BYTES = 32 << 20
"""Beyond most caches."""
_MAX_BYTES = 4096
_LARGEST = 1e7
"""No processor does more gigaflops or gigabytes in a second."""


class Calibration(NamedTuple):
    """One machine's figures.

    Attributes:
        gflops: In 10^9 single-precision operations a second, all cores.
        bandwidth_gb_s: In 10^9 bytes a second.
    """

    machine: str
    gflops: float
    bandwidth_gb_s: float


def calibrate(budget_s: float = BUDGET_S) -> Calibration:
    """Measure this machine: the best of as many rounds as fit, half of the time for each figure."""
    return Calibration(machine_name(), _gflops(budget_s / 2), _bandwidth_gb_s(budget_s / 2))


def read_calibration(directory: Path, machine: str) -> Calibration | None:
    """Return what was measured on this kind of machine; None if nothing was, or the file is of no use."""
    try:
        with open_regular(directory / CALIBRATION_FILE, follow_links=False) as file:
            found: object = json.loads(file.read(_MAX_BYTES))
    except (OSError, ValueError, RecursionError):  # absent or broken: it is measured again
        return None
    values = cast("dict[str, object]", found) if isinstance(found, dict) else {}
    gflops, bandwidth = values.get("gflops"), values.get("bandwidth_gb_s")
    if values.get("machine") != machine or not (_is_plausible(gflops) and _is_plausible(bandwidth)):
        return None
    return Calibration(machine, float(cast("float", gflops)), float(cast("float", bandwidth)))


def keep_calibrated(directory: Path) -> Calibration:
    """Return this machine's figures, measured now unless they were before.

    Raises:
        OSError: They cannot be written.
    """
    kept = read_calibration(directory, machine_name())
    if kept is not None:
        return kept
    found = calibrate()
    make_private_directory(directory)
    replace_private(directory / CALIBRATION_FILE, (json.dumps(found._asdict()) + "\n").encode())
    return found


def _gflops(budget_s: float) -> float:
    import numpy as np

    matrix = np.ones((_SIDE, _SIDE), np.float32)
    product = np.empty_like(matrix)
    return 2.0 * _SIDE**3 / _fastest_s(lambda: np.matmul(matrix, matrix, out=product), budget_s) / 1e9


def _bandwidth_gb_s(budget_s: float) -> float:
    import numpy as np

    source = np.ones(_BYTES // 8)
    copy = np.empty_like(source)
    return 2.0 * _BYTES / _fastest_s(lambda: np.copyto(copy, source), budget_s) / 1e9


def _fastest_s(work: Callable[[], object], budget_s: float) -> float:
    """Return the shortest time of one round, in seconds; the first one, which warms up, does not count."""
    end = time.perf_counter() + budget_s
    work()
    fastest = float("inf")
    while True:
        began = time.perf_counter()
        work()
        now = time.perf_counter()
        fastest = min(fastest, now - began)
        if now >= end:
            return max(fastest, 1e-9)


def _is_plausible(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0.0 < value < _LARGEST
