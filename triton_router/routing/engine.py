"""The routing engine of one routed model: decides, reserves, and learns from what happened.

Pure: the caller passes the time and a source of random numbers. Safe to call from several threads.
"""

from __future__ import annotations

from math import inf
from threading import Lock
from typing import TYPE_CHECKING

from triton_router.routing import peers
from triton_router.routing.arms import JUDGED_PAUSE_S, NO_ROLES, Roles
from triton_router.routing.choosing import Chooser
from triton_router.routing.consequences import Consequences
from triton_router.routing.copies import Copies
from triton_router.routing.health_watch import HealthWatch
from triton_router.routing.learning import Learner
from triton_router.routing.mirroring import Mirroring
from triton_router.routing.retrying import Retrying
from triton_router.routing.roster import Roster
from triton_router.routing.rules import RoutingRules
from triton_router.routing.snapshot import TargetSnapshot, snapshot_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from triton_router.profiling.profile import TargetProfile
    from triton_router.routing.arms import Arm
    from triton_router.routing.explanation import Explanation
    from triton_router.routing.peers import LoadBoard, PeerAnswer
    from triton_router.routing.policies import Policy
    from triton_router.routing.types import Backend, Outcome, RoutingContext, RoutingDecision, Target

_DEFAULT_RULES = RoutingRules()


