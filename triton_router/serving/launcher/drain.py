"""How a server is stopped without losing what clients have sent.

Triton's own SIGTERM closes its listeners at once, while load balancers still send; what is open goes on being served,
until its exit timeout cuts it. So first everybody who asks is told that it is not ready, then some time passes in which
nobody new is sent, then what is under way at routed models may end, and only then comes the signal.
"""

from __future__ import annotations

import signal
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from triton_router.serving.launcher.readiness import ServingState

DEFAULT_GRACE_S = 1.0
DEFAULT_TIMEOUT_S = 30.0
_POLL_S = 0.05
_QUIET_LOOKS = 3


@dataclass(frozen=True, slots=True)
class DrainTimes:
    """How long stopping may take.

    Attributes:
        grace_s: From saying that it is not ready until the listeners close.
        timeout_s: From then until the signal comes although requests are under way; also how long the server waits
            after it for connections that are still open.
    """

    grace_s: float = DEFAULT_GRACE_S
    timeout_s: float = DEFAULT_TIMEOUT_S


class Drain:
    """Stops one server; its methods are called by signal handlers and return at once.

    Args:
        state: Is told that the server drains, and knows what is under way.
        times: How long that may take.
        send_signal: Sends a signal to the server.
        say: Prints a line for the user.
    """

    def __init__(
        self, state: ServingState, times: DrainTimes, send_signal: Callable[[int], object], say: Callable[[str], None]
    ) -> None:
        self._state = state
        self._times = times
        self._send = send_signal
        self._say = say
        self._thread: threading.Thread | None = None

    @property
    def begun(self) -> bool:
        """Whether it has begun."""
        return self._thread is not None

    def begin(self) -> None:
        """Drain, then end the server."""
        if self._thread is None:
            self._state.draining.set()
            self._thread = threading.Thread(target=self._run, name="drain", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        grace_s, timeout_s = self._times.grace_s, self._times.timeout_s
        self._say(f"draining: not ready from now on; closing in {grace_s:g} s, and when nothing is under way")
        time.sleep(grace_s)
        deadline = time.monotonic() + timeout_s
        quiet = 0
        while quiet < _QUIET_LOOKS and time.monotonic() < deadline:
            under_way = self._state.in_flight()
            quiet = 0 if under_way else quiet + 1
            time.sleep(_POLL_S)
        if quiet < _QUIET_LOOKS:
            self._say(f"draining: requests are still under way after {timeout_s:g} s; closing all the same")
        self._send(signal.SIGTERM)
