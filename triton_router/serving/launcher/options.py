"""What a user may choose about a server, in one typed object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

ControlMode = Literal["none", "explicit", "poll"]

DEFAULT_ADDRESS = "127.0.0.1"
"""Loopback, unlike Triton's 0.0.0.0: an open model repository API runs whatever code is uploaded to it."""


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How to start a server.

    Attributes:
        repositories: Model repositories, in the order given.
        control_mode: ``none`` loads everything once, ``poll`` follows changes on disk, ``explicit`` loads by name.
        load_models: Models to load at the start in explicit mode; a routed model brings its targets along.
        address: Interface that HTTP, gRPC and metrics listen on.
        http_port: TCP port.
        grpc_port: TCP port.
        metrics_port: TCP port.
        health_port: Where readiness is served; None for nowhere, 0 for any port.
        tritonserver: An executable or an installation directory to use instead of searching.
        state: Directory where what the routers learn is kept; None to keep nothing.
        api_key: What opens the APIs that change the server; None to leave them open to everybody.
        exit_timeout_s: How long the server waits for what is under way once it is told to end; None for Triton's 30 s.
        extra: The user's own tritonserver flags; they win over everything else here.
    """

    repositories: tuple[Path, ...]
    control_mode: ControlMode = "none"
    load_models: tuple[str, ...] = ()
    address: str = DEFAULT_ADDRESS
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    health_port: int | None = None
    tritonserver: Path | None = None
    state: Path | None = None
    api_key: str | None = None
    exit_timeout_s: int | None = None
    extra: tuple[str, ...] = ()
