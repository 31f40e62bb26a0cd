"""How fast requests get through where some are held up, so that those who come know how long they would wait.

A pace that is learned while nobody waits says how much is asked, and not how much could be answered.
"""

from __future__ import annotations

_FRESH = 0.05
"""Weight of the latest look: at twenty looks a second, half of what is known is from the last 0.7 s."""
_LONGEST_S = 1.0
"""Looks farther apart than this do not belong together."""


class Pace:
    """The pace of one queue. `look` is for one thread.

    Attributes:
        per_s: Requests that get through in a second while others wait; 0 while that is not known.
    """

    __slots__ = ("_looked_at", "_passed", "_was_held_up", "per_s")

    def __init__(self) -> None:
        self.per_s = 0.0
        self._looked_at = 0.0
        self._passed = 0
        self._was_held_up = False

    def look(self, now: float, passed: int, *, is_held_up: bool) -> None:
        """Learn from how many got through since the last look; to be called regularly.

        Args:
            now: Monotonic seconds.
            passed: How many have got through so far.
            is_held_up: Whether others wait now.
        """
        elapsed, new = now - self._looked_at, passed - self._passed
        if is_held_up and self._was_held_up and 0.0 < elapsed < _LONGEST_S:
            self.per_s += (new / elapsed - self.per_s) * (_FRESH if self.per_s else 1.0)
        self._looked_at, self._passed, self._was_held_up = now, passed, is_held_up

    def wait_ms(self, ahead: int) -> float:
        """Return how long it takes until so many have got through; 0 if that is not known."""
        return ahead / self.per_s * 1e3 if self.per_s else 0.0
