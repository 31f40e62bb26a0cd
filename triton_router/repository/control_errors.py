"""What Triton's model repository API answers when it refuses, and what a user can do about it."""

from __future__ import annotations

import re

from triton_router.errors import (
    InvalidInputError,
    ModelFileError,
    NotFoundError,
    TritonRouterError,
    UnavailableError,
    UnsupportedError,
)

NOT_ON_REQUEST = "explicit model load / unload is not allowed"
"""What Triton says where it polls its repository, or loads once and then no more."""

_AT = re.compile(r"\s*At:\s*\n\s*(?P<where>\S[^\n]*)")
_LOAD_FAILED = re.compile(r"^(failed to load|load failed for) (model )?'[^']*':\s*")
_STATE = re.compile(r"version (?P<version>\d+) is at UNAVAILABLE state: ")
_MAX_REASON = 600


def explain(message: str, status: str, *, model: str, url: str) -> TritonRouterError:
    """Return the error that stands for an answer of the server.

    Args:
        message: The ``error`` of the answer.
        status: Its HTTP status.
        model: The model that was asked for, or empty.
        url: The server, for the message.
    """
    if NOT_ON_REQUEST in message:
        return UnsupportedError(
            f"the server at {url} does not load or unload models on request: {message}",
            hint="start it with: triton-router serve --repository DIR --model-control-mode explicit",
        )
    if status in {"401", "403"} or "is restricted" in message:
        return UnsupportedError(
            f"the server at {url} restricts its model repository API: {message}",
            hint="run this as the user who serves, on the same machine; or give the key with --api-key or "
            "TRITON_ROUTER_API_KEY, or a header that the server was started with: --header KEY:VALUE",
        )
    if "failed to poll from model repository" in message or "is not found" in message:
        return NotFoundError(
            f"the server at {url} found no usable model {model!r} in its repository",
            hint=f"check the name with 'triton-router models list', and that {model}/config.pbtxt is valid: "
            "the server's log says why it cannot be read",
        )
    if "at least one version must be available" in message:
        return NotFoundError(
            f"model {model!r} has none of the versions that its version policy serves",
            hint=f"put the model's files in {model}/1/ (or a higher number) of the server's repository",
        )
    if status in {"404", "405"} or message.startswith("an exception occurred in the client"):
        return UnavailableError(
            f"what answers at {url} is not Triton's model repository API (status {status}): {short_reason(message)}",
            hint="give Triton's HTTP port (8000 by default) with --url, not that of gRPC or of metrics",
        )
    kind, what, hint = InvalidInputError, f"the server at {url} refused", "look at the server's log"
    if _LOAD_FAILED.match(message):
        kind, what = ModelFileError, f"the server could not load model {model!r}"
        hint = "versions that were loaded before keep serving; the server's log has the whole story"
    elif status.startswith("5") or not message:
        kind, what = UnavailableError, f"the server at {url} answered {status or 'nothing'}"
    return kind(f"{what}: {short_reason(message)}", hint=hint)


def short_reason(message: str) -> str:
    """Return what matters of Triton's reason: no repeated names, no traceback but for its first line."""
    text = _LOAD_FAILED.sub("", message.strip())
    text = _STATE.sub(r"version \g<version>: ", text)
    at = _AT.search(text)
    if at:
        text = f"{text[: at.start()]} (at {at['where'].strip()})"
    text = " ".join(text.replace("Internal: ", "").split()).rstrip(" ;")
    return text if len(text) <= _MAX_REASON else text[: _MAX_REASON - 4].rstrip() + " ..."
