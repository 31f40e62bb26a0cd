"""Routed models whose targets lead back to them: a request to one would never end, and block all of them.

Every turn of the circle holds a place in each router's pool and waits for the next, so one request is enough.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_router.config.router_config import ROUTER_FILE, load_router_config
from triton_router.errors import ConfigError, TritonRouterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path


def find_cycle(start: str, needs: Callable[[str], Iterable[str]]) -> list[str]:
    """Return a path from ``start`` that ends with a model it has passed before; empty if there is none.

    Args:
        start: Where the path begins; the circle itself may begin further on.
        needs: Returns the models that a model calls.
    """
    path = {start: None}  # keeps the order, and is quick to ask
    open_calls: list[Iterator[str]] = [iter(needs(start))]
    finished: set[str] = set()
    while open_calls:
        following = next(open_calls[-1], None)
        if following is None:
            finished.add(path.popitem()[0])
            open_calls.pop()
        elif following in path:
            return [*path, following]
        elif following not in finished:
            path[following] = None
            open_calls.append(iter(needs(following)))
    return []


def router_cycle(repository: Path, model: str) -> list[str]:
    """Return `find_cycle` through the ``router.yaml`` files of a repository; cheap enough for the router process.

    A model that is missing or not valid ends its path: whoever loads it says what is wrong with it.
    """

    def targets(name: str) -> list[str]:
        path = repository / name / ROUTER_FILE
        try:
            return [target.model for target in load_router_config(path).targets] if path.is_file() else []
        except (TritonRouterError, OSError):
            return []

    return find_cycle(model, targets)


def refuse_cycle(path: list[str]) -> None:
    """Do nothing for an empty path.

    Raises:
        ConfigError: The path leads back to a model on it.
    """
    if path:
        raise ConfigError(f"a request would never end: {' -> '.join(path)}", hint=CYCLE_HINT)


CYCLE_HINT = f"take one of these out of the targets in {ROUTER_FILE}, or out of the ensemble's steps"