class RoutingEngine:
    """Chooses among the targets of one routed model: the lock around the parts that do so, and their order.

    Args:
        targets: Each with its profile, seeded or fresh. At least one; names are unique.
        policy: How to choose, unless a request has a wish of its own.
        rng: Uniform numbers in [0, 1).
        rules: What holds whatever the policy.
        roles: What the targets are there for.
        log_propensities: Whether each decision carries its probability; takes a few microseconds.

    Attributes:
        wants_keys: Whether it matters what a request's caller stays with.
    """

    wants_keys = False

    def __init__(
        self,
        targets: Iterable[tuple[Target, TargetProfile]],
        policy: Policy,
        *,
        rng: Callable[[], float],
        rules: RoutingRules = _DEFAULT_RULES,
        roles: Roles = NO_ROLES,
        log_propensities: bool = False,
    ) -> None:
        self._lock = Lock()
        self._roles = roles
        self._mirrors = Mirroring()
        self._learner = Learner(self._mirrors.suspect)
        self._watch = HealthWatch(rng)
        self._retrying = Retrying(rules.resilience)
        self._roster = Roster(self._watch)
        self._roster.admit(targets, ())
        self._chooser = Chooser(self._roster, self._watch, self._retrying, rng=rng, log_propensities=log_propensities)
        self._copies = Copies(self._roster, self._chooser, self._watch, self._mirrors, rng)
        self._consequences = Consequences(self._roster, self._chooser, self._watch, self._mirrors, self._learner)
        self._apply(policy, rules)

    def reconfigure(
        self,
        policy: Policy,
        rules: RoutingRules,
        targets: Sequence[tuple[Target, TargetProfile]] = (),
        *,
        kept: Collection[str] = (),
        adjust: Callable[[str, TargetProfile], None] | None = None,
        roles: Roles | None = None,
    ) -> list[TargetSnapshot]:
        """Choose by another policy and other rules from now on. What is in flight, counted and learned stays.

        Args:
            policy: As for a new engine.
            rules: Likewise.
            targets: Those to choose among from now on; none for the present ones. One that is removed gets no new
                request but those of sequences that it holds, and finishes what it has in flight.
            kept: Names of the targets whose known profile stays; the others begin with the one passed.
            adjust: Is called with the name and the profile of each target, while nothing is learned.
            roles: What the targets are there for; None for what they are there for now.

        Returns:
            The targets that were not there before, as they begin.
        """
        with self._lock:
            roster = self._roster
            before = {id(candidate) for candidate in roster.present}
            if targets:
                self._learner.learn(self._learner.learned_at)
                roster.admit(targets, kept)
            if adjust is not None:
                for candidate in roster.present:
                    adjust(candidate.target.name, candidate.profile)
            self._roles = roles or self._roles
            self._apply(policy, rules)
            return [snapshot_of(candidate, 0.0) for candidate in roster.present if id(candidate) not in before]

    def decide(
        self, context: RoutingContext, now: float, policy: Policy | None = None, arm: Arm | None = None
    ) -> RoutingDecision:
        """Choose a target for a request and reserve its slot there, in one step.

        Args:
            context: What is asked.
            now: Monotonic seconds.
            policy: Chooses instead of the one in force: an experiment's arm.
            arm: Whom to choose among, while anybody of it can serve.

        Raises:
            RequestError: No target meets the request's constraints; nothing is reserved.
            AllFullError: Every target that could be chosen has as many requests in flight as it may; nothing is
                reserved. Worth asking again when a decision has been finished.
        """
        with self._lock:
            rules, board = self._rules, self._roster.board
            if board is not None and now >= board.due:
                self._roster.look(now)
            asked = rules.applied_to(context) if rules.max_latency_ms else context
            decision = self._chooser.choose(asked, now, policy, arm)
            self._retrying.asked += 1
            return decision

    def again(
        self, earlier: Sequence[RoutingDecision], now: float, *, hedge: bool = False, lost: bool = False
    ) -> RoutingDecision | None:
        """Choose another target for a request that has been decided before, and reserve its slot there.

        Args:
            earlier: What was decided for the request so far, at least once; none of these targets is chosen again.
            now: Monotonic seconds.
            hedge: Whether the attempts so far may still succeed.
            lost: Whether the last of them is known to keep nobody busy, its target's process having ended: another
                one costs the fleet nothing more, and is granted without budget.

        Returns:
            The decision, to be finished like any other; None if the request must not be tried again, if no target is
            left that is loaded and takes another request, or if the retry budget is spent: nothing is reserved.
        """
        with self._lock:
            retrying = self._retrying
            obstacle = retrying.obstacle(earlier, hedge=hedge, lost=lost)
            if obstacle:
                retrying.refuse(obstacle)
                return None
            others = self._chooser.left_for(earlier, now)
            if not others:
                retrying.refuse("no_target")
                return None
            if not lost and not retrying.grants(now, hedge=hedge):
                return None
            return self._chooser.choose_again(earlier, others, now, "hedge" if hedge else "retry")

    def give_up(self, decision: RoutingDecision, now: float) -> None:
        """Count an attempt that is overdue as its target's failure. It still has to be finished: its slot stays."""
        with self._lock:
            self._consequences.of_giving_up(decision, now)

    def lose(self, decision: RoutingDecision, now: float) -> None:
        """Count an attempt as its target's failure and release its slot: the process that had it has ended.

        It still has to be finished: who waits for an answer of that process hears in the end that there is none.
        """
        with self._lock:
            self._consequences.of_giving_up(decision, now)
            self._roster.release(decision, now)

    def mark(self, target: str, problem: str, now: float, valid_s: float, *, takes_copies: bool = False) -> None:
        """Note what an active check has found.

        Args:
            target: Name of the target; one that is not known is passed over.
            problem: What keeps it from serving, in words; "" if it is well. It is left out until a check finds it well.
            now: Monotonic seconds.
            valid_s: Seconds after which the problem is forgotten, if no newer check confirms it.
            takes_copies: Whether copies of requests go on, because only its answers can show that the problem is over.
        """
        with self._lock:
            if target in self._roster.by_name:
                candidate = self._roster.by_name[target]
                self._watch.mark(candidate, problem, now, valid_s, takes_copies=takes_copies)

    def overdue_ms(self, decision: RoutingDecision) -> float:
        """Return after how long an attempt should be given up, in milliseconds from its decision."""
        with self._lock:
            return self._retrying.overdue_ms(decision.candidate.profile, decision.expected_latency_ms)

    def hedge_after_ms(self, decision: RoutingDecision) -> float:
        """Return after how long a request should be hedged, in milliseconds from its decision; 0 for never."""
        if not self._retrying.rules.hedges or decision.context.pinned or len(self._chooser.open) == 1:
            return 0.0
        with self._lock:
            return self._retrying.hedge_after_ms(decision.candidate.profile, decision.expected_latency_ms)

    def retry_counts(self, now: float) -> dict[str, float]:
        """Return the retries at hand (``left``), and the attempts that were not granted, by why."""
        with self._lock:
            return {"left": self._retrying.left(now), **self._retrying.refused}

    def finish(self, decision: RoutingDecision, outcome: Outcome, now: float) -> None:
        """Release the slot and learn. To be called exactly once for each decision, however the request ended."""
        with self._lock:
            self._consequences.of_end(decision, outcome, now)

    def mirror(self, decision: RoutingDecision) -> RoutingDecision | None:
        """Choose a target for a copy of a decided request, to learn from, if the budget allows; usually None.

        Nobody waits for the copy's answer, so that learning about a target that nothing else would choose costs no
        client its time. The slot is reserved like any other, and the decision to be finished.

        Args:
            decision: What was decided for the request itself.
        """
        context = decision.context
        if not self._mirrors.is_open or not context.may_explore or context.is_constrained:
            return None
        with self._lock:
            return self._copies.to_learn(decision)

    def copy(self, decision: RoutingDecision, target: str, now: float) -> RoutingDecision | None:
        """Reserve a slot for a copy of a decided request at a target, which may be one that gets nothing else.

        The decision's reason is ``shadow``; it is to be finished like any other, and counts as no client's request.

        Args:
            decision: What was decided for the request itself.
            target: Name of the copy's target.
            now: Monotonic seconds.

        Returns:
            None if there is no such target, if it serves the request itself, or if it is in no state to be tried.
        """
        with self._lock:
            return self._copies.to_compare(decision, target, now)

    def explain(
        self, context: RoutingContext, now: float, policy: Policy | None = None, arm: Arm | None = None
    ) -> Explanation:
        """Return what `decide` would do and why; nothing is reserved, counted or learned."""
        with self._lock:
            return self._chooser.explain(self._rules.applied_to(context), now, policy, arm)

    def snapshot(self, now: float) -> list[TargetSnapshot]:
        """Return every target as it stands; last those that have been removed since the model was loaded."""
        with self._lock:
            self._learner.learn(now)
            self._roster.look(now)
            self._watch.settle(now)
            # So that the budget knows of the latest traffic when it is asked.
            self._retrying.left(now)
            return [
                *(snapshot_of(candidate, now) for candidate in self._roster.present),
                *(snapshot_of(candidate, now, removed=True) for candidate in self._roster.removed),
            ]

    def state(self, now: float) -> dict[str, dict[str, object]]:
        """Return what was learned, by the name of the target, to be written down and read by `TargetProfile`."""
        with self._lock:
            self._learner.learn(now)
            return {candidate.target.name: candidate.profile.state() for candidate in self._roster.present}

    def share(self, board: LoadBoard | None) -> None:
        """Post load and answers on a board from now on and count the peers' load there; None to end that."""
        with self._lock:
            self._learner.board = board
            self._roster.share(board)

    def hear(self, answers: Iterable[PeerAnswer]) -> None:
        """Learn from answers that peers were given."""
        with self._lock:
            if not self._rules.learn:
                return
            for answer in answers:
                for candidate in self._roster.peers.named(answer.target):
                    peers.learn(candidate, answer)
                    candidate.confidence = self._learner.confidence(candidate)

    def sole_busy(self, backend: Backend) -> str:
        """Return the name of the only target of a backend with requests in flight; "" if there is none, or several."""
        with self._lock:
            return self._roster.sole_busy(backend)

    def record_power(self, target: str, watts: float) -> None:
        """Learn from one reading of the power meter of a target's device, on which it alone was at work."""
        with self._lock:
            self._roster.by_name[target].profile.record_power(watts)

    def curve(self, target: str, work: float, rows: float) -> tuple[float, float]:
        """Return what a call of a target costs whatever it carries, and what this work adds, in milliseconds."""
        with self._lock:
            return self._roster.by_name[target].profile.fixed_and_marginal(work, rows)

    def _apply(self, policy: Policy, rules: RoutingRules) -> None:
        self._policy, self._rules = policy, rules
        self._retrying.go_by(rules.resilience)
        self._chooser.go_by(policy, rules, self._roles)
        self._watch.admit(self._chooser.open, rules.resilience.health)
        self._mirrors.share = self._chooser.mirror_share
        self._learner.warmup = rules.warmup
        self._consequences.learns = rules.learn
        self._roster.go_by(rules)
        for candidate in self._roster.present:
            candidate.is_proven = candidate.profile.is_proven
            candidate.confidence = self._learner.confidence(candidate)
            candidate.health.most_pause_s = JUDGED_PAUSE_S if candidate.target.name in self._roles.judged else inf
