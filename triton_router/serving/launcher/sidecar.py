"""Readiness over HTTP, for load balancers and Kubernetes' probes: a small server beside the large one.

``GET /live``, ``/ready``, ``/ready/MODEL`` and ``/metrics``; 200 or 503, with reasons as JSON. Everything is bounded:
a few connections at a time, a few seconds each, no bodies.
"""

from __future__ import annotations

import json
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from triton_router.errors import UnavailableError

if TYPE_CHECKING:
    import socket

    from triton_router.serving.launcher.readiness import ServingState

_CONNECTIONS = 16
_PATIENCE_S = 5.0
_MODEL = "/ready/"


class Sidecar:
    """Answers until closed.

    Args:
        address: Interface.
        port: TCP port; 0 for any.
        state: What it answers from.

    Raises:
        UnavailableError: The port is taken, or the address is not this machine's.
    """

    def __init__(self, address: str, port: int, state: ServingState) -> None:
        handler = partial(_Handler, state)
        try:
            self._server = _BoundedServer((address, port), handler)
        except OSError as error:
            raise UnavailableError(
                f"readiness cannot be served at {address} port {port}: {error.strerror or error}",
                hint="choose another port with --health-port, or an address of this machine with --address",
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="sidecar", daemon=True)

    @property
    def port(self) -> int:
        """TCP port it listens on."""
        return self._server.server_port

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()


class _BoundedServer(ThreadingMixIn, HTTPServer):
    """One thread for each connection, a few at a time; further ones are closed at once."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, place: tuple[str, int], handler: Any) -> None:
        self._free = threading.BoundedSemaphore(_CONNECTIONS)
        super().__init__(place, handler)

    def process_request(self, request: socket.socket, client_address: Any) -> None:  # type: ignore[override] - stream sockets only
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: socket.socket, client_address: Any) -> None:  # type: ignore[override] - likewise
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that leave or speak something else."""


class _Handler(BaseHTTPRequestHandler):
    timeout = _PATIENCE_S
    server_version = "triton-router"
    sys_version = ""

    def __init__(self, state: ServingState, *args: Any) -> None:
        self._state = state
        super().__init__(*args)

    def do_GET(self) -> None:
        """Answer."""
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._send(200, metrics_text(self._state), "text/plain; version=0.0.4")
            return
        answer = self._answer(path)
        if answer is None:
            self._send(404, '{"error": "there is /live, /ready, /ready/MODEL and /metrics"}\n', "application/json")
        else:
            good, body = answer
            self._send(200 if good else 503, json.dumps({"ok": good, **body}) + "\n", "application/json")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Say nothing: probes come every few seconds."""

    def _answer(self, path: str) -> tuple[bool, dict[str, Any]] | None:
        if path == "/live":
            return self._state.live()
        if path in {"/ready", _MODEL}:
            return self._state.ready()
        if path.startswith(_MODEL):
            return self._state.model_ready(unquote(path.removeprefix(_MODEL)))
        return None

    def _send(self, status: int, text: str, kind: str) -> None:
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


_FAMILIES = (
    ("triton_router_processes_died_total", "processes_died", "Processes of a model that died"),
    ("triton_router_repairs_total", "repairs", "Times a model was loaded afresh because a process of it had died"),
    ("triton_router_failed_repairs_total", "failed_repairs", "Times that failed"),
)
"""Every metric of the sidecar that is about a model: its name, its key in the watchdog's cases, what it means."""


def metrics_text(state: ServingState) -> str:
    """Return the watchdog's counts in Prometheus's text format."""
    _, body = state.live()
    lines: list[str] = []
    for name, key, meaning in _FAMILIES:
        lines += [f"# HELP {name} {meaning}", f"# TYPE {name} counter"]
        lines += [f"{name}{{model={json.dumps(model)}}} {case[key]}" for model, case in body["models"].items()]
    lines += [
        "# HELP triton_router_draining 1 while the server is being drained",
        "# TYPE triton_router_draining gauge",
        f"triton_router_draining {int(state.draining.is_set())}",
    ]
    return "\n".join(lines) + "\n"
