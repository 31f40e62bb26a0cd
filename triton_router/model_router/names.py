"""Names as callers write them."""

from __future__ import annotations

from triton_router.config.settings import suggestion
from triton_router.errors import InvalidInputError
from triton_router.routing.types import Backend, backend_named


def backend_of(name: Backend | str) -> Backend:
    """Return the backend of that name or alias.

    Raises:
        InvalidInputError: There is none.
    """
    try:
        return backend_named(name)
    except ValueError as error:
        known = [*map(str, Backend), "cuda", "ane", "mps"]
        raise InvalidInputError(
            f"unknown backend {name!r}{suggestion(name, known)}", hint=f"use one of {', '.join(known)}"
        ) from error
