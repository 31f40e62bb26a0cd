"""A server's process, with a shell in the server's place."""

from __future__ import annotations

import os
import time
from pathlib import Path

from triton_router.serving.launcher.process import ServerProcess


def test_what_a_server_leaves_behind_ends_with_it() -> None:
    """A stub that outlives its server, as one does that was loading a model, is ended and not waited for."""
    lines: list[bytes] = []
    with ServerProcess(["/bin/sh", "-c", "sleep 600 & echo $!; exit 3"], dict(os.environ), lines.append) as server:
        assert server.wait(timeout=60) == 3
    left_behind = Path("/proc", lines[0].decode().strip(), "stat")
    deadline = time.monotonic() + 60
    while not _has_ended(left_behind):  # the kernel takes its time over a signal on a busy machine
        assert time.monotonic() < deadline, left_behind.read_text()
        time.sleep(0.01)


def _has_ended(stat: Path) -> bool:
    try:
        return stat.read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
