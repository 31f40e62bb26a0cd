"""What follows from how a decision ended: for its slot, counts, health and arms, and what is learned from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_router.routing.testimony import testify
from triton_router.routing.types import COPIES, Verdict

if TYPE_CHECKING:
    from triton_router.routing.choosing import Chooser
    from triton_router.routing.health_watch import HealthWatch
    from triton_router.routing.learning import Learner
    from triton_router.routing.mirroring import Mirroring
    from triton_router.routing.roster import Roster
    from triton_router.routing.types import Outcome, RoutingDecision


class Consequences:
    """Draws the consequences of what happened at the targets of one engine; under its lock.

    Args:
        roster: Has the slots.
        chooser: Knows the yardstick of what witnesses are told.
        watch: Hears of answers and failures.
        mirrors: Earns and pays for copies.
        learner: Learns from latencies.

    Attributes:
        learns: Whether anything is learned of speed, memory and power.
    """

    __slots__ = ("_chooser", "_learner", "_mirrors", "_roster", "_watch", "learns")

    def __init__(
        self, roster: Roster, chooser: Chooser, watch: HealthWatch, mirrors: Mirroring, learner: Learner
    ) -> None:
        self._roster = roster
        self._chooser = chooser
        self._watch = watch
        self._mirrors = mirrors
        self._learner = learner
        self.learns = True

    def of_end(self, decision: RoutingDecision, outcome: Outcome, now: float) -> None:
        """Release the slot, count, and learn; ``now`` in monotonic seconds."""
        self._roster.release(decision, now)
        candidate = decision.candidate
        # A copy teaches like any request, and is none that a client sent: it is counted as mirrored alone.
        asked = decision.reason not in COPIES
        if decision.reason == "mirror" and not decision.is_given_up:
            self._pay(decision, outcome, now)
        if decision.is_given_up:
            # It was counted then. But how long an answer takes in the end should be known.
            if outcome.verdict is Verdict.SUCCESS:
                self._learn(decision, outcome, now)
            return
        if decision.witnesses or decision.judges:
            testify(decision, self._chooser.yardstick.profile, outcome.verdict, outcome.latency_ms)
        match outcome.verdict:
            case Verdict.SUCCESS:
                candidate.succeeded += asked
                candidate.needs_live_try = False
                self._watch.answered(decision, outcome.latency_ms, now)
                self._learn(decision, outcome, now)
            case Verdict.TARGET_ERROR:
                candidate.failed += asked
                candidate.profile.record_failure()
                self._watch.failed(decision, now)
            case Verdict.CLIENT_ERROR:
                candidate.refused += asked
                # A target that has never answered and refuses everything is not what its configuration says.
                if candidate.is_proven:
                    self._watch.passed_over(decision)
                else:
                    self._watch.failed(decision, now)
            case Verdict.CANCELLED:
                candidate.cancelled += asked
                # One that is known is looked at again with another request, of which a copy may be possible.
                candidate.needs_live_try |= not (asked or candidate.is_proven)
                self._watch.passed_over(decision)

    def of_giving_up(self, decision: RoutingDecision, now: float) -> None:
        """Count an attempt that is overdue as its target's failure, once; its slot stays."""
        if decision.is_given_up:
            return
        decision.is_given_up = True
        if decision.witnesses or decision.judges:
            testify(decision, self._chooser.yardstick.profile, Verdict.TARGET_ERROR, 0.0)
        candidate = decision.candidate
        if decision.reason not in COPIES:
            candidate.failed += 1
        elif decision.reason == "mirror":
            candidate.copied_at = now
            self._mirrors.fail(0.0, decision.alone_ms)
        candidate.profile.record_failure()
        self._watch.failed(decision, now)

    def _pay(self, decision: RoutingDecision, outcome: Outcome, now: float) -> None:
        decision.candidate.copied_at = now
        if outcome.verdict is Verdict.SUCCESS:
            self._mirrors.end(outcome.latency_ms)
        else:
            self._mirrors.fail(outcome.latency_ms, decision.alone_ms)

    def _learn(self, decision: RoutingDecision, outcome: Outcome, now: float) -> None:
        candidate = decision.candidate
        if self.learns:
            device = candidate.device
            alone = not (decision.load.in_flight or device.in_flight or device.peers_in_flight)
            self._learner.add(decision, outcome.latency_ms, now, alone=alone)
            if outcome.memory_mb:
                candidate.profile.record_memory(outcome.memory_mb)
            if outcome.power_w:
                candidate.profile.record_power(outcome.power_w)
        if decision.reason == "mirror":
            self._mirrors.answered(candidate, outcome.latency_ms, decision.expected_latency_ms)
        elif decision.reason != "shadow":
            # What a request waits for others is no time in which it keeps its device busy.
            self._mirrors.earn(min(outcome.latency_ms, decision.alone_ms or outcome.latency_ms))
