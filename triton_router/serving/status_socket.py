"""A live view of a routed model, over a Unix socket: for ``triton-router status``, not for the request path.

The socket's name is abstract (Linux), so nothing is left behind when a stub process is killed. It is
``triton-router-<server pid>-<stub pid>``; the reply says which model it speaks for. Only the server's own user
and root are answered.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from triton_router.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

_PREFIX = "triton-router-"
_MAX_REPLY_BYTES = 16 << 20
_PATIENCE_S = 2.0


class StatusSocket:
    """Answers every connection with the status as one JSON document. Linux only; elsewhere it does nothing.

    Args:
        status: Returns what to answer; called in the socket's own thread.
    """

    def __init__(self, status: Callable[[], dict[str, Any]]) -> None:
        self._status = status
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Listen."""
        if sys.platform != "linux":  # Triton itself runs on Linux only; this keeps the module importable elsewhere
            return
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(f"\0{_PREFIX}{os.getppid()}-{os.getpid()}")
        self._socket.listen(8)
        Thread(target=self._run, args=(self._socket,), name="status", daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        if self._socket is not None:
            self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()

    def _run(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # closed
                return
            with connection:
                connection.settimeout(_PATIENCE_S)
                try:
                    if _peer_user(connection) in {0, os.geteuid()}:
                        connection.sendall(json.dumps(self._status()).encode())
                except OSError:  # the asker left; the next one is served
                    continue


def read_statuses(server_pid: int | None = None) -> list[dict[str, Any]]:
    """Return the status of every routed model on this machine, or of those of one server, by name.

    Raises:
        UnavailableError: None answers.
    """
    statuses: list[dict[str, Any]] = []
    prefix = f"{_PREFIX}{server_pid}-" if server_pid else _PREFIX
    for name in _listening(prefix):
        try:
            statuses.append({"server_pid": int(name.split("-")[2]), **_ask(name)})
        except (OSError, ValueError):  # it went away between the listing and the question, or is another user's
            continue
    if not statuses:
        raise UnavailableError(
            "no routed model answers on this machine",
            hint="start one: triton-router serve --repository DIR; status works on the server's own machine "
            "and network namespace, for its user or root",
        )
    return sorted(statuses, key=lambda status: (status["model"], status["server_pid"]))


def _listening(prefix: str) -> list[str]:
    table = Path("/proc/net/unix")
    if not table.exists():
        return []
    names = {line.split()[-1].removeprefix("@") for line in table.read_text().splitlines()[1:]}
    return sorted(name for name in names if name.startswith(prefix))


def _ask(name: str) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_PATIENCE_S)
        connection.connect(f"\0{name}")
        chunks: list[bytes] = []
        size = 0
        while chunk := connection.recv(65536):
            chunks.append(chunk)
            size += len(chunk)
            if size > _MAX_REPLY_BYTES:
                raise ValueError("the reply is too large")
    return json.loads(b"".join(chunks))


def _peer_user(connection: socket.socket) -> int:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _pid, user, _group = struct.unpack("3i", credentials)
    return user
