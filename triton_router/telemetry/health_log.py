"""Says in the server's log when a target goes out and when it is back: which, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from triton_router.routing.snapshot import TargetSnapshot

_AT_ONCE = 6
"""Lines about one target that may come in close succession..."""
_REFILL = 0.05
"""... and for each look, what is added to the lines at hand: a target that keeps failing is said three times a minute
where states are looked at once a second; what was not said is counted in the next line."""


class HealthLog:
    """Watches one routed model; for one thread.

    Args:
        model: Its name.
        warn: Writes a line to the server's log.
    """

    def __init__(self, model: str, warn: Callable[[str], None]) -> None:
        self._model = model
        self._warn = warn
        self._seen: dict[str, tuple[int, int]] = {}
        self._lines: dict[str, float] = {}
        self._unsaid: dict[str, int] = {}

    def observe(self, targets: Sequence[TargetSnapshot]) -> None:
        """Write a line for each target that went out or came back since the last look."""
        for target in targets:
            name = target.target.name
            counted = (sum(target.ejections.values()), target.returns)
            before = self._seen.get(name, (0, 0))
            self._seen[name] = counted
            self._lines[name] = min(_AT_ONCE, self._lines.get(name, _AT_ONCE) + _REFILL)
            if counted != before:
                self._say(target, counted[0] - before[0], counted[1] - before[1])

    def _say(self, target: TargetSnapshot, went: int, came: int) -> None:
        name = target.target.name
        if self._lines[name] < 1.0:
            self._unsaid[name] = self._unsaid.get(name, 0) + went + came
            return
        self._lines[name] -= 1.0
        unsaid = self._unsaid.pop(name, 0)
        also = f"; {unsaid} changes before that were not said" if unsaid else ""
        self._warn(f"routed model {self._model!r}: target {name!r} {_news(target, went, came)}{also}")


def _news(target: TargetSnapshot, went: int, came: int) -> str:
    """Return what happened, in words. Whoever is out has gone out once more often than it came back."""
    if sum(target.ejections.values()) > target.returns:
        return f"gets no requests: {target.why}"
    if went:
        return f"was out and is back already, {came} times since the last look"
    return f"is back; it was out for {target.seconds_out:.1f} s in all"
