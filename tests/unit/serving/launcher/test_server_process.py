"""A server's process, with a shell in the server's place."""

from __future__ import annotations

import os
from pathlib import Path

from triton_router.serving.launcher.process import ServerProcess


def test_what_a_server_leaves_behind_ends_with_it() -> None:
    """A stub that outlives its server, as one does that was loading a model, is ended and not waited for."""
    lines: list[bytes] = []
    with ServerProcess(["/bin/sh", "-c", "sleep 600 & echo $!; exit 3"], dict(os.environ), lines.append) as server:
        assert server.wait(timeout=30) == 3
    left_behind = Path("/proc", lines[0].decode().strip(), "stat")
    assert not left_behind.exists() or left_behind.read_text().rpartition(")")[2].split()[0] == "Z"
