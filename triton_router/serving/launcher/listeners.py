"""Whose process listens on a port, read from Linux's /proc.

A server that cannot have its port ends, but only after it has loaded its models. Until then the process that has
the port may answer in its place, and would pass for it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

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


def listening_places(pid: int) -> list[tuple[str, int]]:
    """Return where a process listens over TCP: addresses to connect to on this machine, and ports, ascending.

    Raises:
        PermissionError: It is another user's process.
    """
    own = _sockets(pid)
    found = {(_reachable(row[_LOCAL]), _port(row[_LOCAL])) for row in _rows() if _socket_name(row) in own}
    return sorted(found, key=lambda place: place[1])


def listening_process(port: int) -> int | None:
    """Return the process that listens on a TCP port; None if there is none whose sockets this user may see."""
    listening = _listening(port)
    for name in os.listdir("/proc"):  # noqa: PTH208 - names of numbers, thousands of them
        if name.isdigit():
            with contextlib.suppress(PermissionError):
                if listening & _sockets(int(name)):
                    return int(name)
    return None


def _listening(port: int) -> set[str]:
    """Return the sockets that listen there, named as links in /proc/PID/fd name them."""
    return {_socket_name(row) for row in _rows() if _port(row[_LOCAL]) == port}


def _rows() -> Generator[list[str]]:
    """Yield the listening sockets' lines of the kernel's tables."""
    for table in _TABLES:
        if not table.is_file():
            continue
        for line in table.read_text(encoding="ascii").splitlines()[1:]:
            row = line.split()
            if row[_STATE] == _LISTENING:
                yield row


def _socket_name(row: list[str]) -> str:
    return f"socket:[{row[_INODE]}]"


def _port(local: str) -> int:
    return int(local.rpartition(":")[2], 16)


def _reachable(local: str) -> str:
    """Return the address of a table's line, such as ``0100007F:1F40``; loopback for one that means every interface."""
    words = bytes.fromhex(local.partition(":")[0])
    # Each group of four bytes stands in the machine's own order.
    packed = b"".join(words[i : i + 4][:: -1 if sys.byteorder == "little" else 1] for i in range(0, len(words), 4))
    address = IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    address = mapped or address
    return ("127.0.0.1" if address.version == 4 else "::1") if address.is_unspecified else str(address)


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
