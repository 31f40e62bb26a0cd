"""The composition root of a server: options to a running process with everything it needs around it."""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from triton_router.serving.launcher import command
from triton_router.serving.launcher.backend_directory import backend_directory, plain_repositories
from triton_router.serving.launcher.process import ServerProcess, wait_until_ready

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from triton_router.serving.launcher.endpoints import Endpoints
    from triton_router.serving.launcher.plan import LaunchPlan


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
        return wait_until_ready(self.process, lambda: self.endpoints.ready(self.process.pid), timeout)


@contextlib.contextmanager
def launch(plan: LaunchPlan, output: Callable[[bytes], object]) -> Generator[Launched]:
    """Start a server, and stop it and remove its backend directory at the end.

    Args:
        plan: What to start; its findings are the caller's to act on.
        output: Receives the server's log line by line.

    Raises:
        NotFoundError: The server lacks the Python backend.
        UnsupportedError: It cannot run this environment's Python, or the temporary directory cannot be used.
    """
    with (
        backend_directory(plan.installation, plan.python.version) as backends,
        plain_repositories(plan.options.repositories, backends.parent) as repositories,
    ):
        options = dataclasses.replace(plan.options, repositories=repositories)
        argv = command.arguments(plan.installation.executable, options, backends, plan.load, plan.settings)
        environment = command.environment(plan.installation, plan.python, state=plan.options.state)
        with ServerProcess(argv, environment, output) as process:
            yield Launched(process, plan.endpoints)
