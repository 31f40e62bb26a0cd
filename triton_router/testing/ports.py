"""Ports for servers that tests start.

A port is chosen here and bound by a server seconds later. Those that the kernel gives away would be taken in between
now and then, by the connection of some client, so others are chosen, and each process chooses elsewhere.
"""

from __future__ import annotations

import itertools
import os
import socket

from triton_router.errors import UnavailableError

ADDRESS = "127.0.0.1"

_LOWEST = 20_000
_COUNT = 12_000
"""The kernel gives clients ports from 32768 on (Linux) or from 49152 on (macOS)."""
_APART = 3989
"""Between the first ports of processes whose numbers follow each other."""
_steps = itertools.count()


def free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on now, and that were not returned to this process lately.

    Raises:
        UnavailableError: All that it may choose are taken.
    """
    ports: list[int] = []
    for step in itertools.islice(_steps, _COUNT):
        port = _LOWEST + (os.getpid() * _APART + step) % _COUNT
        if is_free(port):
            ports.append(port)
        if len(ports) == count:
            return ports
    raise UnavailableError(
        f"{count} free ports are wanted, and {len(ports)} from {_LOWEST} to {_LOWEST + _COUNT - 1} are",
        hint="end the servers that listen there",
    )


def is_free(port: int) -> bool:
    """Return whether nothing listens on a port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what clients of an ended server left is no matter
        try:
            probe.bind((ADDRESS, port))
        except OSError:
            return False
        return True
