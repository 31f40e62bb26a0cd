"""The error tree, and the one table from each error to what Triton, HTTP and a shell make of it.

Every error says what is wrong and why in ``message``, and what to do in ``hint``. A caller that knows one
base class, `TritonRouterError`, knows them all.
"""

from __future__ import annotations

from typing import NamedTuple


class TritonRouterError(Exception):
    """Something the router, its builder or its tools refuse or cannot do.

    Args:
        message: What is wrong and why, as a sentence a user can act on.
        hint: What to do about it; printed on a line of its own by the command line.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} (hint: {self.hint})" if self.hint else self.message


class InvalidInputError(TritonRouterError):
    """What the caller gave is wrong; the same call fails again."""


class ConfigError(InvalidInputError):
    """A router.yaml, pipeline or config.pbtxt is not valid."""


class ModelFileError(InvalidInputError):
    """A model file is missing, corrupt, hostile, or not something this project serves."""


class RequestError(InvalidInputError):
    """A request carries something that cannot be forwarded without changing its meaning."""


class NotFoundError(TritonRouterError):
    """A model, version, file or program that is needed does not exist."""


class UnavailableError(TritonRouterError):
    """It exists and is valid, and cannot be had now; a later call may succeed."""


class OverloadedError(UnavailableError):
    """More is asked than can be answered in time; the client should come back later.

    Args:
        message: What there is too much of.
        retry_after_ms: When it is worth another try; stands first in the message, as ``[overloaded]
            [retry-after-ms=N]``, for programs to read.
        hint: See `TritonRouterError`.
    """

    def __init__(self, message: str, *, retry_after_ms: float = 0.0, hint: str = "") -> None:
        super().__init__(f"[overloaded] [retry-after-ms={max(1, round(retry_after_ms))}] {message}", hint=hint)


class DeadlineError(UnavailableError):
    """A request was not answered within its time. The message begins with ``[deadline-exceeded]``, for programs.

    UNAVAILABLE, because neither HTTP's 504 nor gRPC's DEADLINE_EXCEEDED can be reached from a Triton model.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"[deadline-exceeded] {message}", hint=hint)


class AllFullError(UnavailableError):
    """Every target that could be chosen has as many requests in flight as it may: the request has to wait.

    Never reaches a client: whoever asked the engine asks again when a decision has been finished.
    """


class UnsupportedError(TritonRouterError):
    """This machine, server version or model cannot do what is asked."""


class BuildError(TritonRouterError):
    """A variant could not be compiled or failed its check."""


class RequestCancelledError(TritonRouterError):
    """The client gave the request up before it was sent to a target."""


class ErrorMapping(NamedTuple):
    """What one error class becomes outside Python.

    Attributes:
        triton: Name of the ``TRITONSERVER_Error_Code`` (and of the attribute of ``TritonError``).
        http: Status that Triton's HTTP front end gives for that code.
        grpc: Status that Triton's gRPC front end gives for that code.
        exit_code: Exit status of the command line.
    """

    triton: str
    http: int
    grpc: str
    exit_code: int


ERROR_TABLE: dict[type[TritonRouterError], ErrorMapping] = {
    TritonRouterError: ErrorMapping("INTERNAL", 500, "INTERNAL", 1),
    InvalidInputError: ErrorMapping("INVALID_ARG", 400, "INVALID_ARGUMENT", 1),
    ConfigError: ErrorMapping("INVALID_ARG", 400, "INVALID_ARGUMENT", 1),
    ModelFileError: ErrorMapping("INVALID_ARG", 400, "INVALID_ARGUMENT", 1),
    RequestError: ErrorMapping("INVALID_ARG", 400, "INVALID_ARGUMENT", 1),
    NotFoundError: ErrorMapping("NOT_FOUND", 404, "NOT_FOUND", 1),
    UnavailableError: ErrorMapping("UNAVAILABLE", 503, "UNAVAILABLE", 1),
    OverloadedError: ErrorMapping("UNAVAILABLE", 503, "UNAVAILABLE", 1),
    DeadlineError: ErrorMapping("UNAVAILABLE", 503, "UNAVAILABLE", 1),
    AllFullError: ErrorMapping("UNAVAILABLE", 503, "UNAVAILABLE", 1),
    UnsupportedError: ErrorMapping("UNSUPPORTED", 501, "UNIMPLEMENTED", 1),
    BuildError: ErrorMapping("INTERNAL", 500, "INTERNAL", 1),
    RequestCancelledError: ErrorMapping("CANCELLED", 400, "CANCELLED", 1),
}
"""One row per class of the tree; a test asserts that it is complete."""


def mapping_of(error: TritonRouterError) -> ErrorMapping:
    """Return the row of the nearest class in the tree."""
    for kind in type(error).__mro__:
        if kind in ERROR_TABLE:
            return ERROR_TABLE[kind]
    return ERROR_TABLE[TritonRouterError]
