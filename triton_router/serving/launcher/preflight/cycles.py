"""Check that no model calls itself through targets and steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_router.config.cycles import CYCLE_HINT, find_cycle
from triton_router.serving.launcher.preflight.finding import Finding, error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from triton_router.serving.launcher.models import ServedModel


def no_cycles(models: Mapping[str, ServedModel]) -> list[Finding]:
    """One request round a circle of routed models and ensembles holds all their threads for ever."""

    def needs(name: str) -> tuple[str, ...]:
        model = models.get(name)
        return (*model.targets, *model.steps) if model is not None else ()

    found: dict[frozenset[str], list[str]] = {}
    for name in models:
        path = find_cycle(name, needs)
        if path:
            circle = path[path.index(path[-1]) :]
            found.setdefault(frozenset(circle), circle)
    return [
        error(
            f"models call each other in a circle: {' -> '.join(circle)}",
            "one request would go round until every thread is taken, and never be answered",
            CYCLE_HINT,
        )
        for circle in found.values()
    ]
