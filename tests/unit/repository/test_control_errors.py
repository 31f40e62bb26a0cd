"""Triton's refusals, as captured from tritonserver 2.51, and what a user is told."""

from __future__ import annotations

import pytest

from triton_router.errors import (
    InvalidInputError,
    ModelFileError,
    NotFoundError,
    TritonRouterError,
    UnavailableError,
    UnsupportedError,
)
from triton_router.repository.control_errors import explain, short_reason

TRACEBACK = (
    "load failed for model 'bad': version 1 is at UNAVAILABLE state: Internal: RuntimeError: deliberately broken\n\n"
    "At:\n  /models/bad/1/model.py(1): <module>\n  <frozen importlib._bootstrap>(241): _call_with_frames_removed\n;\n"
)


@pytest.mark.parametrize(
    ("status", "message", "kind", "says", "advises"),
    [
        (
            "503",
            "explicit model load / unload is not allowed if polling is enabled",
            UnsupportedError,
            "does not load or unload models on request",
            "serve --repository DIR --model-control-mode explicit",
        ),
        ("403", "This API is restricted, expecting header 'secret'", UnsupportedError, "'secret'", "--header"),
        ("500", "failed to load 'm', failed to poll from model repository", NotFoundError, "'m'", "models list"),
        (
            "400",
            "load failed for model 'm': at least one version must be available under the version policy of model 'm'\n",
            NotFoundError,
            "none of the versions",
            "m/1/",
        ),
        ("400", TRACEBACK, ModelFileError, "RuntimeError: deliberately broken", "keep serving"),
        ("500", "out of memory", UnavailableError, "out of memory", "log"),
        ("405", "Method Not Allowed", UnavailableError, "is not Triton's model repository API", "8000"),
        ("400", "no", InvalidInputError, "refused: no", "log"),
    ],
)
def test_each_refusal_has_its_error(
    status: str, message: str, kind: type[TritonRouterError], says: str, advises: str
) -> None:
    """The class tells a program, the message says what happened, the hint what to do."""
    error = explain(message, status, model="m", url="http://h:8000")
    assert type(error) is kind
    assert says in error.message
    assert advises in error.hint


def test_a_reason_keeps_one_line_of_its_traceback() -> None:
    """Of a Python traceback remain the exception and the line of the model's own file."""
    assert short_reason(TRACEBACK) == (
        "version 1: RuntimeError: deliberately broken (at /models/bad/1/model.py(1): <module>)"
    )


def test_a_long_reason_is_cut() -> None:
    """A reason never fills more than a few lines of a terminal."""
    assert len(short_reason("x" * 10_000)) == 600
