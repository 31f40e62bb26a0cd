"""Says in the server's log when a target's speed has changed: which, by how much, and what happens now."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from triton_router.routing.snapshot import TargetSnapshot


class DriftLog:
    """Watches one routed model; for one thread.

    Args:
        model: Its name.
        warn: Writes a line to the server's log.
    """

    def __init__(self, model: str, warn: Callable[[str], None]) -> None:
        self._model = model
        self._warn = warn
        self._seen: dict[str, int] = {}

    def observe(self, targets: Sequence[TargetSnapshot]) -> None:
        """Write a line for each target that has drifted since the last look. What was before the first is old news."""
        for target in targets:
            name = target.target.name
            seen = self._seen.get(name, target.drifts)
            self._seen[name] = target.drifts
            drift = target.last_drift
            if target.drifts > seen and drift is not None:
                self._warn(
                    f"routed model {self._model!r}: target {name!r} became {drift.direction}: {drift.factor:.2f} times "
                    f"its former latency at its answer {drift.observation}; what it took before fades quickly now, "
                    f"and requests go where they are answered sooner"
                )
