"""Whether a request may be tried again, and how often that was granted or not."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from triton_router.routing.retry_budget import RetryBudget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triton_router.profiling.profile import TargetProfile
    from triton_router.routing.resilience import Resilience
    from triton_router.routing.types import RoutingDecision

_OVERDUE_TIMES = 10.0
"""An attempt is overdue after this many times what was expected at worst..."""
_OVERDUE_LEAST_MS = 1000.0
_OVERDUE_UNKNOWN_MS = 60_000.0
"""... and where nothing is known, after this: a first answer may take a compilation."""
_WORST = 0.99
_WORST_TIMES = 10.0
"""What was expected at worst is no more than so many times what was expected: one wild answer must not put it off."""


class Retrying:
    """Retries and hedges of one routed model; under the engine's lock.

    Attributes:
        rules: How often a request may be tried, and what it may cost.
        budget: Grants retries and hedges.
        refused: Attempts that were not granted, by why: ``not_idempotent``, ``attempts``, ``sequence``, ``budget``,
            ``hedges_off``, ``hedge_share``, ``no_target``.
        asked: Requests that were decided, not counting what was tried again: what the budget is a share of.
    """

    __slots__ = ("asked", "budget", "refused", "rules")

    def __init__(self, rules: Resilience) -> None:
        self.rules = rules
        self.budget = RetryBudget(rules.retry_share, rules.retry_burst, rules.hedge_share)
        self.refused: dict[str, int] = {}
        self.asked = 0

    def go_by(self, rules: Resilience) -> None:
        """Grant by other rules from now on."""
        self.budget.resize(rules.retry_share, rules.retry_burst, rules.hedge_share)
        self.rules = rules

    def obstacle(self, earlier: Sequence[RoutingDecision], *, hedge: bool, lost: bool = False) -> str:
        """Return why a request gets no other attempt whatever the targets and the budget, or ""."""
        if not self.rules.idempotent:
            return "not_idempotent"
        if earlier[0].context.pinned:
            return "sequence"
        if len(earlier) >= self.rules.attempts and not (lost and self.rules.attempts > 1):
            return "attempts"
        return "hedges_off" if hedge and not self.rules.hedges else ""

    def refuse(self, why: str) -> None:
        """Count an attempt that is not granted."""
        self.refused[why] = self.refused.get(why, 0) + 1

    def grants(self, now: float, *, hedge: bool) -> bool:
        """Take one attempt out of the budget, or count that it was refused; ``now`` in monotonic seconds."""
        take = self.budget.take_for_hedge if hedge else self.budget.take
        is_granted = take(self.asked, now)
        if not is_granted:
            self.refuse("hedge_share" if hedge else "budget")
        return is_granted

    def left(self, now: float) -> float:
        """Return how many retries are at hand; ``now`` in monotonic seconds. Asking tells the budget of the traffic."""
        return self.budget.left(self.asked, now)

    def risk(self, now: float) -> float:
        """Return how many requests may be risked at targets that may fail: each would be saved by a retry.

        Half of the burst is kept for what nobody foresees. Infinite where nothing is tried again: there is nothing to
        save up.
        """
        rules = self.rules
        if not rules.idempotent or rules.attempts == 1 or not (rules.retry_share or rules.retry_burst):
            return inf
        return self.left(now) - rules.retry_burst / 2.0

    def overdue_ms(self, profile: TargetProfile, expected_ms: float) -> float:
        """Return after how long an attempt is given up."""
        if self.rules.overdue_ms:
            return self.rules.overdue_ms
        if expected_ms <= 0.0:
            return _OVERDUE_UNKNOWN_MS
        worst = min(profile.latency_quantile(expected_ms, _WORST), _WORST_TIMES * expected_ms)
        return max(_OVERDUE_TIMES * worst, _OVERDUE_LEAST_MS)

    def hedge_after_ms(self, profile: TargetProfile, expected_ms: float) -> float:
        """Return after how long a request is hedged; 0 for never."""
        if expected_ms <= 0.0:
            return 0.0
        return profile.latency_quantile(expected_ms, self.rules.hedge_probability)
