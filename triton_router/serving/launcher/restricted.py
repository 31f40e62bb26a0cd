"""Who may use the APIs of a server that change it: whoever holds the key.

Whoever reaches the repository API of Triton can load a model with code of their own; the shared-memory API gives access
to regions that Triton's own processes talk through; the trace and logging APIs write files. `serve` closes these
four to everybody without its key. Inference, health, metadata, configurations and statistics stay open.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from triton_router.errors import InvalidInputError
from triton_router.serving.launcher.server_flags import Flag

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KEY_HEADER = "x-triton-router-key"
KEY_VARIABLE = "TRITON_ROUTER_API_KEY"
"""The environment variable that brings a key of one's own, to `serve` and to its clients."""
ADMIN_APIS = ("model-repository", "shared-memory", "trace", "logging")

RESTRICTING = {"http": "http-restricted-api", "grpc": "grpc-restricted-protocol"}
"""The flag that closes APIs, by service."""
_KEY = re.compile(r"[A-Za-z0-9_-]{16,256}")
_GRPC_PREFIX = "triton-grpc-protocol-"
"""What the server wants before a key's name in gRPC's metadata."""


@dataclass(frozen=True, slots=True)
class Access:
    """What a client sends to use the repository API; empty where it is open."""

    http: dict[str, str]
    grpc: dict[str, str]


def chosen_key(variables: Mapping[str, str]) -> str:
    """Return the key that the environment brings, or a new one that nobody guesses.

    Raises:
        InvalidInputError: The environment's key is no header's value.
    """
    key = variables.get(KEY_VARIABLE, "")
    if not key:
        return secrets.token_urlsafe(32)
    if not _KEY.fullmatch(key):
        raise InvalidInputError(
            f"the key in {KEY_VARIABLE} is too short, or has characters that a header or a flag cannot carry",
            hint="use 16 to 256 letters, digits, - and _; such as the output of: openssl rand -hex 32",
        )
    return key


def restrictions(key: str, extra: Sequence[Flag]) -> list[Flag]:
    """Return the flags that close the administrative APIs, but for those that the user's own flags close."""
    found: list[Flag] = []
    for name in RESTRICTING.values():
        taken = {api for flag in extra if flag.name == name for api in _apis(flag)}
        apis = [api for api in ADMIN_APIS if api not in taken]
        if apis:
            found.append(Flag(name, f"{','.join(apis)}:{KEY_HEADER}={key}"))
    return found


def access(key: str | None, extra: Sequence[Flag]) -> Access:
    """Return what opens the repository API of a server that is started with this key and these flags."""
    http = _credential("http", key, extra)
    grpc = _credential("grpc", key, extra)
    return Access(dict([http]) if http else {}, {_GRPC_PREFIX + grpc[0].lower(): grpc[1]} if grpc else {})


def is_restricted(api: str, service: str, extra: Sequence[Flag]) -> bool:
    """Whether the user's own flags close an API of ``http`` or ``grpc``."""
    return any(flag.name == RESTRICTING[service] and api in _apis(flag) for flag in extra)


def _credential(service: str, key: str | None, extra: Sequence[Flag]) -> tuple[str, str] | None:
    for flag in extra:
        if flag.name == RESTRICTING[service] and "model-repository" in _apis(flag):
            name, _, value = (flag.value or "").partition(":")[2].partition("=")
            return name, value
    return (KEY_HEADER, key) if key else None


def _apis(flag: Flag) -> list[str]:
    """Return the APIs that ``apis:key=value`` is about."""
    return [api.strip() for api in (flag.value or "").partition(":")[0].split(",")]
