"""A live view of a routed model, over a Unix socket: for ``triton-router status``, not for the request path.

The socket's name is abstract (Linux), so nothing is left behind when a stub process is killed. It is
``triton-router-<server pid>-<stub pid>``; the reply says which model it speaks for. Any process can take such a
name, so both sides look at the other's user: only the server's own user and root are answered, and only sockets
of the asker's own user and root are asked.
"""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from triton_router.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from triton_router.serving.status_reply import ModelStatus

_NAME = re.compile(r"@(triton-router-(\d{1,10})-\d{1,10})")
_MAX_REPLY_BYTES = 16 << 20

_ANSWER_S = 0.5
"""Longest that one asker holds the socket; the next ones wait for it."""

_PATIENCE_S = 5.0
"""Longest that one question takes in all: a few slow askers may stand before this one."""

_RETRY_S = 0.1
"""Pause after a connection could not be taken, as when the process has no file to spare."""


class StatusSocket:
    """Answers every connection with the status as one JSON document. Linux only; elsewhere it does nothing.

    Args:
        status: Returns what to answer; called in the socket's own thread.
    """

    def __init__(self, status: Callable[[], dict[str, Any]]) -> None:
        self._status = status
        self._closing = Event()
        self._listening: tuple[socket.socket, Thread] | None = None

    def start(self) -> None:
        """Listen. Where that is not possible the model serves all the same, and a line on stderr says so."""
        if sys.platform != "linux":  # Triton itself runs on Linux only; this keeps the module importable elsewhere
            return
        name = f"triton-router-{os.getppid()}-{os.getpid()}"
        try:
            listener = _listen(name)
        except OSError as error:
            _warn(f"no status of this model, as the socket @{name} cannot be opened: {error.strerror}")
            return
        thread = Thread(target=self._run, args=(listener,), name="status", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            listener.close()
            _warn(f"no status of this model: {error}")
            return
        self._listening = listener, thread

    def close(self) -> None:
        """Stop listening."""
        self._closing.set()
        if self._listening is not None:
            listener, thread = self._listening
            with suppress(OSError):  # the thread has closed it already
                listener.shutdown(socket.SHUT_RDWR)
            thread.join(2 * _ANSWER_S)

    def _run(self, listener: socket.socket) -> None:
        with listener:
            while not self._closing.is_set():
                try:
                    connection, _ = listener.accept()
                except OSError:  # closed, or out of files for now
                    self._closing.wait(_RETRY_S)
                    continue
                with connection:
                    self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        try:
            connection.settimeout(_ANSWER_S)  # of the whole sendall
            if _peer_user(connection) in {0, os.geteuid()}:
                connection.sendall(json.dumps(self._status()).encode())
        except OSError:  # the asker left or does not read; the next one is served
            return
        except Exception:  # noqa: BLE001 - a defect in one status must not end the thread that answers the others
            _warn(f"a status could not be built:\n{traceback.format_exc()}")


def read_statuses(
    server_pid: int | None = None,
    *,
    patience_s: float = _PATIENCE_S,
    tell: Callable[[str], object] = lambda _: None,
) -> list[dict[str, Any]]:
    """Return the status of every routed model on this machine, or of those of one server, by name.

    Args:
        server_pid: The server; every one if absent.
        patience_s: Longest wait for one model's whole answer, in seconds.
        tell: Is told of each that is not among them though it is there.

    Raises:
        UnavailableError: None answers.
    """
    statuses: list[dict[str, Any]] = []
    others: set[int] = set()
    failed = 0
    for name, pid in _listening(server_pid):
        try:
            statuses.append({"server_pid": pid, **_ask(name, time.monotonic() + patience_s).model_dump()})
        except _AnotherUserError as error:
            others.add(error.user)
        except ConnectionRefusedError:  # gone between the listing and the question
            failed += 1
        except (OSError, ValueError) as error:
            failed += 1
            why = f"does not answer within {patience_s:g} s" if isinstance(error, TimeoutError) else "gives no status"
            tell(f"a routed model of server {pid} (process {name.rpartition('-')[2]}) {why}, and is not shown")
    if not statuses:
        raise _none_answers(others, failed)
    return sorted(statuses, key=lambda status: (status["model"], status["server_pid"]))


class _AnotherUserError(Exception):
    """The socket belongs to a user whom the asker does not trust."""

    def __init__(self, user: int) -> None:
        super().__init__(user)
        self.user = user


def _none_answers(others: set[int], failed: int) -> UnavailableError:
    message = "no routed model answers on this machine"
    if failed:
        message += f"; {failed} gave no valid status in time"
    if others:
        users = ", ".join(str(user) for user in sorted(others))
        return UnavailableError(
            f"{message}; sockets of other users (id {users}) were not asked, since anybody can open one",
            hint="run this as that user if the server is theirs",
        )
    return UnavailableError(
        message,
        hint="start one: triton-router serve --repository DIR; status works on the server's own machine "
        "and network namespace, for its own user",
    )


def _listen(name: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(f"\0{name}")
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def _listening(server_pid: int | None) -> list[tuple[str, int]]:
    """Return the names of status sockets, each with its server's process id."""
    table = Path("/proc/net/unix")
    if not table.exists():
        return []
    # A name may hold any bytes, line breaks included.
    lines = table.read_bytes().decode("ascii", errors="replace").split("\n")
    found = (_NAME.fullmatch(line.rpartition(" ")[2]) for line in lines)
    names = {(match[1], int(match[2])) for match in found if match is not None}
    return sorted((name, pid) for name, pid in names if server_pid in {None, pid})


def _ask(name: str, deadline: float) -> ModelStatus:
    from triton_router.serving.status_reply import ModelStatus  # the asker's alone

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        connection.connect(f"\0{name}")
        user = _peer_user(connection)
        if user not in {0, os.geteuid()}:
            raise _AnotherUserError(user)
        return ModelStatus.model_validate_json(_read(connection, deadline))


def _read(connection: socket.socket, deadline: float) -> bytes:
    reply = bytearray()
    while True:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        connection.settimeout(remaining)
        chunk = connection.recv(1 << 20)
        if not chunk:
            return bytes(reply)
        reply += chunk
        if len(reply) > _MAX_REPLY_BYTES:
            raise ValueError("the reply is too large")


def _peer_user(connection: socket.socket) -> int:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _pid, user, _group = struct.unpack("3i", credentials)
    return user


def _warn(message: str) -> None:
    with suppress(OSError, ValueError):  # a log that is gone must not fail the model either
        sys.stderr.write(f"warning: triton-router: {message}\n")
        sys.stderr.flush()
