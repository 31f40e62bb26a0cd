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
        self._misses: tuple[float, ...] = ()

    def update(self, miss: float, spread: float) -> float:
        """Note a log-miss and the usual size of one; return by how much the target has changed, as a log, or 0.0."""
        z = miss / spread
        z = min(CLIP, max(-CLIP, z))
        up = self.up + z - SLACK
        down = self.down - z - SLACK
        if up <= 0.0 and down <= 0.0:
            if self._misses:
                self.reset()
            return 0.0
        self._misses = (*self._misses[-RUN + 1 :], miss)
        if up > 0.0:
            self.up, self.up_run = up, self.up_run + 1
        else:
            self.up, self.up_run = 0.0, 0
        if down > 0.0:
            self.down, self.down_run = down, self.down_run + 1
        else:
            self.down, self.down_run = 0.0, 0
        if up > LIMIT:
            return max(0.0, median(self._misses[-self.up_run :]))
        if down > LIMIT:
            return min(0.0, median(self._misses[-self.down_run :]))
        return 0.0

    def reset(self) -> None:
        """Begin anew."""
        self.up = self.down = 0.0
        self.up_run = self.down_run = 0
        self._misses = ()
