"""Fixtures that every test may use: a real Triton, started on free ports and ended with the module that asked."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from triton_router.testing.triton_server import triton_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from triton_router.testing.triton_server import TritonServer


@pytest.fixture(scope="module")
def start_triton() -> Iterator[Callable[..., TritonServer]]:
    """Start servers that live until the module's tests are over; arguments as for `triton_server`."""
    with contextlib.ExitStack() as stack:

        def start(*args: object, **options: object) -> TritonServer:
            return stack.enter_context(triton_server(*args, **options))

        yield start
