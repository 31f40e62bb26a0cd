"""Asks a Triton server on this machine over HTTP whether its models are ready.

Not ``pb_utils.is_model_ready``: on server 2.51 that call waits while any model is being loaded, and with it every call
that the asking model makes to others (measured: all answers 9 s late during a load of 4 s). The HTTP endpoint does not.
Plain sockets, because Python's HTTP client would cost each routed model some megabytes.
"""

from __future__ import annotations

import re
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import quote

from triton_router.serving.launcher.listeners import listening_places

if TYPE_CHECKING:
    from collections.abc import Callable

_PATIENCE_S = 1.0
"""Longest wait for each step of an answer, whose first bytes are all that is read."""
_SEARCH_EVERY_S = 2.0
"""Pause between two searches for the port: reading the machine's tables of sockets is not for every look."""
_STATUS_LINE = re.compile(rb"HTTP/1\.\d (\d{3})")
_RESTRICTED = 403


class ServerHealth:
    """Readiness of one server's models.

    Args:
        server: Process id of tritonserver; its HTTP port is found among those it listens on.
        place: Address and port, where they are known.
        clock: Monotonic seconds.
    """

    def __init__(
        self, server: int, place: tuple[str, int] | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._server = server
        self._place = place
        self._clock = clock
        self._search_at = float("-inf")

    def is_ready(self, model: str, version: int | None) -> bool | None:
        """Return whether the server says that a model is ready, in any version where that is None.

        None if it cannot be told: HTTP is switched off, encrypted or restricted, or there is no answer within a second.
        """
        path = f"/v2/models/{quote(model, safe='')}"
        status = self._get(f"{path}/versions/{version}/ready" if version else f"{path}/ready")
        return {200: True, 400: False, 404: False}.get(status)

    def server_ready(self) -> bool | None:
        """Return whether the server says that it is ready itself; None if it cannot be told."""
        return {200: True, 400: False, 503: False}.get(self._get("/v2/health/ready"))

    def _get(self, path: str) -> int:
        """Return the status of an answer; 0 if there is none."""
        if self._place is None:
            self._place = self._search()
        return status_of(self._place, path) if self._place is not None else 0

    def _search(self) -> tuple[str, int] | None:
        now = self._clock()
        if now < self._search_at:
            return None
        self._search_at = now + _SEARCH_EVERY_S
        with suppress(PermissionError):  # another user's server: its sockets cannot be told
            for place in listening_places(self._server):
                # Ports of gRPC and of metrics do not answer so.
                if status_of(place, "/v2/health/live") in {200, _RESTRICTED}:
                    return place
        return None


def status_of(place: tuple[str, int], path: str) -> int:
    """Return the status that HTTP answers a GET with; 0 if nothing answers, or not so."""
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    try:
        with socket.create_connection(place, timeout=_PATIENCE_S) as connection:
            connection.sendall(request.encode("ascii"))
            found = _STATUS_LINE.match(connection.recv(1024))
    except OSError:
        return 0
    return int(found[1]) if found else 0
