"""Checks of the flags a user passes to tritonserver."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from triton_router.serving.launcher.preflight.finding import Finding, error, warning
from triton_router.serving.launcher.restricted import RESTRICTING, is_restricted
from triton_router.serving.launcher.server_flags import last_value, parse_flags

if TYPE_CHECKING:
    from triton_router.serving.launcher.options import ServeOptions

SECRET_HEADERS = ("authorization", "cookie", "proxy-authorization", "x-api-key", "x-amz-security-token")


def header_patterns(options: ServeOptions) -> list[Finding]:
    """Patterns of forwarded headers must be regular expressions, and should not hand secrets to every model."""
    flags = parse_flags(options.extra)
    found: list[Finding] = []
    for name in ("http-header-forward-pattern", "grpc-header-forward-pattern"):
        pattern = last_value(flags, name)
        if pattern is None:
            continue
        try:
            # The server matches whole header names, ignoring case.
            expression = re.compile(pattern, re.IGNORECASE)
        except re.error as problem:
            found.append(
                error(
                    f"--{name}={pattern} is not a regular expression",
                    str(problem),
                    "such as --http-header-forward-pattern='x-(route|tenant).*'",
                )
            )
            continue
        secrets = [header for header in SECRET_HEADERS if expression.fullmatch(header)]
        if secrets:
            found.append(
                warning(
                    f"--{name}={pattern} forwards {', '.join(secrets)}",
                    "these become request parameters that every model, log and trace can read",
                    "name the headers that are needed, such as 'x-(route|tenant).*'",
                )
            )
    return found


def exposure(options: ServeOptions) -> list[Finding]:
    """An open model repository API lets anyone who reaches it run code."""
    flags = parse_flags(options.extra)
    mode = last_value(flags, "model-control-mode") or options.control_mode
    found: list[Finding] = []
    for service, restriction in RESTRICTING.items():
        address = last_value(flags, f"{service}-address") or options.address
        restricted = options.api_key is not None or is_restricted("model-repository", service, flags)
        if mode == "explicit" and not restricted and not _loopback(address):
            found.append(
                warning(
                    f"the model repository API listens on {address} over {service}",
                    "whoever reaches it can load a model with code of their own",
                    f"pass -- --{restriction}=model-repository:KEY=VALUE, or keep --address 127.0.0.1",
                )
            )
    return found


def _loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
