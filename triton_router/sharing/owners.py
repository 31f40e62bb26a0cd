"""Which process owns a slot, and whether it is still there. A process id alone may be another's by now."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")
_START = 19
"""Field 22 of ``/proc/PID/stat``, counted from behind the name, which may hold anything."""


class Owner(NamedTuple):
    """A process.

    Attributes:
        pid: Its id; 0 for nobody.
        started: When it began, in the kernel's ticks since the machine did.
        namespace: In which its id counts.
        server: Id of the server that it belongs to.
    """

    pid: int
    started: int
    namespace: int
    server: int = 0


NOBODY = Owner(0, 0, 0)


def this_process(server: int) -> Owner:
    """Return the process that asks.

    Args:
        server: Id of the server that it belongs to.

    Raises:
        OSError: The system does not tell.
    """
    namespace = (_PROC / "self" / "ns" / "pid").stat().st_ino
    started = _started(os.getpid())
    if started is None:
        raise ProcessLookupError("/proc does not show this process")
    return Owner(os.getpid(), started, namespace, server)


def process(pid: int) -> Owner:
    """Return a process by its id; one that is not there is nobody."""
    started = _started(pid)
    return NOBODY if started is None else Owner(pid, started, 0)


def is_there(owner: Owner, me: Owner) -> bool | None:
    """Whether a process is still there; None where its id says nothing here: it is in another container."""
    if owner.namespace != me.namespace:
        return None
    return _started(owner.pid) == owner.started


def _started(pid: int) -> int | None:
    try:
        stat = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    fields = stat.rpartition(b")")[2].split()
    if fields[0] in {b"Z", b"X"}:  # dead, and only not yet buried
        return None
    return int(fields[_START])
