"""Tells a change of the target from a run of bad luck: a two-sided cumulative sum test.

    up   <- max(0, up   + clip(z) - SLACK),    alarm where up   > LIMIT
    down <- max(0, down - clip(z) - SLACK),    alarm where down > LIMIT

with ``z = log(measured / predicted) / spread`` (Page, *Continuous inspection schemes*, Biometrika 1954; Hinkley, 1971).
Clipping makes one wild answer, a cold start or a garbage collection, weigh no more than ``CLIP``: it takes four in
close succession to raise an alarm, whatever their size.
"""

from __future__ import annotations

from math import log
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


class Miss(NamedTuple):
    """One answer beside what was expected of it.

    Attributes:
        size: Logarithm of measured to predicted.
        loaded: Whether it had company.
        beyond: Ratio of measured to the longest that the load it found explains.
        below: Ratio of measured to what it takes alone.
    """

    size: float
    loaded: bool
    beyond: float = 1.0
    below: float = 1.0


class CumulativeSum:
    """The test's running sums, and the misses since the change seems to have begun."""

    __slots__ = ("_misses", "down", "down_run", "up", "up_run")

    def __init__(self) -> None:
        self.up = 0.0
        self.down = 0.0
        self.up_run = 0
        self.down_run = 0
        self._misses: tuple[Miss, ...] = ()

    def update(self, miss: Miss, spread: float, weight: float = 1.0) -> float:
        """Note a miss; return the change's logarithm, or 0.0 for none.

        Args:
            miss: What was measured.
            spread: The usual size of one.
            weight: What it counts, up to 1: requests that wait for one another miss together, by one cause.
        """
        z = miss.size / spread
        z = min(CLIP, max(-CLIP, z))
        up = self.up + weight * (z - SLACK)
        down = self.down + weight * (-z - SLACK)
        if up <= 0.0 and down <= 0.0:
            if self._misses:
                self.reset()
            return 0.0
        self._misses = (*self._misses[-RUN + 1 :], miss)
        self.up, self.up_run = (up, self.up_run + 1) if up > 0.0 else (0.0, 0)
        self.down, self.down_run = (down, self.down_run + 1) if down > 0.0 else (0.0, 0)
        if up > LIMIT:
            return max(0.0, median(self._run(self.up_run)))
        if down > LIMIT:
            return min(0.0, median(self._run(self.down_run)))
        return 0.0

    def change_alone(self, change: float) -> float:
        """Return by how much of a change, just found, what requests take alone has changed.

        Where there were requests alone, they say it. Else what company cannot explain: who took longer than all that
        was in flight does one after the other, or less than the request does alone. Two have to say so.
        """
        run = self._run_of(change)
        own = [miss.size for miss in run if not miss.loaded]
        if own:
            return _shown(own, change)
        if change > 0.0:
            beyond = sorted(miss.beyond for miss in run)
            return min(change, log(max(1.0, beyond[-2]))) if len(beyond) > 1 else 0.0
        below = sorted(miss.below for miss in run)
        return max(change, log(min(1.0, below[1]))) if len(below) > 1 else 0.0

    def change_loaded(self, change: float) -> float:
        """Return how much of it requests with company show; all of it if there were none."""
        own = [miss.size for miss in self._run_of(change) if miss.loaded]
        return _shown(own, change) if own else change

    def reset(self) -> None:
        """Begin anew."""
        self.up = self.down = 0.0
        self.up_run = self.down_run = 0
        self._misses = ()

    def _run_of(self, change: float) -> tuple[Miss, ...]:
        return self._misses[-(self.up_run if change > 0.0 else self.down_run) :]

    def _run(self, length: int) -> list[float]:
        return [miss.size for miss in self._misses[-length:]]


def _shown(own: list[float], change: float) -> float:
    """Return a change as one kind of requests shows it: less than half, or to the other side, is none."""
    shown = median(own)
    return shown if shown * change > 0.0 and abs(shown) > abs(change) / 2.0 else 0.0
