"""Marks of several watchers on the same targets: what one has found stands, whatever others say.

The engine knows one problem of a target. Here each watcher has a slot of its own, and the engine is told what all of
them found.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from triton_router.routing.engine import RoutingEngine


class _Mark(NamedTuple):
    problem: str
    until: float
    takes_copies: bool


class JointMarks:
    """Tells an engine what several watchers found. Safe to use from several threads."""

    def __init__(self, engine: RoutingEngine) -> None:
        self._engine = engine
        self._marks: dict[str, dict[str, _Mark]] = {}
        self._lock = Lock()

    def of(self, watcher: str, *, takes_copies: bool = False) -> MarksOfOne:
        """Return the slot of a watcher.

        Args:
            watcher: Its name.
            takes_copies: Whether copies of requests go on to a target in which it alone found a problem.
        """
        return MarksOfOne(self, watcher, takes_copies=takes_copies)

    def put(self, watcher: str, target: str, mark: tuple[str, float, bool], now: float) -> None:
        """Note what a watcher found: the problem or "", until when it counts, and whether copies go on."""
        with self._lock:
            marks = self._marks.setdefault(target, {})
            marks[watcher] = _Mark(*mark)
            valid = [mark for mark in marks.values() if mark.problem and mark.until > now]
            self._engine.mark(
                target,
                "; ".join(mark.problem for mark in valid),
                now,
                max((mark.until - now for mark in valid), default=0.0),
                takes_copies=all(mark.takes_copies for mark in valid),
            )


class MarksOfOne:
    """One watcher's marks."""

    def __init__(self, joint: JointMarks, watcher: str, *, takes_copies: bool) -> None:
        self._joint = joint
        self._watcher = watcher
        self._takes_copies = takes_copies

    def mark(self, target: str, problem: str, now: float, valid_s: float) -> None:
        """Note what keeps a target from serving for so many seconds, from ``now`` on; "" if it is well."""
        self._joint.put(self._watcher, target, (problem, now + valid_s, self._takes_copies), now)
