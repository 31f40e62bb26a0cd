"""Whose process listens on a port, read from Linux's /proc.

A server that cannot have its port ends, but only after it has loaded its models. Until then the process that has
the port may answer in its place, and would pass for it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTENING = "0A"
_LOCAL, _STATE, _INODE = 1, 3, 9
"""Columns of these tables."""


def held_by_another(session: int, port: int) -> bool:
    """Return whether others listen on a TCP port, and no process of this session does.

    A session stands for a server because its program may be a script that starts the real one. Where the answer
    cannot be had (no /proc, sockets of another network namespace, a process that may not be looked into), it is
    False.

    Args:
        session: Process id of the session's leader.
        port: TCP port, on any address.
    """
    listening = _listening(port)
    if not listening:
        return False
    try:
        return not any(listening & _sockets(pid) for pid in _members(session))
    except PermissionError:
        return False


def _listening(port: int) -> set[str]:
    """Return the sockets that listen there, named as links in /proc/PID/fd name them."""
    found: set[str] = set()
    for table in _TABLES:
        if not table.is_file():
            continue
        for line in table.read_text(encoding="ascii").splitlines()[1:]:
            row = line.split()
            if row[_STATE] == _LISTENING and int(row[_LOCAL].rpartition(":")[2], 16) == port:
                found.add(f"socket:[{row[_INODE]}]")
    return found


def _members(session: int) -> list[int]:
    found: list[int] = []
    for name in os.listdir("/proc"):  # noqa: PTH208 - names of numbers, thousands of them
        if name.isdigit():
            with contextlib.suppress(ProcessLookupError):
                if os.getsid(int(name)) == session:
                    found.append(int(name))
    return found


def _sockets(pid: int) -> set[str]:
    found: set[str] = set()
    # A process may end, and a descriptor be closed, while it is looked at.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found.add(str(descriptor.readlink()))
    return found
