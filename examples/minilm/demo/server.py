"""Triton for the demo, started by ``triton-router serve`` and stopped with the demo."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from examples.minilm.demo.processes import PROGRAM, running
from triton_router.errors import UnavailableError
from triton_router.serving.launcher.process import http_ready
from triton_router.testing.ports import ADDRESS, free_ports, is_free

if TYPE_CHECKING:
    from collections.abc import Generator

    from examples.minilm.demo.console import Console
    from examples.minilm.demo.interruption import Interruption

DEFAULT_PORTS = (8000, 8001, 8002)
_START_S = 180.0
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Server:
    """A ready server.

    Attributes:
        http_port: KServe v2 over HTTP.
        grpc_port: KServe v2 over gRPC.
        log: What the server printed.
        process: ``triton-router serve``.
    """

    http_port: int
    grpc_port: int
    log: Path
    process: subprocess.Popen[str]

    @property
    def http(self) -> str:
        """``host:port``."""
        return f"{ADDRESS}:{self.http_port}"

    @property
    def grpc(self) -> str:
        """``host:port``."""
        return f"{ADDRESS}:{self.grpc_port}"


@contextlib.contextmanager
def serving(
    repository: Path, ports: tuple[int, int, int], log: Path, console: Console, interruption: Interruption
) -> Generator[Server]:
    """Yield a ready server for the repository, and stop it afterwards.

    Raises:
        UnavailableError: It ended, or was not ready in time.
    """
    http, grpc, metrics = ports
    command = [PROGRAM, "serve", "--repository", repository]
    if ports != DEFAULT_PORTS:
        command += ["--http-port", str(http), "--grpc-port", str(grpc), "--metrics-port", str(metrics)]
    console.command(command)
    with log.open("w", encoding="utf-8") as output, running(command, interruption, output.fileno()) as process:
        server = Server(http, grpc, log, process)
        _wait(server, console)
        yield server


def choose_ports(*, keep: bool, console: Console) -> tuple[int, int, int]:
    """Return the default ports where someone is to call them and they are free; else any free ones."""
    if keep:
        taken = [port for port in DEFAULT_PORTS if not is_free(port)]
        if not taken:
            return DEFAULT_PORTS
        console.say(f"port {', '.join(map(str, taken))} is in use; taking others")
    http, grpc, metrics = free_ports(3)
    return http, grpc, metrics


def status(model: str, server: Server) -> dict[str, Any]:
    """Return what ``triton-router status`` says about a routed model of this server."""
    printed = subprocess.run([PROGRAM, "status", model, "--json"], capture_output=True, text=True, check=False)
    if printed.returncode:
        raise UnavailableError(f"triton-router status failed: {printed.stderr.strip()}", hint=f"read {server.log}")
    mine = [item for item in json.loads(printed.stdout) if _descends(item["server_pid"], server.process.pid)]
    if not mine:
        raise UnavailableError(f"the routed model {model!r} does not answer", hint=f"read {server.log}")
    return mine[0]


def _wait(server: Server, console: Console) -> None:
    started = time.monotonic()
    while not http_ready(ADDRESS, server.http_port):
        if server.process.poll() is not None:
            raise UnavailableError(f"the server ended:\n{_tail(server.log)}", hint=f"the whole log is {server.log}")
        waited = time.monotonic() - started
        if waited > _START_S:
            raise UnavailableError(f"the server is not ready after {_START_S:.0f} s", hint=f"read {server.log}")
        console.progress(f"loading models: {waited:.0f} s")
        time.sleep(_POLL_S)


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])


def _descends(pid: int, parent: int) -> bool:
    """Tell this server's routed model from one of the same name in another server on this machine."""
    try:
        stat = Path("/proc", str(pid), "stat").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return False
    # The program's name, in parentheses, may hold anything; the state and the parent's id follow it.
    return stat.rpartition(")")[2].split()[1] == str(parent)
