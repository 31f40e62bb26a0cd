"""Which kind of machine this is, as far as latencies depend on it."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

_PROCESSOR = re.compile(r"^model name\s*:\s*(.+)$", re.MULTILINE)
_DEVICE = re.compile(r"^Model:\s*(.+)$", re.MULTILINE)
_MAX_NAME = 300


def machine_name(root: Path = Path("/")) -> str:
    """Return processor, usable cores and GPUs in one line; two machines of one kind have the same.

    Args:
        root: Where ``proc`` lies.
    """
    processor = _first(_PROCESSOR, root / "proc" / "cpuinfo") or platform.processor() or "processor"
    parts = [f"{platform.machine()} {processor}, {_usable_cores()} cores"]
    gpus = root / "proc" / "driver" / "nvidia" / "gpus"
    if gpus.is_dir():
        parts += sorted(_first(_DEVICE, path / "information") for path in gpus.iterdir())
    return ", ".join(part for part in parts if part)[:_MAX_NAME]


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _first(pattern: re.Pattern[str], path: Path) -> str:
    try:
        found = pattern.search(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""
    return found[1].strip() if found else ""
