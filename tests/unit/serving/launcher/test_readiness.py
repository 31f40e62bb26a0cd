"""Readiness over HTTP, and what signals do to it; the server is played by the test."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from triton_router.errors import UnavailableError
from triton_router.serving.launcher.drain import Drain, DrainTimes
from triton_router.serving.launcher.readiness import ServingState
from triton_router.serving.launcher.sidecar import Sidecar
from triton_router.serving.launcher.supervise import Stopping

if TYPE_CHECKING:
    from collections.abc import Iterator


class Server:
    """A server, its models and its watchdog."""

    def __init__(self) -> None:
        self.runs, self.ready, self.repairs = True, True, False
        self.models: dict[str, dict[str, Any]] = {}
        self.signals: list[int] = []
        self.state = ServingState(os.getpid(), lambda: self.runs, self, self)

    def server_ready(self) -> bool | None:
        return self.ready

    def is_ready(self, model: str, version: int | None) -> bool | None:
        return model != "unloaded"

    def repairing(self) -> bool:
        return self.repairs

    def cases(self) -> dict[str, dict[str, Any]]:
        return self.models

    def close(self) -> None:
        """Look away."""

    def send_signal(self, number: int) -> None:
        self.signals.append(number)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def sidecar(server: Server) -> Iterator[Sidecar]:
    sidecar = Sidecar("127.0.0.1", 0, server.state)
    sidecar.start()
    yield sidecar
    sidecar.close()


def get(sidecar: Sidecar, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", sidecar.port, timeout=60)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_it_says_whether_new_requests_may_come_and_why_not(server: Server, sidecar: Sidecar) -> None:
    """Not before the server is ready, nor when it drains or has ended; a repair of one model is that model's matter."""
    server.ready = False
    assert get(sidecar, "/ready")[0] == 503
    server.ready = True
    assert get(sidecar, "/ready") == (200, '{"ok": true, "reasons": []}\n')
    server.ready, server.repairs = False, True
    assert get(sidecar, "/ready")[0] == 200
    server.state.draining.set()
    assert json.loads(get(sidecar, "/ready")[1])["reasons"] == ["draining: this server is about to stop"]
    assert get(sidecar, "/ready/m")[0] == 503
    assert get(sidecar, "/live")[0] == 200
    server.runs = False
    assert get(sidecar, "/live")[0] == 503


def test_it_speaks_for_each_model(server: Server, sidecar: Sidecar) -> None:
    """One that is unloaded or whose process is dead is not ready; its name may have any characters."""
    server.models = {"dead": {"processes_died": 1, "repairs": 0, "failed_repairs": 0, "problem": "it died"}}
    assert get(sidecar, "/ready/well")[0] == 200
    assert json.loads(get(sidecar, "/ready/dead")[1])["reasons"] == ["it died"]
    assert get(sidecar, "/ready/%75nloaded")[0] == 503
    assert 'triton_router_processes_died_total{model="dead"} 1' in get(sidecar, "/metrics")[1]
    assert get(sidecar, "/else")[0] == 404


def test_silent_clients_hold_a_few_connections_and_no_more(sidecar: Sidecar) -> None:
    """Beyond sixteen they are closed at once; when some have gone, others are served again."""
    with ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(("127.0.0.1", sidecar.port))) for _ in range(16)]
        deadline = time.monotonic() + 60
        while True:  # the server takes them one after the other
            try:
                get(sidecar, "/live")
            except (http.client.HTTPException, OSError):
                break
            assert time.monotonic() < deadline
        silent[0].close()
        while True:
            try:
                assert get(sidecar, "/live")[0] == 200
            except (http.client.HTTPException, OSError):
                assert time.monotonic() < deadline
            else:
                break


def test_a_port_that_is_taken_is_refused_with_what_to_do(sidecar: Sidecar, server: Server) -> None:
    """As another server's."""
    with pytest.raises(UnavailableError, match="readiness cannot be served") as refused:
        Sidecar("127.0.0.1", sidecar.port, server.state)
    assert "--health-port" in (refused.value.hint or "")


def stopping(server: Server, grace_s: float = 0.0) -> Stopping:
    return Stopping(server, server, Drain(server.state, DrainTimes(grace_s, 5.0), server.send_signal, lambda _: None))


def test_sigterm_drains_before_the_server_is_told(server: Server) -> None:
    """Not ready at once; the signal follows the grace."""
    stop = stopping(server, grace_s=1.0)
    stop.serving = True
    stop.handle(signal.SIGTERM)
    assert server.state.draining.is_set()
    assert server.signals == []
    for thread in threading.enumerate():
        if thread.name == "drain":
            thread.join(10)
    assert server.signals == [signal.SIGTERM]


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(server: Server, first: int) -> None:
    """Whatever the first one was, and however long the grace is."""
    stop = stopping(server, grace_s=1.0)
    stop.serving = True
    stop.handle(first)
    stop.handle(signal.SIGINT)
    assert server.signals[-1] == signal.SIGKILL


def test_nothing_is_drained_that_has_not_served(server: Server) -> None:
    """A server that is still loading is told at once; so is one that gets Ctrl-C, or another signal."""
    stopping(server).handle(signal.SIGTERM)
    served = stopping(server)
    served.serving = True
    served.handle(signal.SIGHUP)
    served.handle(signal.SIGINT)
    assert server.signals == [signal.SIGTERM, signal.SIGHUP, signal.SIGINT]
    assert not server.state.draining.is_set()
