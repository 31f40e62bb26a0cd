"""Keeps a failing target from being chosen: a target that fails fast would otherwise look fast."""

from __future__ import annotations

_FAILURES = 3
"""Consecutive failures that send a target out. Client errors and cancellations are not failures."""
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0


class Health:
    """One target's consecutive failures, and until when it is out. Nothing latches: every pause ends.

    After a pause the target is on probation: one request at a time finds out. One more failure doubles the pause,
    one success forgets it all.

    Attributes:
        consecutive_failures: Failures since the last answer.
    """

    __slots__ = ("_out_until", "_pause", "consecutive_failures")

    def __init__(self) -> None:
        self.consecutive_failures = 0
        self._pause = _FIRST_PAUSE_S
        self._out_until = 0.0

    def is_out(self, now: float) -> bool:
        """Whether the target rests at ``now`` (seconds, monotonic)."""
        return now < self._out_until

    @property
    def is_on_probation(self) -> bool:
        """Whether the target has been out and has not answered since."""
        return self.consecutive_failures >= _FAILURES

    def succeeded(self) -> None:
        """Note an answer."""
        self.consecutive_failures = 0
        self._pause = _FIRST_PAUSE_S
        self._out_until = 0.0

    def failed(self, now: float) -> None:
        """Note a failure that was the target's."""
        self.consecutive_failures += 1
        if self.consecutive_failures >= _FAILURES and not self.is_out(now):
            self._out_until = now + self._pause
            self._pause = min(self._pause * 2, _LONGEST_PAUSE_S)
