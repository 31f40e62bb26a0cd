"""What is wanted of a rollout, and what it tells of each change."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from triton_router.experiments.gate import Gate

if TYPE_CHECKING:
    from triton_router.experiments.gate import Finding
    from triton_router.experiments.strata import Strata

RUNNING, PAUSED, PROMOTED, ROLLED_BACK = "running", "paused", "promoted", "rolled_back"
HOLD_BACK = 0.02
"""Share of the callers that stay with stable while a step of 100% is judged, the last ones to come to the canary.

Only what both arms do at the same time tells a slower canary from a busier machine. With fewer callers the step would
last longer, as it needs as many answers of stable as others need of the canary; with more, less of the load that a
promotion brings would be tried before it.
"""
_PATIENCE = 2.0
"""Times as many requests as should have brought the answers of stable that a step needs."""
PHASES = frozenset({RUNNING, PAUSED, PROMOTED, ROLLED_BACK})
ENDED = frozenset({PROMOTED, ROLLED_BACK})


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """What is wanted of a rollout.

    Attributes:
        id: Names it: another id begins anew.
        canary: Names of the targets that are new.
        steps: Shares (0 to 1) that they are to get, rising; while a step is judged they get those in `shares`.
        hold_s: Seconds for which each step lasts at least.
        weight: A share by hand, held for ever, in place of the steps.
        is_paused: Whether the share stays what it is.
        outcome: ``promote`` or ``abort``, by hand, or "".
        by: Who wants that.
        gate: What the canary has to stand.
    """

    id: str
    canary: frozenset[str]
    steps: tuple[float, ...] = (0.01, 0.05, 0.25, 0.5, 1.0)
    hold_s: float = 600.0
    weight: float | None = None
    is_paused: bool = False
    outcome: str = ""
    by: str = ""
    gate: Gate = field(default_factory=Gate)

    @property
    def shares(self) -> tuple[float, ...]:
        """What the canary gets while each step is judged: of 100% less by `HOLD_BACK`, but more than before."""
        *before, last = self.steps
        if last < 1.0:
            return self.steps
        rest = 1.0 - before[-1] if before else 1.0
        return (*before, 1.0 - min(HOLD_BACK, 0.5 * rest))

    def step_at(self, share: float) -> int:
        """Return the number of the step that a share has reached, from 0: the last one that is not above it."""
        return max(0, sum(step <= share for step in self.shares) - 1)

    def waiting_for(self, strata: Strata, held_s: float, share: float) -> str:
        """Return in words what a step that began ``held_s`` seconds ago still needs, or ""."""
        needs: list[str] = []
        if held_s < self.hold_s:
            needs.append(f"{self.hold_s - held_s:,.0f} s more")
        least, (canary, stable) = self.gate.min_requests, strata.answers_at(share)
        if canary < least and share > 0.0:
            needs.append(f"{least - canary:,} more answers of the canary")
        # Few callers with many requests may all be the canary's, or stable fail: it is not waited for for ever.
        elif stable < least and canary * (1.0 - share) < _PATIENCE * least * share and share < 1.0:
            needs.append(f"{least - stable:,} more answers of stable, of which the latency says something")
        return " and ".join(needs)


class Transition(NamedTuple):
    """A change, for the audit log.

    Attributes:
        at: Wall clock, seconds.
        by: ``gate``, or who.
        event: ``begin``, ``step``, ``pause``, ``resume``, ``promote``, ``rollback``, ``abort``, ``set``, ``alarm``
            (the gate finds the canary too bad and may not roll it back) or ``remove`` (nothing more is wanted of it).
        before: The canary's share until now.
        after: And from now on; where the rollout is removed, the last one: nobody divides the requests any more.
        reason: Why.
        figures: What that was found by: arms and tests, as in the report.
    """

    at: float
    by: str
    event: str
    before: float
    after: float
    reason: str
    figures: dict[str, object]


def figures_of(strata: Strata, findings: list[Finding]) -> dict[str, object]:
    """Return what the gate sees as plain data."""
    rows = strata.all()
    return {
        "arms": {"canary": strata.canary().report(), "stable": strata.stable().report()},
        "compared": sum(row.compared for row in rows),
        "diverged": sum(row.diverged for row in rows),
        "tests": [finding.report() for finding in findings],
    }
