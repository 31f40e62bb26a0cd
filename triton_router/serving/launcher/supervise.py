"""Run a server as this process's whole purpose: watch over it, say when it is ready, drain it, end as it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from triton_router.errors import UnavailableError
from triton_router.serving.launcher.concealment import conceal
from triton_router.serving.launcher.drain import Drain, DrainTimes
from triton_router.serving.launcher.launch import launch
from triton_router.serving.launcher.model_loading import loading_of
from triton_router.serving.launcher.readiness import ServingState
from triton_router.serving.launcher.restricted import access
from triton_router.serving.launcher.runtime_record import RuntimeRecord, recorded
from triton_router.serving.launcher.server_flags import parse_flags
from triton_router.serving.launcher.sidecar import Sidecar
from triton_router.serving.launcher.watchdog import Watchdog
from triton_router.serving.server_health import ServerHealth

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import FrameType

    from triton_router.serving.launcher.launch import Launched
    from triton_router.serving.launcher.plan import LaunchPlan
    from triton_router.serving.launcher.process import ServerProcess
    from triton_router.serving.launcher.restricted import Access

FORWARDED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)

_LOOK_EVERY_S = 0.1
_PATIENCE_SECONDS = 30.0
"""After so long without readiness a user is told what is being waited for."""


@dataclass(frozen=True, slots=True)
class Care:
    """What is done for a server while it runs.

    Attributes:
        health_port: Where readiness is served over HTTP; None for nowhere, 0 for any port.
        drain: How long stopping may take.
    """

    health_port: int | None = None
    drain: DrainTimes = field(default_factory=DrainTimes)


@dataclass(frozen=True, slots=True)
class Reports:
    """Where what happens is told.

    Attributes:
        log: Receives the server's output line by line.
        ready: Called once, from another thread, when the server and its models are ready, with the sidecar's port.
        wait: Called every 30 s until then with the models that are still loading.
        say: Prints a line for the user, from any thread.
    """

    log: Callable[[bytes], object]
    ready: Callable[[int | None], None]
    wait: Callable[[list[str]], None]
    say: Callable[[str], None]


def supervise(plan: LaunchPlan, care: Care, reports: Reports) -> tuple[int, Launched]:
    """Run the server to its end; call from the main thread.

    The first SIGTERM drains it, SIGINT ends it without delay, and a second one of either kind kills it. Other signals
    are passed on.

    Args:
        plan: What to start.
        care: What to do for it.
        reports: Where to tell what happens.

    Returns:
        The server's exit status (128 + n for signal n), and the ended server with its report.

    Raises:
        UnavailableError: Readiness cannot be served where it was wanted.
    """
    with _relayed() as signals, launch(plan, reports.log) as launched, contextlib.ExitStack() as stack:
        process = launched.process
        flags = parse_flags(plan.options.extra)
        opened = access(plan.options.api_key, flags)
        place = plan.endpoints.http
        health = ServerHealth(process.pid, (place.address, place.port) if place is not None else None)
        watchdog = Watchdog(process.pid, health, loading_of(plan.endpoints, opened), reports.say)
        state = ServingState(process.pid, lambda: process.running, health, watchdog)
        port = _serve_readiness(stack, plan.options.address, care.health_port, state)
        stack.enter_context(_recorded(plan, process.pid, opened))
        stopping = Stopping(process, watchdog, Drain(state, care.drain, process.send_signal, reports.say))
        signals.pass_on_to(stopping.handle)

        def ready() -> None:
            if plan.options.api_key is not None:
                conceal(process.pid, plan.options.api_key)  # it has read its words, and everybody can
            stopping.serving = True
            reports.ready(port)

        watcher = threading.Thread(target=_watch, args=(launched, ready, reports.wait), name="readiness", daemon=True)
        watcher.start()
        watchdog.start()
        # Not one long wait: a signal that another thread was given is handled when this one wakes up.
        while process.running:
            time.sleep(_LOOK_EVERY_S)
        status = process.wait()
        watchdog.close()
        watcher.join(timeout=5)
        return status, launched


class Stopping:
    """Turns signals for the launcher into what they mean for the server.

    Args:
        process: The server.
        watchdog: Is told to look away: what ends now has been told to.
        drain: Ends the server gently.

    Attributes:
        serving: Whether the server has been ready, so that there may be something to drain.
    """

    def __init__(self, process: ServerProcess, watchdog: Watchdog, drain: Drain) -> None:
        self.serving = False
        self._process = process
        self._watchdog = watchdog
        self._drain = drain
        self._stopping = False

    def handle(self, number: int) -> None:
        """Take a signal."""
        if number not in {signal.SIGTERM, signal.SIGINT}:
            self._process.send_signal(number)
            return
        again, self._stopping = self._stopping, True
        self._watchdog.close()
        if again:
            self._process.send_signal(signal.SIGKILL)
        elif number == signal.SIGTERM and self.serving:
            self._drain.begin()
        else:
            self._process.send_signal(number)


def _serve_readiness(stack: contextlib.ExitStack, address: str, port: int | None, state: ServingState) -> int | None:
    if port is None:
        return None
    sidecar = Sidecar(address, port, state)
    sidecar.start()
    stack.callback(sidecar.close)
    return sidecar.port


def _recorded(plan: LaunchPlan, server_pid: int, opened: Access) -> contextlib.AbstractContextManager[object]:
    http, grpc = plan.endpoints.http, plan.endpoints.grpc
    return recorded(
        RuntimeRecord(
            pid=os.getpid(),
            kind="serve",
            server_pid=server_pid,
            http_port=http.port if http else None,
            grpc_port=grpc.port if grpc else None,
            http_headers=opened.http,
        )
    )


def _watch(launched: Launched, on_ready: Callable[[], None], on_wait: Callable[[list[str]], None]) -> None:
    while True:
        try:
            if launched.wait_until_ready(_PATIENCE_SECONDS):
                on_ready()
        except UnavailableError:
            on_wait(launched.process.report.loading)
        else:
            return


class _Relay:
    """Passes signals on; those that come before there is a server are kept for it."""

    def __init__(self) -> None:
        self._early: list[int] = []
        self._send: Callable[[int], None] = self._early.append

    def pass_on_to(self, send: Callable[[int], None]) -> None:
        """Send every signal there, the early ones first."""
        self._send = send
        while self._early:
            send(self._early.pop(0))

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Take a signal; a handler as `signal.signal` wants it."""
        self._send(number)


@contextlib.contextmanager
def _relayed() -> Generator[_Relay]:
    relay = _Relay()
    previous = {number: signal.signal(number, relay.handle) for number in FORWARDED}
    try:
        yield relay
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
