"""A rollout: a canary's share grows step by step while the gate finds nothing, and falls to nothing once it does.

What is wanted comes in a `RolloutPlan`; what has happened is here. A rollback stays until the plan's id changes or
somebody promotes by hand. Each change is told once as a `Transition`, for the audit log.

Instances go together, those that have ended included, for their files tell where the others are. But a share that
somebody lowers by hand must not be raised by what was written before. So each state has a generation, which rises with
every change by hand; of the others, only those of the latest generation are followed to a share or a promotion, and
from an earlier one also downwards. What all of them saw counts, and so does a rollback, which only a hand undoes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_router.experiments.assignment import is_treated
from triton_router.experiments.gate import GATE_TESTS, Gate, judge
from triton_router.experiments.rollout_evidence import RolloutEvidence, sound_peers
from triton_router.experiments.rollout_plan import (
    ENDED,
    PAUSED,
    PROMOTED,
    ROLLED_BACK,
    RUNNING,
    RolloutPlan,
    Transition,
    figures_of,
)
from triton_router.experiments.strata import EPOCH_S, Strata

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Gate", "Rollout", "RolloutPlan", "Transition"]

_GATE = "gate"
_LONGEST_REASON = 500
_PROMOTED_BY_HAND, _ABORTED_BY_HAND = "promoted by hand", "aborted by hand"
_LONGEST_GAP_S = 60.0
"""Seconds that count between two looks: a router that was down, or a clock that was set forward, saw nothing."""
_END_OF_TIME = 1e12
_LAST_GENERATION = 2**53


class Rollout:
    """One rollout on one instance. The caller holds a lock, and calls `step` at once.

    Attributes:
        share: What the canary gets now, 0 to 1; a step of 100% is `HOLD_BACK` less until it has been stood.
        phase: ``running``, ``paused``, ``promoted`` or ``rolled_back``.
        canary: Witness of those of the canary's requests that are decided now; later it is another one.
        stable: Likewise of the others.
    """

    def __init__(self, plan: RolloutPlan) -> None:
        self._plan = plan
        self._namespace = f"rollout/{plan.id}"
        self._generation = self._latest_heard = 0
        self._begin_anew()

    def _begin_anew(self) -> None:
        plan = self._plan
        self.phase = RUNNING
        self._strata = self._seen = Strata(plan.id)
        self._findings = judge(self._seen, plan.gate)
        self._has_begun = self._is_reconciled = False
        self._is_by_hand = plan.weight is not None
        self._since = self._held_s = self._age_s = 0.0
        self._looked_at: float | None = None
        self._alarmed: set[str] = set()
        self._ignored_peers = 0
        self._why = ""
        self._take_share(plan.shares[0] if plan.weight is None else plan.weight)

    @property
    def plan(self) -> RolloutPlan:
        """What is wanted."""
        return self._plan

    def is_canary(self, key: str) -> bool:
        """Return whether a caller's requests go to the canary: once they do, they do at every larger share."""
        share = self.share
        return share >= 1.0 or (share > 0.0 and is_treated(self._namespace, key, share))

    def note_parity(self, agrees: bool) -> None:
        """Note that an answer of the canary was compared with stable's."""
        self._here.compared += 1
        self._here.diverged += not agrees

    def step(self, now: float, peers: Sequence[object] = ()) -> list[Transition]:
        """Judge what was seen, here and by other instances, and go on, stay or roll back.

        Args:
            now: Wall clock, seconds. Where it goes backwards, no time has passed.
            peers: `evidence` of the other instances; what is not about this rollout is left out.

        Returns:
            What has changed.
        """
        sound = sound_peers(self._plan, peers)
        self._latest_heard = max((peer.generation for peer in sound), default=0)
        changes = [] if self._is_reconciled else self._reconcile(now)
        if changes:
            self._begin_generation()
        self._pass_time(now)
        if self.phase in ENDED:
            return changes
        self._ignored_peers = len(peers) - len(sound)
        self._seen = self._strata.plus([peer.strata for peer in sound])
        self._findings = judge(self._seen, self._plan.gate)
        return changes + (self._follow_peers(sound, now) or self._decide(now))

    def follow(self, plan: RolloutPlan, now: float) -> list[Transition]:
        """Go on with what is wanted now. Another set of canaries begins anew, unless this rollout has ended.

        Raises:
            ValueError: It is another rollout's plan.
        """
        if plan.id != self._plan.id:
            raise ValueError(f"the plan of rollout {plan.id!r} is not that of {self._plan.id!r}")
        before, self._plan = self._plan, plan
        self._begin_generation()
        if plan.canary != before.canary and self.phase not in ENDED:
            self._begin_anew()
        return self._reconcile(now, before)

    def remove(self, now: float) -> Transition:
        """Tell that it is wanted no more; who serves is then a matter of the policy alone."""
        return self._told(now, "configuration", "remove", self.share, "taken out of the configuration")

    def report(self, now: float) -> dict[str, object]:
        """Return how it stands, with the figures behind it, as plain data."""
        plan = self._plan
        is_stepping = self.phase not in ENDED and not self._is_by_hand
        return {
            "id": plan.id,
            "canary": sorted(plan.canary),
            "phase": self.phase,
            "share": self.share,
            "step": plan.step_at(self.share) + 1 if is_stepping else None,
            "step_share": plan.steps[plan.step_at(self.share)] if is_stepping else None,
            "steps": list(plan.steps),
            "by_hand": self._is_by_hand,
            "since": self._since or None,
            "for_s": max(0.0, round(now - self._since, 1)) if self._since else None,
            "held_s": round(self._held_s, 1),
            "answers_in_step": self._seen.answers_at(self.share)[0],
            "waiting_for": self._waiting_for(),
            "reason": self._why,
            "alarms": sorted(self._alarmed),
            "ignored_peers": self._ignored_peers,
            **figures_of(self._seen, self._findings),
        }

    def evidence(self) -> dict[str, object]:
        """Return what other instances need to know: what was seen adds up."""
        return {
            "id": self._plan.id,
            "canary": sorted(self._plan.canary),
            "phase": self.phase,
            "share": self.share,
            "by_hand": int(self._is_by_hand),
            "generation": self._generation,
            "reason": self._why,
            "strata": self._strata.state(),
        }

    def state(self) -> dict[str, object]:
        """Return it as plain data, for a restart."""
        return {
            **self.evidence(),
            "begun": int(self._has_begun),
            "since": self._since,
            "held_s": self._held_s,
            "age_s": self._age_s,
            "alarmed": sorted(self._alarmed),
        }

    @classmethod
    def from_state(cls, plan: RolloutPlan, state: object) -> Rollout:
        """Return the rollout of a state; what the plan wants otherwise comes with the next `step`.

        Raises:
            ValueError: The state is another rollout's, or none at all.
        """
        evidence = RolloutEvidence(plan, state)
        values = evidence.values
        since = values.number("since", -_END_OF_TIME, _END_OF_TIME)
        held_s, age_s = (values.number(key, 0.0, _END_OF_TIME) for key in ("held_s", "age_s"))
        alarmed, begun = values.rows("alarmed"), values.count("begun")
        rollout = cls(plan)
        if not evidence.is_same_canary and not evidence.has_ended:
            return rollout
        rollout._strata = rollout._seen = evidence.strata
        rollout._findings = judge(evidence.strata, plan.gate)
        rollout._generation = evidence.generation
        rollout._alarmed = {name for name in GATE_TESTS if name in alarmed}
        rollout.phase, rollout._is_by_hand, rollout._has_begun = evidence.phase, evidence.is_by_hand, begun > 0
        rollout._since, rollout._held_s, rollout._age_s, rollout._why = since, held_s, age_s, evidence.why
        rollout._take_share(evidence.share)
        return rollout

    def _begin_generation(self) -> None:
        """Note a change by hand: as late as that of others who have followed it already, and later than before."""
        self._generation = min(max(self._generation + 1, self._latest_heard), _LAST_GENERATION)

    def _take_share(self, share: float) -> None:
        """Have the canary get a share from now on; who asked before keeps the witness of then."""
        self.share = share
        self._here = here = self._strata.at(share, int(self._age_s // EPOCH_S))
        self.canary, self.stable = here.canary, here.stable

    def _pass_time(self, now: float) -> None:
        self._strata.look(self._here)
        looked_at, self._looked_at = self._looked_at, now
        if looked_at is None:
            return
        passed = min(max(0.0, now - looked_at), _LONGEST_GAP_S)
        self._age_s += passed
        if self.phase == RUNNING:
            self._held_s += passed
        if self.phase not in ENDED:
            self._take_share(self.share)

    def _change(self, now: float, by: str, event: str, share: float, reason: str) -> Transition:
        """Take a share, and tell it."""
        change = self._told(now, by, event, share, reason)
        if share != self.share or not self._has_begun:
            self._held_s = 0.0
            self._since = now
        self._has_begun = True
        self._why = reason
        self._take_share(share)
        return change

    def _told(self, now: float, by: str, event: str, share: float, reason: str) -> Transition:
        return Transition(now, by, event, self.share, share, reason, figures_of(self._seen, self._findings))

    def _reconcile(self, now: float, before: RolloutPlan | None = None) -> list[Transition]:
        """Take over what is wanted otherwise than it is."""
        plan, by = self._plan, self._plan.by or "configuration"
        self._is_reconciled = True
        changes: list[Transition] = []
        if not self._has_begun:
            changes.append(self._change(now, by, "begin", self.share, f"rollout {plan.id} to {_names(plan)}"))
        ending = self._end_by_hand(now, by)
        if ending is not None:
            return [*changes, ending]
        # What was written while nobody looked counts as well; what was there before the promotion does not.
        is_set = plan.weight is not None and (before is None or before.weight != plan.weight)
        if self.phase == PROMOTED and is_set and not plan.outcome:
            self.phase = RUNNING
        if self.phase in ENDED:
            return changes
        if before is not None and plan.gate != before.gate:
            self._alarmed.clear()
            changes.append(self._change(now, by, "set", self.share, "another gate"))
        if plan.is_paused != (self.phase == PAUSED):
            self.phase = PAUSED if plan.is_paused else RUNNING
            event = "pause" if plan.is_paused else "resume"
            changes.append(self._change(now, by, event, self.share, f"{event}d by hand"))
        return changes + self._take_planned_share(now, by)

    def _end_by_hand(self, now: float, by: str) -> Transition | None:
        outcome = self._plan.outcome
        # Told as well where the gate, or another instance, was there first: the audit log knows who wanted what.
        if outcome == "promote" and (self.phase, self._why) != (PROMOTED, _PROMOTED_BY_HAND):
            self.phase = PROMOTED
            return self._change(now, by, "promote", 1.0, _PROMOTED_BY_HAND)
        if outcome == "abort" and (self.phase, self._why) != (ROLLED_BACK, _ABORTED_BY_HAND):
            self.phase = ROLLED_BACK
            return self._change(now, by, "abort", 0.0, _ABORTED_BY_HAND)
        return None

    def _take_planned_share(self, now: float, by: str) -> list[Transition]:
        plan, was_by_hand = self._plan, self._is_by_hand
        self._is_by_hand = plan.weight is not None
        share = plan.shares[plan.step_at(self.share)] if plan.weight is None else plan.weight
        if share == self.share and was_by_hand == self._is_by_hand:
            return []
        return [self._change(now, by, "set", share, "share set by hand" if self._is_by_hand else "back to the steps")]

    def _follow_peers(self, peers: Sequence[RolloutEvidence], now: float) -> list[Transition]:
        """Come to where another instance is already: it judged the same evidence."""
        rolled_back = next((peer for peer in peers if peer.phase == ROLLED_BACK), None)
        if rolled_back is not None and self._plan.gate.rollback:
            self.phase = ROLLED_BACK
            reason = _as_told("another instance has rolled it back", rolled_back)
            return [self._change(now, _GATE, "rollback", 0.0, reason)]
        if self._is_by_hand:
            return []
        latest = [peer for peer in peers if peer.generation >= max(self._generation, self._latest_heard)]
        promoted = next((peer for peer in latest if peer.phase == PROMOTED), None)
        if promoted is not None and self._plan.steps[-1] >= 1.0 and self.phase != PAUSED:
            self.phase, self._generation = PROMOTED, promoted.generation
            return [self._change(now, _GATE, "promote", 1.0, _as_told("another instance has promoted it", promoted))]
        return self._catch_up(latest, now)

    def _catch_up(self, latest: Sequence[RolloutEvidence], now: float) -> list[Transition]:
        """Take the step that others in the same phase have reached: an instance may have begun in mid-rollout."""
        stepping = [peer for peer in latest if peer.phase == self.phase and not peer.is_by_hand]
        there = [peer for peer in stepping if peer.share in self._plan.shares]
        if not there:
            return []
        furthest = max(peer.share for peer in there)
        was_earlier, self._generation = self._generation < there[0].generation, there[0].generation
        if furthest > self.share:
            return [self._change(now, _GATE, "step", furthest, f"another instance has reached {furthest:.4g}")]
        if furthest < self.share and was_earlier:
            return [self._change(now, _GATE, "set", furthest, f"another instance was taken back to {furthest:.4g}")]
        return []

    def _decide(self, now: float) -> list[Transition]:
        alarms = [finding for finding in self._findings if finding.is_alarm]
        if alarms and self._plan.gate.rollback:
            self.phase = ROLLED_BACK
            self._alarmed.update(finding.name for finding in alarms)
            reason = "; ".join(finding.reason() for finding in alarms)
            return [self._change(now, _GATE, "rollback", 0.0, reason)]
        new = [finding for finding in alarms if finding.name not in self._alarmed]
        self._alarmed.update(finding.name for finding in new)
        if new:
            return [self._change(now, _GATE, "alarm", self.share, "; ".join(one.reason() for one in new))]
        return [] if self._waiting_for() else self._go_on(now)

    def _go_on(self, now: float) -> list[Transition]:
        plan = self._plan
        at = plan.step_at(self.share)
        seen, _ = self._seen.answers_at(self.share)
        reason = f"{seen:,} answers of the canary in {self._held_s:,.0f} s at {self.share:.4g}, and no alarm"
        if at + 1 < len(plan.steps):
            return [self._change(now, _GATE, "step", plan.shares[at + 1], reason)]
        self.phase = PROMOTED
        return [self._change(now, _GATE, "promote", 1.0, reason)]

    def _waiting_for(self) -> str:
        """Return what it takes to go on, in words; "" where nothing is missing or it has ended."""
        plan = self._plan
        if self.phase in ENDED:
            return ""
        if self.phase == PAUSED:
            return "being resumed by hand"
        if self._is_by_hand:
            return "the share was set by hand, and stays"
        if self._alarmed:
            return f"a decision by hand: alarm of {', '.join(sorted(self._alarmed))}"
        return plan.waiting_for(self._seen, self._held_s, self.share) or self._held_up_by()

    def _held_up_by(self) -> str:
        """Return what keeps a step that has lasted long enough, in words, or ""."""
        for finding in self._findings:
            if finding.is_doubtful:
                return f"evidence either way: {finding.reason()}"
        if self._plan.steps[-1] <= self.share < 1.0:
            return "a promotion by hand: the steps end below 100 percent"
        return ""


def _as_told(what: str, peer: RolloutEvidence) -> str:
    """Return what another instance did with its reason, in a line: anything may stand in a file."""
    why = " ".join(peer.why.split())[:_LONGEST_REASON].removeprefix(f"{what}: ")
    return f"{what}: {why}" if why else what


def _names(plan: RolloutPlan) -> str:
    return ", ".join(sorted(plan.canary))
