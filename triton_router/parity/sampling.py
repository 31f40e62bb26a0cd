"""Which requests are sampled: a share of them, some by the clock while it is urgent, and none beyond a budget.

Between two samples lie so many requests as independent draws would leave, so that a request that is not sampled costs
one subtraction. The budget is a share of the time that serving takes, counted at the samples: each stands for the
requests since the one before it, of which it is one at random.
"""

from __future__ import annotations

from math import floor, inf, log, log1p
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_SAVED_MS = 1000.0
"""However long nothing was spent: a budget is no reserve to burst with."""
_FIRST_MS = 1e-3
"""At hand in the beginning: whatever the first sample costs, the next ones wait until that is earned."""


class Sampling:
    """Samples of one kind, for one thread; `spend` is for any.

    Args:
        rng: Uniform numbers in [0, 1).
        share: Share of the requests.
        budget: Time that samples may take, as a share of the time spent serving.

    Attributes:
        left: Requests until the next sample, that one included; infinite for none.
        due_at: When a request is sampled whatever the share, in monotonic seconds; infinite for never.
    """

    __slots__ = ("_budget", "_every_s", "_rng", "_saved_ms", "_share", "due_at", "left")

    def __init__(self, rng: Callable[[], float], share: float = 0.0, budget: float = 0.0) -> None:
        self._rng = rng
        self._saved_ms = _FIRST_MS
        self._every_s = inf
        self.due_at = inf
        self.go_by(share, budget)

    def go_by(self, share: float, budget: float) -> None:
        """Sample this share within this budget from now on."""
        self._share = share
        self._budget = budget
        self.left = self._gap()

    def hurry(self, every_s: float, now: float) -> None:
        """Sample about every so many seconds besides, as far as the budget allows; infinite for no more."""
        if every_s == self._every_s:
            return
        self._every_s = every_s
        self.due_at = now if every_s < inf else inf

    def passed(self, requests: float, served_ms: float, now: float) -> bool:
        """Count requests, of which the last is at hand; whether that is to be sampled.

        Args:
            requests: How many there were since the last call, this one included.
            served_ms: How long this one keeps a device busy.
            now: Monotonic seconds.
        """
        self._saved_ms = min(self._saved_ms + self._budget * requests * served_ms, _MOST_SAVED_MS)
        self.left -= requests
        if self.left > 0 and now < self.due_at:
            return False
        if self.left <= 0:
            self.left = self._gap()
        if now >= self.due_at:
            # Nobody who asks at fixed times is to be the one that is always sampled, or never.
            self.due_at = now + self._every_s * (0.5 + self._rng())
        return self._saved_ms > 0.0

    def spend(self, took_ms: float) -> None:
        """Pay for a sample."""
        self._saved_ms -= took_ms

    def _gap(self) -> float:
        """Return the number of independent draws until the first that hits (geometric distribution, by inversion)."""
        if self._share <= 0.0:
            return inf
        if self._share >= 1.0:
            return 1
        draws = log(1.0 - self._rng()) / log1p(-self._share)
        return 1 + floor(draws) if draws < inf else inf
