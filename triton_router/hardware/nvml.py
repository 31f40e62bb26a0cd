"""Power of NVIDIA GPUs by NVML (``pip install 'triton-router[gpu]'``), all GPUs of the machine together."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class NvmlReader:
    """Opens the library with the first reading.

    Args:
        library: ``pynvml``; imported with the first reading by default.
    """

    name = "NVML"

    def __init__(self, library: Any = None) -> None:
        self.problem = ""
        self._library = library
        self._devices: list[Any] | None = None

    def watts(self) -> float | None:
        """Return the present draw; None where there is no library, no driver or no meter."""
        if self._devices is None and not self._open():
            return None
        library = self._library
        try:
            draws = [library.nvmlDeviceGetPowerUsage(device) for device in self._devices or ()]
        except library.NVMLError as error:
            self.problem = f"the GPU does not tell its power: {error}"
            return None
        self.problem = "" if draws else "NVML sees no GPU"
        return sum(draws) / 1e3 if draws else None

    def _open(self) -> bool:
        if self.problem:  # what is missing now is missing for as long as this process lives
            return False
        try:
            library = self._library = self._library or import_module("pynvml")
        except ImportError:
            self.problem = "the package nvidia-ml-py is not installed: pip install 'triton-router[gpu]'"
            return False
        try:
            library.nvmlInit()
            count = library.nvmlDeviceGetCount()
            self._devices = [library.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        except library.NVMLError as error:
            self.problem = f"NVML cannot be used: {error}"
            return False
        return True
