"""A real Triton for tests, the demo and the bench: started through the launcher, on ports of its own."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from triton_router.errors import UnavailableError
from triton_router.serving.launcher.launch import launch
from triton_router.serving.launcher.options import ControlMode, ServeOptions
from triton_router.serving.launcher.plan import plan
from triton_router.testing.ports import ADDRESS, free_ports

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from triton_router.serving.launcher.process import ServerProcess


@dataclass(frozen=True, slots=True)
class TritonServer:
    """A ready server.

    Attributes:
        http_port: KServe v2 over HTTP.
        grpc_port: KServe v2 over gRPC.
        metrics_port: Prometheus text.
        process: The server's process.
        log_file: Everything that the server and its stubs printed.
    """

    http_port: int
    grpc_port: int
    metrics_port: int
    process: ServerProcess
    log_file: Path

    @property
    def http_url(self) -> str:
        """``host:port``, as tritonclient.http takes it."""
        return f"{ADDRESS}:{self.http_port}"

    @property
    def grpc_url(self) -> str:
        """``host:port``, as tritonclient.grpc takes it."""
        return f"{ADDRESS}:{self.grpc_port}"

    @property
    def metrics_url(self) -> str:
        """A whole URL."""
        return f"http://{ADDRESS}:{self.metrics_port}/metrics"

    @property
    def pid(self) -> int:
        """Process id of tritonserver."""
        return self.process.pid

    @property
    def log(self) -> str:
        """What has been printed so far."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")


@contextlib.contextmanager
def triton_server(  # noqa: PLR0913 - a server has as many things that a test may choose
    *repositories: Path,
    control_mode: ControlMode = "none",
    load_models: Sequence[str] = (),
    extra: Sequence[str] = (),
    log_file: Path | None = None,
    ports: tuple[int, int, int] | None = None,
    state: Path | None = None,
    timeout: float = 120.0,
) -> Generator[TritonServer]:
    """Yield a ready server for these repositories and end it afterwards.

    Args:
        *repositories: Model repositories.
        control_mode: As for ``triton-router serve``.
        load_models: As for ``triton-router serve``.
        extra: Flags for tritonserver.
        log_file: Where its output goes; a temporary file by default.
        ports: HTTP, gRPC and metrics; free ones by default.
        state: Where what is learned is kept; nowhere by default.
        timeout: Seconds until the server has to be ready.

    Raises:
        UnavailableError: It ended or was not ready in time; the message has the reason and the log's end.
    """
    with contextlib.ExitStack() as stack:
        if log_file is None:
            log_file = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="triton-log-"))) / "triton.log"
        http_port, grpc_port, metrics_port = free_ports(3) if ports is None else ports
        options = ServeOptions(
            repositories=repositories,
            control_mode=control_mode,
            load_models=tuple(load_models),
            address=ADDRESS,
            http_port=http_port,
            grpc_port=grpc_port,
            metrics_port=metrics_port,
            state=state,
            extra=tuple(extra),
        )
        decided = plan(options)
        if decided.errors:
            raise UnavailableError("\n".join(str(finding) for finding in decided.errors))
        # Unbuffered, so that the file is whole whenever a test looks at it.
        log = stack.enter_context(log_file.open("wb", buffering=0))
        launched = stack.enter_context(launch(decided, log.write))
        if not launched.wait_until_ready(timeout):
            code = launched.process.wait()
            tail = "\n".join(log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-40:])
            raise UnavailableError(
                f"tritonserver ended with status {code}{launched.process.report.summary(prefix=': ')}\n{tail}"
            )
        yield TritonServer(http_port, grpc_port, metrics_port, launched.process, log_file)
