"""Run a server as this process's whole purpose: pass signals on, say when it is ready, end as it ends."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING

from triton_router.errors import UnavailableError
from triton_router.serving.launcher.launch import launch

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import FrameType

    from triton_router.serving.launcher.launch import Launched
    from triton_router.serving.launcher.plan import LaunchPlan

FORWARDED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)

_PATIENCE_SECONDS = 30.0
"""After so long without readiness a user is told what is being waited for."""


def supervise(
    plan: LaunchPlan,
    log: Callable[[bytes], object],
    on_ready: Callable[[], None],
    on_wait: Callable[[list[str]], None],
) -> tuple[int, Launched]:
    """Run the server to its end; call from the main thread.

    Args:
        plan: What to start.
        log: Receives the server's output line by line.
        on_ready: Called once, from another thread, when the server and its models are ready.
        on_wait: Called every 30 s until then with the models that are still loading.

    Returns:
        The server's exit status (128 + n for signal n), and the ended server with its report.
    """
    with _relayed() as signals, launch(plan, log) as launched:
        signals.pass_on_to(launched.process.send_signal)
        watcher = threading.Thread(target=_watch, args=(launched, on_ready, on_wait), name="readiness", daemon=True)
        watcher.start()
        status = launched.process.wait()
        watcher.join(timeout=5)
        return status, launched


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
