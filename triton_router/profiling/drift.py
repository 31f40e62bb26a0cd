"""Tells a change of the target from a run of bad luck: a two-sided cumulative sum test.

    up   <- max(0, up   + clip(z) - SLACK),    alarm where up   > LIMIT
    down <- max(0, down - clip(z) - SLACK),    alarm where down > LIMIT

with ``z = log(measured / predicted) / spread`` (Page, *Continuous inspection schemes*, Biometrika 1954; Hinkley, 1971).
Clipping makes one wild answer, a cold start or a garbage collection, weigh no more than ``CLIP``: it takes four in
close succession to raise an alarm, whatever their size.
"""

from __future__ import annotations

from statistics import median
from typing import NamedTuple

CLIP = 4.0
"""A miss beyond this many times the usual one counts as this many."""
SLACK = 0.9
"""What ordinary noise takes from the sums at each observation, in usual misses."""
LIMIT = 10.0
RUN = 8
"""Most misses that are kept of a run: their median says by how much the target has changed."""


class DriftEvent(NamedTuple):
    """A target that became slower or faster.

    Attributes:
        direction: ``slower`` or ``faster``.
        factor: Latency after the change as a multiple of what it was before.
        observation: Which answer of the target raised the alarm, counted from 1.
    """

    direction: str
    factor: float
    observation: int


class CumulativeSum:
    """The test's running sums, and the misses since the change seems to have begun."""

    __slots__ = ("_misses", "down", "down_run", "up", "up_run")

    def __init__(self) -> None:
        self.up = 0.0
        self.down = 0.0
        self.up_run = 0
        self.down_run = 0
        self._misses: tuple[tuple[float, bool], ...] = ()

    def update(self, miss: float, spread: float, *, loaded: bool) -> float:
        """Note a log-miss, the usual size of one, and its kind; return the change's logarithm, or 0.0 for none."""
        z = miss / spread
        z = min(CLIP, max(-CLIP, z))
        up = self.up + z - SLACK
        down = self.down - z - SLACK
        if up <= 0.0 and down <= 0.0:
            if self._misses:
                self.reset()
            return 0.0
        self._misses = (*self._misses[-RUN + 1 :], (miss, loaded))
        self.up, self.up_run = (up, self.up_run + 1) if up > 0.0 else (0.0, 0)
        self.down, self.down_run = (down, self.down_run + 1) if down > 0.0 else (0.0, 0)
        if up > LIMIT:
            return max(0.0, median(self._run(self.up_run)))
        if down > LIMIT:
            return min(0.0, median(self._run(self.down_run)))
        return 0.0

    def change_of(self, change: float, *, loaded: bool) -> float:
        """Return how much of a change, just found, requests of one kind show: theirs, or all of it if there were none.

        One that is less than half of it, or to the other side, is none: the other kind alone has changed.
        """
        run = self.up_run if change > 0.0 else self.down_run
        own = [miss for miss, kind in self._misses[-run:] if kind is loaded]
        if not own:
            return change
        shown = median(own)
        return shown if shown * change > 0.0 and abs(shown) > abs(change) / 2.0 else 0.0

    def reset(self) -> None:
        """Begin anew."""
        self.up = self.down = 0.0
        self.up_run = self.down_run = 0
        self._misses = ()

    def _run(self, length: int) -> list[float]:
        return [miss for miss, _ in self._misses[-length:]]
