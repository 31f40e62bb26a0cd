"""What this machine has to build and serve variants with."""

from __future__ import annotations

import importlib.util
import platform
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from triton_router.errors import InvalidInputError
from triton_router.repository.plan import HARDWARE, Toolbox

if TYPE_CHECKING:
    from collections.abc import Sequence

_PACKAGES = ("onnx", "onnxruntime", "onnxscript", "torch", "coremltools", "tensorrt")


def toolbox(hardware: Sequence[str] | None = None) -> Toolbox:
    """Look at this machine without importing anything heavy.

    Args:
        hardware: What the server has, if it is not this machine.

    Raises:
        InvalidInputError: An unknown kind of hardware.
    """
    for name in hardware or ():
        if name not in HARDWARE:
            raise InvalidInputError(f"{name!r} is not a kind of hardware", hint="use " + ", ".join(HARDWARE))
    packages = frozenset(name for name in _PACKAGES if importlib.util.find_spec(name) is not None)
    return Toolbox(packages, frozenset(hardware) if hardware is not None else frozenset(_found()))


def _has_cuda() -> bool:
    """Return whether an NVIDIA GPU with a driver is on this machine."""
    return Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists() or shutil.which("nvidia-smi") is not None


def _found() -> list[str]:
    found = ["cpu"]
    if _has_cuda():
        found.append("gpu")
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        found += ["ane", "mps"]
    return found
