"""``triton-router serve`` as a process of its own, as users run it: with its watchdog and its signals."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from triton_router.errors import UnavailableError
from triton_router.serving.status_socket import read_statuses
from triton_router.testing.checked_load import CheckedLoad, Habits
from triton_router.testing.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

_LONGEST_LOAD_S = 60.0


@dataclass(frozen=True, slots=True)
class ServedTriton:
    """A served repository.

    Attributes:
        http_url: ``host:port``.
        grpc_url: ``host:port``.
        metrics_url: A whole URL.
        process: ``triton-router serve``.
        server_pid: Process id of tritonserver.
        log_file: What both wrote to stderr.
    """

    http_url: str
    grpc_url: str
    metrics_url: str
    process: subprocess.Popen[str]
    server_pid: int
    log_file: Path

    def load(self, model: str, habits: Habits | None = None) -> CheckedLoad:
        """Return load on a routed model, which begins with its ``with`` block."""
        return CheckedLoad(self.http_url, self.grpc_url, model, habits or Habits())

    def status(self, model: str) -> dict[str, Any]:
        """Return what a routed model says of itself.

        Raises:
            UnavailableError: It does not answer.
        """
        found = [status for status in read_statuses(self.server_pid) if status["model"] == model]
        if not found:
            raise UnavailableError(f"{model} says nothing")
        return found[0]

    def load_model(self, name: str) -> None:
        """Load or reload a model over the repository API."""
        with self._control() as client:
            client.load_model(name, client_timeout=_LONGEST_LOAD_S)

    def unload_model(self, name: str) -> None:
        """Unload a model over the repository API; what is under way there is finished first."""
        with self._control() as client:
            client.unload_model(name, client_timeout=_LONGEST_LOAD_S)

    def is_model_ready(self, name: str) -> bool:
        """Return whether the server says that a model is ready."""
        with self._control() as client:
            return bool(client.is_model_ready(name))

    def _control(self) -> Any:
        # Over HTTP a load holds one of the server's few HTTP threads, and with it every client whose connection it has.
        return import_module("tritonclient.grpc").InferenceServerClient(self.grpc_url)


@contextlib.contextmanager
def served_triton(
    repository: Path,
    log_file: Path,
    *,
    state: Path | None = None,
    ports: Sequence[int] = (),
    more: Sequence[str] = (),
    timeout: float = 120.0,
) -> Generator[ServedTriton]:
    """Serve a repository, every model of it, over an open repository API; end the server afterwards.

    Args:
        repository: What to serve.
        log_file: Where the output goes.
        state: Where what is learned is kept; nowhere by default.
        ports: HTTP, gRPC and metrics; free ones by default.
        more: Further words for ``triton-router serve``.
        timeout: Seconds until it has to be ready.

    Raises:
        UnavailableError: It ended or was not ready in time.
    """
    http, grpc, metrics = ports or free_ports(3)
    words = [sys.executable, "-m", "triton_router.cli.main", "serve", "--repository", str(repository), "--json"]
    words += ["--model-control-mode", "explicit", "--load-model", "*"]
    words += [f"--http-port={http}", f"--grpc-port={grpc}", f"--metrics-port={metrics}"]
    # With a dead process among its models the server takes all of the time it is given to stop.
    words += ["--open-api", "--drain-grace", "0", "--drain-timeout", "4"]
    words += ["--state", str(state)] if state else ["--no-state"]
    with log_file.open("ab", buffering=0) as log:
        process = subprocess.Popen([*words, *more], stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        places = _announced(process, timeout)
        if places is None:
            raise UnavailableError(f"the server is not ready:\n{log_file.read_text(errors='replace')[-4000:]}")
        yield ServedTriton(
            http_url=urlsplit(places["http"]).netloc,
            grpc_url=places["grpc"],
            metrics_url=places["metrics"],
            process=process,
            server_pid=_tritonserver_below(process.pid),
            log_file=log_file,
        )
    finally:
        end(process)


def end(process: subprocess.Popen[str], timeout: float = 90.0) -> int:
    """End a serving process as an operator does, and then for sure. Returns its exit status."""
    process.terminate()
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
    finally:
        if process.stdout is not None:
            process.stdout.close()


def _announced(process: subprocess.Popen[str], timeout: float) -> dict[str, str] | None:
    """Return what the process says when it is ready; None if it ends first, or is ended here for being late."""
    late = threading.Timer(timeout, process.kill)
    late.start()
    text = ""
    for line in process.stdout or ():
        text += line
        if line.startswith("}"):
            break
    late.cancel()
    return json.loads(text) if text.endswith("}\n") else None


def _tritonserver_below(pid: int) -> int:
    """Return the tritonserver that a serving process has started."""
    end_at = time.monotonic() + 60
    while time.monotonic() < end_at:
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):  # a thread that ends meanwhile, as that does which said "ready"
                for child in children.read_text().split():
                    if Path(f"/proc/{child}/comm").read_text().startswith("tritonserver"):
                        return int(child)
        time.sleep(0.02)
    raise UnavailableError("triton-router serve has no tritonserver among its children")
