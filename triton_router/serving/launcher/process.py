"""A running tritonserver: started, watched until ready, signalled, and its output passed on line by line."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Self

from triton_router.errors import UnavailableError
from triton_router.serving.launcher.report import FailureReport

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

_CHILD = Path(__file__).with_name("child.py")
_POLL_SECONDS = 0.05


class ServerProcess:
    """One tritonserver as a child process; it ends when this process does.

    Args:
        command: Program and arguments.
        environment: The whole environment of the server.
        output: Receives every line the server and its stubs print, newline included.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], output: Callable[[bytes], object]
    ) -> None:
        self.report = FailureReport()
        self._output = output
        self._swept = False
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(_CHILD), str(os.getpid()), *command],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # A terminal's Ctrl-C would otherwise reach the server twice: from the terminal and from the launcher.
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name="tritonserver-output", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process id of tritonserver itself."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the server has not ended yet."""
        return self._process.poll() is None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit status as a shell gives it: 128 + n for signal n.

        Raises:
            subprocess.TimeoutExpired: It still runs after ``timeout`` seconds.
        """
        code = self._process.wait(timeout)
        self._end_orphans()
        self._reader.join(timeout=5)
        return 128 - code if code < 0 else code

    def send_signal(self, number: int) -> None:
        """Send a signal to the server; nothing happens when it has ended."""
        self._process.send_signal(number)

    def stop(self, timeout: float = 40.0) -> int:
        """End the server: SIGTERM, and SIGKILL after ``timeout`` seconds. Returns its exit status."""
        self.send_signal(signal.SIGTERM)
        try:
            return self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.send_signal(signal.SIGKILL)
            return self.wait()

    def _end_orphans(self) -> None:
        """End stubs that outlive their server: one stopped while it loads a model leaves them for minutes."""
        if not self._swept:
            self._swept = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # the server led a group of its own

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.running:
            self.stop()

    def _read(self) -> None:
        stream = self._process.stdout
        if stream is None:
            return
        with stream:
            for line in stream:
                self.report.feed(line)
                self._output(line)


def wait_until_ready(process: ServerProcess, is_ready: Callable[[], bool], timeout: float | None) -> bool:
    """Wait until ``is_ready`` says so. Returns False when the server ended first.

    A server that will wait for a broken model for ever is ended here.

    Raises:
        UnavailableError: Neither happened within ``timeout`` seconds.
    """
    end = None if timeout is None else time.monotonic() + timeout
    while process.running:
        if is_ready():
            return True
        if process.report.stuck:
            process.stop(timeout=2)
            return False
        if end is not None and time.monotonic() > end:
            raise UnavailableError(
                f"tritonserver is not ready after {timeout:.0f} s{process.report.summary(prefix=': ')}, "
                f"still loading: {', '.join(process.report.loading) or 'nothing'}",
                hint="read the server's log; a model process that died while loading is waited for for ever on 2.51",
            )
        time.sleep(_POLL_SECONDS)
    return False


def http_ready(address: str, port: int) -> bool:
    """Return whether the server at that place says that it and its models are ready."""
    try:
        with urllib.request.urlopen(f"http://{_bracketed(address)}:{port}/v2/health/ready", timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def port_answers(address: str, port: int) -> bool:
    """Return whether something accepts connections there: what can be asked of a server without HTTP."""
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except OSError:
        return False


def reachable(address: str) -> str:
    """Return the address to connect to for a server that listens on ``address``."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104 - it is recognised, not bound


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
