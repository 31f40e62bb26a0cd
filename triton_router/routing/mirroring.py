"""Mirrored requests: copies sent to another target only to learn from, within a budget of time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triton_router.routing.protocols import Candidate

WARM_UP = 3
"""Answers that a target should have given: its first one, alone, would be what loading and compiling took. Until then
copies are free, or one cold start would price a target out of being looked at again."""
WARM_UP_EVERY = 20
"""Served requests for each of those copies: many routers that start together must not flood their targets."""
_MOST_SAVED_MS = 1000.0
"""However long nothing was spent: a budget is no reserve to burst with."""


class MirrorBudget:
    """Time that copies may take: a share of the time that served requests took.

    One copy at a time is under way: what it really took is known before the next one is let through.

    Attributes:
        share: That share; 0 for no copies at all.
    """

    __slots__ = ("_is_free", "_saved_ms", "_served", "_wanted_ms", "_warms_up", "share", "under_way")

    def __init__(self, share: float = 0.0) -> None:
        self.share = share
        self._saved_ms = 0.0
        # What the last copy that was too dear would have cost: until that is saved, no request needs to ask again.
        self._wanted_ms = 0.0
        self._warms_up = True
        self._served = WARM_UP_EVERY
        self._is_free = False
        self.under_way = False

    @property
    def is_open(self) -> bool:
        """Whether a copy may be sent."""
        affordable = self._saved_ms > self._wanted_ms or (self._warms_up and self._served >= WARM_UP_EVERY)
        return affordable and self.share > 0.0 and not self.under_way

    def earn(self, served_ms: float) -> None:
        """Note that a request was served, and how long it kept its device busy."""
        self._saved_ms = min(self._saved_ms + self.share * served_ms, _MOST_SAVED_MS)
        self._served += 1

    def begin(self, candidate: Candidate) -> None:
        """Note that a copy is on its way."""
        self._is_free = _is_cold(candidate)
        self._served = 0
        self.under_way = True

    def end(self, took_ms: float) -> None:
        """Note that it is back, and pay for it."""
        self.under_way = False
        if not self._is_free:
            self._saved_ms -= took_ms
        self._wanted_ms = 0.0

    def choose(self, candidates: Sequence[Candidate], work: float, rows: float) -> Candidate | None:
        """Return the candidate to learn about: idle, and not measured for longest; None if it costs too much now.

        The oldest waits until it can be paid for; skipping it for a cheaper one would leave it unknown for ever.
        One of unknown price is tried for anything saved.
        """
        idle = [c for c in candidates if not c.in_flight and not c.health.consecutive_failures]
        if self._warms_up and self._served >= WARM_UP_EVERY:
            cold = [c for c in idle if _is_cold(c)]
            if cold:
                return min(cold, key=lambda c: c.profile.observations)
            self._warms_up = any(_is_cold(c) for c in candidates)
        if not idle or self._saved_ms <= 0.0:
            return None
        oldest = min(idle, key=lambda c: c.measured_at)
        price = oldest.profile.predict_alone(work, rows)
        if price <= self._saved_ms:
            return oldest
        self._wanted_ms = min(price, _MOST_SAVED_MS - 1.0)
        return None


def _is_cold(candidate: Candidate) -> bool:
    """Whether it has yet to answer a few times, and can be asked by copies."""
    return candidate.profile.observations < WARM_UP and not candidate.needs_live_try
