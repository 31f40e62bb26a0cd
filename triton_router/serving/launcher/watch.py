"""Watch over a server that something else has started: the watchdog, readiness and draining, beside it."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from triton_router.errors import InvalidInputError, NotFoundError
from triton_router.serving.launcher.drain import Drain
from triton_router.serving.launcher.listeners import listening_process
from triton_router.serving.launcher.model_loading import HttpLoading
from triton_router.serving.launcher.process import reachable
from triton_router.serving.launcher.readiness import ServingState
from triton_router.serving.launcher.runtime_record import RuntimeRecord, recorded
from triton_router.serving.launcher.sidecar import Sidecar
from triton_router.serving.launcher.watchdog import Watchdog
from triton_router.serving.server_health import ServerHealth
from triton_router.serving.stub_processes import is_tritonserver, runs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from triton_router.serving.launcher.supervise import Care

_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Watched:
    """A server on this machine.

    Attributes:
        pid: Its process id.
        address: Where it answers HTTP.
        port: TCP port.
        headers: What opens its repository API.
    """

    pid: int
    address: str
    port: int
    headers: Mapping[str, str]

    @classmethod
    def at(cls, url: str, pid: int | None, headers: Mapping[str, str]) -> Self:
        """Return the server with this HTTP address.

        Raises:
            InvalidInputError: It is no such address.
            NotFoundError: No process of this user's listens there, or there is no process of that id, or it is no
                tritonserver.
        """
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme != "http" or not parts.hostname:
            raise InvalidInputError(f"{url!r} is not the URL of an HTTP server", hint="such as http://localhost:8000")
        port = parts.port or 80
        found = listening_process(port) if pid is None else pid
        if found is None or not runs(found):
            raise NotFoundError(
                f"no process of this user listens on port {port}" if pid is None else f"there is no process {pid}",
                hint="run this on the server's machine, in its PID namespace and as its user; or give --pid",
            )
        if pid is not None and not is_tritonserver(pid):
            raise NotFoundError(
                f"process {pid} is no tritonserver",
                hint="leave --pid out to have it found by the port of --url, or see 'pgrep -a tritonserver'",
            )
        return cls(found, "127.0.0.1" if parts.hostname == "localhost" else reachable(parts.hostname), port, headers)


def watch(watched: Watched, care: Care, *, address: str, repairs: bool, say: Callable[[str], None]) -> int:
    """Watch until the server ends; SIGTERM and SIGINT end the watch alone, SIGUSR1 drains and ends the server.

    Args:
        watched: The server.
        care: What to do for it.
        address: Interface of the readiness server.
        repairs: Whether models whose processes have died are loaded afresh.
        say: Prints a line for the user.

    Returns:
        The exit status: 0 when told to stop or when it has drained the server, 1 when the server ended by itself.
    """
    stop = threading.Event()

    def told(*_: object) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, told)
    health = ServerHealth(watched.pid, (watched.address, watched.port))
    host = f"[{watched.address}]" if ":" in watched.address else watched.address
    loading = HttpLoading(f"http://{host}:{watched.port}", dict(watched.headers)) if repairs else None
    watchdog = Watchdog(watched.pid, health, loading, say)
    state = ServingState(watched.pid, lambda: runs(watched.pid), health, watchdog)
    drain = Drain(state, care.drain, lambda number: os.kill(watched.pid, number), say)

    def drained(*_: object) -> None:
        watchdog.close()
        drain.begin()

    signal.signal(signal.SIGUSR1, drained)
    with ExitStack() as stack:
        if care.health_port is not None:
            sidecar = Sidecar(address, care.health_port, state)
            sidecar.start()
            stack.callback(sidecar.close)
            say(f"readiness of the server {watched.pid} at http://{address}:{sidecar.port}/ready")
        record = RuntimeRecord(os.getpid(), "watch", watched.pid, watched.port, None, dict(watched.headers))
        stack.enter_context(recorded(record))
        watchdog.start()
        say(f"watching over the server {watched.pid}")
        while not stop.wait(_POLL_S):
            if not runs(watched.pid):
                say(f"the server {watched.pid} has ended")
                return 0 if drain.begun else 1
        watchdog.close()
    return 0
