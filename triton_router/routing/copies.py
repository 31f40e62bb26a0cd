"""Slots for copies of requests, whose answers no client waits for: to learn from them, or to compare them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_router.routing import selection

if TYPE_CHECKING:
    from collections.abc import Callable

    from triton_router.routing.choosing import Chooser
    from triton_router.routing.health_watch import HealthWatch
    from triton_router.routing.mirroring import Mirroring
    from triton_router.routing.protocols import Candidate
    from triton_router.routing.roster import Roster
    from triton_router.routing.types import RoutingDecision


class Copies:
    """Reserves slots for copies at the targets of one engine; under its lock.

    Args:
        roster: Has the slots.
        chooser: Knows who can be chosen.
        watch: Knows who is in a state to be tried.
        mirrors: Says when a copy to learn from is due.
        rng: Uniform numbers in [0, 1).
    """

    __slots__ = ("_chooser", "_mirrors", "_rng", "_roster", "_watch")

    def __init__(
        self, roster: Roster, chooser: Chooser, watch: HealthWatch, mirrors: Mirroring, rng: Callable[[], float]
    ) -> None:
        self._roster = roster
        self._chooser = chooser
        self._watch = watch
        self._mirrors = mirrors
        self._rng = rng

    def to_learn(self, decision: RoutingDecision) -> RoutingDecision | None:
        """Return the decision for a copy to whom there is something to learn of, if the budget allows; or None."""
        others = [c for c in self._chooser.open if c is not decision.candidate and self._watch.can_be_tried(c)]
        if self._mirrors.under_way:
            return None
        candidate = self._mirrors.choose(others, decision.work, decision.context.batch_size, self._rng)
        return self._reserved(decision, candidate, "mirror") if candidate is not None else None

    def to_compare(self, decision: RoutingDecision, target: str, now: float) -> RoutingDecision | None:
        """Return the decision for a copy to this target; None if it serves the request itself or is in no state."""
        candidate = self._roster.by_name.get(target)
        if candidate is None or candidate is decision.candidate or candidate.in_flight >= candidate.cap:
            return None
        if not self._watch.can_be_copied_to(candidate, now):
            return None
        return self._reserved(decision, candidate, "shadow")

    def _reserved(self, decision: RoutingDecision, candidate: Candidate, reason: str) -> RoutingDecision:
        candidate.mirrored += 1
        selection.predict((candidate,), decision.work, decision.context.batch_size)
        return self._roster.reserve((decision.context, decision.work), candidate, reason, decision.chooser)
