"""The composition root of a server: options to a running process with everything it needs around it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from triton_router.serving.launcher import command, python_runtime
from triton_router.serving.launcher.backend_directory import backend_directory
from triton_router.serving.launcher.endpoints import Endpoints, endpoints_of
from triton_router.serving.launcher.find import find
from triton_router.serving.launcher.process import ServerProcess, wait_until_ready

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from triton_router.serving.launcher.options import ServeOptions


@dataclass(frozen=True, slots=True)
class Launched:
    """A started server.

    Attributes:
        process: The server; it may still be loading.
        endpoints: Where it listens once it is ready.
    """

    process: ServerProcess
    endpoints: Endpoints

    def wait_until_ready(self, timeout: float | None = None) -> bool:
        """Wait until the server and its models are ready; False when the server ended first.

        Raises:
            UnavailableError: Neither happened within ``timeout`` seconds.
        """
        return wait_until_ready(self.process, self.endpoints.ready, timeout)


@contextlib.contextmanager
def launch(options: ServeOptions, output: Callable[[bytes], object]) -> Generator[Launched]:
    """Start a server, and stop it and remove its backend directory at the end.

    Args:
        options: What to start.
        output: Receives the server's log line by line.

    Raises:
        NotFoundError: No server, or it lacks the Python backend.
        UnsupportedError: It cannot run this environment's Python.
    """
    installation = find(options.tritonserver)
    python = python_runtime.current()
    with backend_directory(installation, python.version) as backends:
        settings = command.PythonBackendSettings()
        argv = command.arguments(installation.executable, options, backends, options.load_models, settings)
        with ServerProcess(argv, command.environment(installation, python), output) as process:
            yield Launched(process, endpoints_of(options))
