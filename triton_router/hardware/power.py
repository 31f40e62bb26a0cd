"""What a device draws, by whatever meter this machine has. A meter that is not there says so; it never guesses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from triton_router.routing.types import Backend

if TYPE_CHECKING:
    from collections.abc import Mapping


class PowerReader(Protocol):
    """One device's meter.

    Attributes:
        name: Of the meter, for people.
        problem: Why it gives nothing; "" while it does.
    """

    name: str
    problem: str

    def watts(self) -> float | None:
        """Return the draw, now or since the last reading; None where it cannot be told."""
        ...


def readers(backends: frozenset[Backend]) -> Mapping[Backend, PowerReader]:
    """Return the meter of each of these backends that may have one on this kind of machine.

    Nothing is opened before the first reading, so that a library is paid for only where it is used.
    """
    import sys

    from triton_router.hardware.nvml import NvmlReader
    from triton_router.hardware.powermetrics import PowermetricsReader
    from triton_router.hardware.rapl import RaplReader

    if sys.platform == "darwin":
        meters: dict[Backend, PowerReader] = {
            Backend.CPU: PowermetricsReader("CPU"),
            Backend.METAL_MPS: PowermetricsReader("GPU"),
            Backend.NEURAL_ENGINE: PowermetricsReader("ANE"),
        }
    else:
        meters = {Backend.CPU: RaplReader(), Backend.GPU: NvmlReader()}
    return {backend: meter for backend, meter in meters.items() if backend in backends}
