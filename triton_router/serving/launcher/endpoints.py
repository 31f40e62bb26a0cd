"""Where a server listens, with the user's own flags taken into account."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from triton_router.errors import InvalidInputError
from triton_router.serving.launcher.listeners import held_by_another
from triton_router.serving.launcher.process import http_ready, port_answers, reachable
from triton_router.serving.launcher.server_flags import last_value, parse_flags

if TYPE_CHECKING:
    from triton_router.serving.launcher.options import ServeOptions

_LAST_PORT = 65_535


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place to connect to: an address that a client on this machine can use, and a port."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """What a server offers; None where it was switched off."""

    http: Endpoint | None
    grpc: Endpoint | None
    metrics: Endpoint | None

    def ready(self, pid: int) -> bool:
        """Return whether this server is ready, by HTTP; without HTTP, whether its gRPC port answers.

        Another server's answer does not count: of two that were started on the same ports, one is about to fail.

        Args:
            pid: The server's process, which leads a session of its own.
        """
        return self._answers() and not any(
            held_by_another(pid, place.port) for place in (self.http, self.grpc, self.metrics) if place is not None
        )

    def _answers(self) -> bool:
        if self.http is not None:
            return http_ready(self.http.address, self.http.port)
        return self.grpc is not None and port_answers(self.grpc.address, self.grpc.port)


def endpoints_of(options: ServeOptions) -> Endpoints:
    """Return where the server will listen.

    Raises:
        InvalidInputError: One of the user's own flags gives a port that is none.
    """
    flags = parse_flags(options.extra)

    def endpoint(service: str, port: int, *, address: str = options.address) -> Endpoint | None:
        if (last_value(flags, f"allow-{service}") or "true").lower() in {"false", "0"}:
            return None
        place = last_value(flags, f"{service}-address") or address
        return Endpoint(reachable(place), _port(f"{service}-port", last_value(flags, f"{service}-port") or str(port)))

    http = endpoint("http", options.http_port)
    http_address = last_value(flags, "http-address") or options.address
    return Endpoints(
        http=http,
        grpc=endpoint("grpc", options.grpc_port),
        # Metrics are served where HTTP is, unless they have an address of their own.
        metrics=endpoint("metrics", options.metrics_port, address=http_address),
    )


def _port(flag: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(_LAST_PORT)) and int(text) <= _LAST_PORT):
        raise InvalidInputError(f"--{flag}={text} is not a port", hint=f"give a number from 0 to {_LAST_PORT}")
    return int(text)
