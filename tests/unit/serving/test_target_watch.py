"""The router's own look at its targets: what it finds reaches the engine, and is said once per change."""

from __future__ import annotations

import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from triton_router.config.router_config import TargetConfig
from triton_router.serving.launcher.listeners import listening_places
from triton_router.serving.server_health import ServerHealth
from triton_router.serving.stub_processes import Seen, Stub
from triton_router.serving.target_watch import TargetWatch

if TYPE_CHECKING:
    from collections.abc import Iterator


class Server:
    """A server whose models and processes a test sets."""

    def __init__(self) -> None:
        self.ready: dict[tuple[str, int | None], bool | None] = {}
        self.seen = Seen([], {})
        self.marks: dict[str, str] = {}
        self.valid_s = 0.0
        self.said: list[str] = []
        self.lost: list[tuple[str, float]] = []
        self.watch = TargetWatch(self, self, self, lambda *lost: self.lost.append(lost), self.said.append, lambda: 5.0)

    def is_ready(self, model: str, version: int | None) -> bool | None:
        return self.ready.get((model, version), True)

    def look(self) -> Seen:
        return self.seen

    def mark(self, target: str, problem: str, now: float, valid_s: float) -> None:
        assert now == 5.0
        self.marks[target], self.valid_s = problem, valid_s


def stub(pid: int, model: str) -> Stub:
    return Stub(pid, pid, Path("/r", model, "1", "model.py"), f"{model}_0_0")


@pytest.fixture
def server() -> Server:
    server = Server()
    targets = [TargetConfig(name="a", model="m"), TargetConfig(name="b", model="n", version=2)]
    server.watch.follow(targets, 0.5)
    return server


def test_an_unloaded_target_is_marked_until_it_is_there_again(server: Server) -> None:
    """Of the version that the target names; the log has one line for each change."""
    server.ready["n", 2] = False
    server.watch.look()
    server.watch.look()
    problem = "the server has no ready model 'n' version 2"
    assert server.marks == {"a": "", "b": problem}
    assert server.watch.status() == {"b": problem}
    server.ready["n", 2] = True
    server.watch.look()
    assert server.marks["b"] == ""
    assert server.said == [f"target 'b': {problem}", "target 'b' can serve again"]


def test_a_dead_process_is_marked_and_counted_once(server: Server) -> None:
    """Though the server holds the model for ready; a repair ends it, even where readiness cannot be asked."""
    server.seen = Seen([stub(1, "m"), stub(9, "other")], {})
    server.watch.look()
    server.seen = Seen([], {1: 137, 9: 137})
    server.watch.look()
    server.watch.look()
    assert server.marks == {"a": "process 1 of m_0_0 was ended by SIGKILL", "b": ""}
    assert server.watch.counts() == {"triton_router_target_processes_died_total": 1}
    assert server.lost == [("a", 5.0)]


def test_what_a_dead_process_had_is_lost_though_it_is_being_replaced(server: Server) -> None:
    """Loaded afresh before anybody looked, a target is well, but its old process answers nothing."""
    server.seen = Seen([stub(1, "m"), stub(2, "n")], {})
    server.watch.look()
    server.seen = Seen([stub(3, "m")], {1: 137, 2: 0})
    server.ready["n", 2] = False
    server.watch.look()
    server.watch.look()
    assert server.marks["a"] == ""
    assert server.lost == [("a", 5.0)]
    server.seen, server.ready["m", None] = Seen([stub(2, "m")], {1: 137}), None
    server.watch.look()
    assert server.marks["a"] == ""


def test_what_cannot_be_told_marks_nothing(server: Server) -> None:
    """A server without HTTP, or one that does not answer in time, keeps no target out."""
    server.ready = {("m", None): None, ("n", 2): None}
    server.watch.look()
    assert server.marks == {}


def test_findings_are_forgotten_when_the_watch_stops(server: Server) -> None:
    """Each is valid for some intervals only, and for long enough to be confirmed."""
    server.watch.look()
    assert 1.0 < server.valid_s <= 10.0


class Answers(BaseHTTPRequestHandler):
    """Triton's health endpoints, as far as they are asked."""

    def do_GET(self) -> None:
        ready = self.path in {"/v2/health/live", "/v2/models/a%2Fb/ready", "/v2/models/m/versions/3/ready"}
        self.send_response(403 if "secret" in self.path else 200 if ready else 400)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def http_port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_the_servers_http_port_is_found_by_its_process(http_port: int) -> None:
    """Among all ports that it listens on, one that does not answer so included."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert ("127.0.0.1", http_port) in listening_places(os.getpid())
        assert ("127.0.0.1", silent.getsockname()[1]) in listening_places(os.getpid())
        silent.close()
        health = ServerHealth(os.getpid())
        assert health.is_ready("a/b", None) is True
        assert health.is_ready("m", 3) is True
        assert health.is_ready("m", None) is False
        assert health.is_ready("secret", None) is None


def test_nobody_answering_is_no_answer() -> None:
    """A port that refuses tells nothing about a model."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert ServerHealth(os.getpid(), ("127.0.0.1", port)).is_ready("m", None) is None
