"""The routing engine of one routed model: decides, reserves, and learns from what happened.

Pure: the caller passes the time and a source of random numbers. Safe to call from several threads.
"""

from __future__ import annotations

from math import inf
from threading import Lock
from typing import TYPE_CHECKING

from triton_router.errors import AllFullError, RequestError
from triton_router.routing import filters, membership, peers, selection
from triton_router.routing.explanation import Explanation, explained
from triton_router.routing.health_watch import HealthWatch
from triton_router.routing.learning import Learner
from triton_router.routing.mirroring import Mirroring
from triton_router.routing.policies import policy_named
from triton_router.routing.retrying import Retrying
from triton_router.routing.rules import RoutingRules
from triton_router.routing.snapshot import TargetSnapshot, snapshot_of
from triton_router.routing.types import (
    Backend,
    OptimizationGoal,
    Outcome,
    Rejection,
    RoutingContext,
    RoutingDecision,
    Target,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from triton_router.profiling.profile import TargetProfile
    from triton_router.routing.peers import LoadBoard, PeerAnswer
    from triton_router.routing.policies import Policy
    from triton_router.routing.protocols import Candidate, Filter

_DEFAULT_RULES = RoutingRules()
_NO_WISH = OptimizationGoal.BALANCED
_GOALS = {goal: policy_named(goal) for goal in OptimizationGoal if goal is not _NO_WISH}


class RoutingEngine:
    """Chooses among the targets of one routed model.

    Args:
        targets: Each with its profile, seeded or fresh. At least one; names are unique.
        policy: How to choose, unless a request has a wish of its own.
        rng: Uniform numbers in [0, 1).
        rules: What holds whatever the policy.
        barred: Targets that can never serve, by name, and why.
        log_propensities: Whether each decision carries its probability; takes a few microseconds.
    """

    def __init__(
        self,
        targets: Iterable[tuple[Target, TargetProfile]],
        policy: Policy,
        *,
        rng: Callable[[], float],
        rules: RoutingRules = _DEFAULT_RULES,
        barred: Mapping[str, str] | None = None,
        log_propensities: bool = False,
    ) -> None:
        self._all: list[Candidate] = []
        self._departed: list[Candidate] = []
        self._board: LoadBoard | None = None
        self._peers = peers.Peers()
        self._admit(targets, ())
        self._unfit = dict(barred or {})
        self._rng = rng
        self._log_propensities = log_propensities
        self._lock = Lock()
        self._mirrors = Mirroring()
        self._learner = Learner(self._mirrors.suspect)
        self._watch = HealthWatch(rng)
        self._retrying = Retrying(rules.resilience)
        self._asked = 0
        self._in_flight = 0
        self._apply(policy, rules)

    def reconfigure(
        self,
        policy: Policy,
        rules: RoutingRules,
        targets: Sequence[tuple[Target, TargetProfile]] = (),
        *,
        kept: Collection[str] = (),
        adjust: Callable[[str, TargetProfile], None] | None = None,
    ) -> list[TargetSnapshot]:
        """Choose by another policy and other rules from now on. What is in flight, counted and learned stays.

        Args:
            policy: As for a new engine.
            rules: Likewise.
            targets: Those to choose among from now on; none for the present ones. One that is removed gets no new
                request but those of sequences that it holds, and finishes what it has in flight.
            kept: Names of the targets whose known profile stays; the others begin with the one passed.
            adjust: Is called with the name and the profile of each target, while nothing is learned.

        Returns:
            The targets that were not there before, as they begin.
        """
        with self._lock:
            before = {id(candidate) for candidate in self._all}
            if targets:
                self._learner.learn(self._learner.learned_at)
                self._admit(targets, kept)
            if adjust is not None:
                for candidate in self._all:
                    adjust(candidate.target.name, candidate.profile)
            self._apply(policy, rules)
            return [snapshot_of(candidate, 0.0) for candidate in self._all if id(candidate) not in before]

    def decide(self, context: RoutingContext, now: float, policy: Policy | None = None) -> RoutingDecision:
        """Choose a target for a request and reserve its slot there, in one step.

        Args:
            context: What is asked.
            now: Monotonic seconds.
            policy: Chooses instead of the one in force: an experiment's arm.

        Raises:
            RequestError: No target meets the request's constraints; nothing is reserved.
            AllFullError: Every target that could be chosen has as many requests in flight as it may; nothing is
                reserved. Worth asking again when a decision has been finished.
        """
        with self._lock:
            rules = self._rules
            board = self._board
            if board is not None and now >= board.due:
                self._look_at(board, now)
            decision = self._decide(rules.applied_to(context) if rules.max_latency_ms else context, now, policy)
            self._asked += 1
            return decision

    def again(self, earlier: Sequence[RoutingDecision], now: float, *, hedge: bool = False) -> RoutingDecision | None:
        """Choose another target for a request that has been decided before, and reserve its slot there.

        Args:
            earlier: What was decided for the request so far, at least once; none of these targets is chosen again.
            now: Monotonic seconds.
            hedge: Whether the attempts so far may still succeed.

        Returns:
            The decision, to be finished like any other; None if the request must not be tried again, if no target is
            left that is loaded and takes another request, or if the retry budget is spent: nothing is reserved.
        """
        with self._lock:
            retrying = self._retrying
            obstacle = retrying.obstacle(earlier, hedge=hedge)
            if obstacle:
                retrying.refuse(obstacle)
                return None
            others = self._left_for(earlier, now)
            if not others:
                retrying.refuse("no_target")
                return None
            grants = retrying.budget.take_for_hedge if hedge else retrying.budget.take
            if not grants(self._asked, now):
                retrying.refuse("hedge_share" if hedge else "budget")
                return None
            return self._decide_again(earlier, others, now, "hedge" if hedge else "retry")

    def give_up(self, decision: RoutingDecision, now: float) -> None:
        """Count an attempt that is overdue as its target's failure. It still has to be finished: its slot stays."""
        with self._lock:
            if decision.is_given_up:
                return
            decision.is_given_up = True
            candidate = decision.candidate
            candidate.failed += decision.reason != "mirror"
            candidate.profile.record_failure()
            self._watch.failed(decision, now)

    def mark(self, target: str, problem: str, now: float, valid_s: float) -> None:
        """Note what an active check has found.

        Args:
            target: Name of the target; one that is not known is passed over.
            problem: What keeps it from serving, in words; "" if it is well. It is left out until a check finds it well.
            now: Monotonic seconds.
            valid_s: Seconds after which the problem is forgotten, if no newer check confirms it.
        """
        with self._lock:
            if target in self._by_name:
                self._watch.mark(self._by_name[target], problem, now, valid_s)

    def overdue_ms(self, decision: RoutingDecision) -> float:
        """Return after how long an attempt should be given up, in milliseconds from its decision."""
        with self._lock:
            return self._retrying.overdue_ms(decision.candidate.profile, decision.expected_latency_ms)

    def hedge_after_ms(self, decision: RoutingDecision) -> float:
        """Return after how long a request should be hedged, in milliseconds from its decision; 0 for never."""
        if not self._retrying.rules.hedges or decision.context.pinned or len(self._open) == 1:
            return 0.0
        with self._lock:
            return self._retrying.hedge_after_ms(decision.candidate.profile, decision.expected_latency_ms)

    def retry_counts(self, now: float) -> dict[str, float]:
        """Return the retries at hand (``left``), and the attempts that were not granted, by why."""
        with self._lock:
            left = self._retrying.budget.left(self._asked, now)
            return {"left": left, **self._retrying.refused}

    def finish(self, decision: RoutingDecision, outcome: Outcome, now: float) -> None:
        """Release the slot and learn. To be called exactly once for each decision, however the request ended."""
        with self._lock:
            self._release(decision, outcome, now)
            candidate = decision.candidate
            # A copy teaches like any request, and is none that a client sent: it is counted as mirrored alone.
            asked = decision.reason != "mirror"
            if decision.is_given_up:
                # It was counted then. But how long an answer takes in the end should be known.
                if outcome.verdict is Verdict.SUCCESS:
                    self._learn(decision, outcome, now)
                return
            match outcome.verdict:
                case Verdict.SUCCESS:
                    candidate.succeeded += asked
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
                    candidate.needs_live_try |= not asked
                    self._watch.passed_over(decision)

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
            others = [c for c in self._open if c is not decision.candidate and self._watch.can_be_tried(c)]
            if self._mirrors.under_way:
                return None
            candidate = self._mirrors.choose(others, decision.work, context.batch_size, self._rng)
            if candidate is None:
                return None
            candidate.mirrored += 1
            selection.predict((candidate,), decision.work, context.batch_size)
            return self._reserve((context, decision.work), candidate, "mirror", decision.chooser)

    def explain(self, context: RoutingContext, now: float, policy: Policy | None = None) -> Explanation:
        """Return what `decide` would do and why; nothing is reserved, counted or learned."""
        with self._lock:
            context = self._rules.applied_to(context)
            policy = self._policy_for(context, policy)
            kept, rejections, reason = self._considered(context, context.counted_work(), now, policy, self._open)
            chances: list[float] = []
            if kept:
                selection.rate(context, kept, policy)
                chances = selection.probabilities(context, kept, policy, self._explores(context, policy, reason))
            rejected = [*self._barred, *rejections]
            return explained(self._all, kept, rejected, policy, reason, (context, chances))

    def snapshot(self, now: float) -> list[TargetSnapshot]:
        """Return every target as it stands; last those that have been removed since the model was loaded."""
        with self._lock:
            self._learner.learn(now)
            if self._board is not None:
                self._look_at(self._board, now)
            self._watch.settle(now)
            # So that the budget knows of the latest traffic when it is asked.
            self._retrying.budget.left(self._asked, now)
            names = {candidate.target.name for candidate in self._all}
            gone = {c.target.name: c for c in self._departed if c.target.name not in names}
            return [
                *(snapshot_of(candidate, now) for candidate in self._all),
                *(snapshot_of(candidate, now, removed=True) for candidate in gone.values()),
            ]

    def state(self, now: float) -> dict[str, dict[str, object]]:
        """Return what was learned, by the name of the target, to be written down and read by `TargetProfile`."""
        with self._lock:
            self._learner.learn(now)
            return {candidate.target.name: candidate.profile.state() for candidate in self._all}

    def share(self, board: LoadBoard | None) -> None:
        """Post load and answers on a board from now on and count the peers' load there; None to end that."""
        with self._lock:
            self._board = self._learner.board = board
            self._moor()

    def hear(self, answers: Iterable[PeerAnswer]) -> None:
        """Learn from answers that peers were given."""
        with self._lock:
            if not self._rules.learn:
                return
            for answer in answers:
                for candidate in self._peers.named(answer.target):
                    peers.learn(candidate, answer)
                    candidate.confidence = self._learner.confidence(candidate)

    def sole_busy(self, backend: Backend) -> str:
        """Return the name of the only target of a backend with requests in flight; "" if there is none, or several."""
        with self._lock:
            everyone = (*self._all, *self._departed)
            busy = [
                c.target.name for c in everyone if (c.in_flight or c.peers_in_flight) and c.target.backend is backend
            ]
        return busy[0] if len(busy) == 1 else ""

    def record_power(self, target: str, watts: float) -> None:
        """Learn from one reading of the power meter of a target's device, on which it alone was at work."""
        with self._lock:
            self._by_name[target].profile.record_power(watts)

    def curve(self, target: str, work: float, rows: float) -> tuple[float, float]:
        """Return what a call of a target costs whatever it carries, and what this work adds, in milliseconds."""
        with self._lock:
            return self._by_name[target].profile.fixed_and_marginal(work, rows)

    def _admit(self, targets: Iterable[tuple[Target, TargetProfile]], kept: Collection[str]) -> None:
        known = [*self._departed, *self._all]
        self._all = membership.candidates(targets, known=known, kept=kept)
        self._departed = membership.departed(known, self._all)
        everyone = [*self._departed, *self._all]
        self._by_name = {candidate.target.name: candidate for candidate in everyone}
        self._devices = membership.devices_of(everyone)
        self._peers.meet(self._all)
        self._moor()

    def _moor(self) -> None:
        self._peers.carry(())
        if self._board is not None:
            self._board.moor([*self._all, *self._departed])

    def _look_at(self, board: LoadBoard, now: float) -> None:
        loads = board.loads(now)
        if loads is not None:
            self._peers.carry(loads if self._rules.balance else ())

    def _apply(self, policy: Policy, rules: RoutingRules) -> None:
        present = {candidate.target.name for candidate in self._all}
        reasons = {c.target.name: "backend excluded" for c in self._all if c.target.backend in rules.excluded_backends}
        reasons.update((name, reason) for name, reason in self._unfit.items() if name in present)
        self._barred = [Rejection(self._by_name[name].target, reason) for name, reason in reasons.items()]
        self._open = [candidate for candidate in self._all if candidate.target.name not in reasons]
        self._policy = policy
        self._rules = rules
        self._retrying.go_by(rules.resilience)
        self._watch.admit(self._open, rules.resilience.health)
        # Below it nobody can be full: what costs two counts saves looking at every target.
        self._least_cap = min(rules.resilience.caps.values(), default=inf)
        self._learner.warmup = rules.warmup
        has_choice = len(self._open) > 1
        mirrors = policy.learns and rules.learn and has_choice and rules.resilience.idempotent
        self._mirrors.share = rules.mirror if mirrors else 0.0
        self._rule_filters = _filters_of(rules, mirrors=self._mirrors.share > 0.0)
        for device in self._devices:
            device.empty()
        for candidate in self._all:
            candidate.weight = rules.weight_of(candidate.target.backend)
            candidate.cap = rules.resilience.caps.get(candidate.target.name, inf)
            candidate.is_preferred = candidate.target.backend in rules.preferred_backends
            candidate.is_proven = candidate.profile.is_proven
            candidate.confidence = self._learner.confidence(candidate)
        for candidate in (*self._all, *self._departed):
            if rules.balance:
                candidate.count_in()

    def _policy_for(self, context: RoutingContext, policy: Policy | None) -> Policy:
        if context.optimization_goal is not _NO_WISH:
            return _GOALS[context.optimization_goal]
        return policy or self._policy

    def _holder_of(self, pinned: str) -> Candidate:
        holder = self._by_name.get(pinned)
        if holder is None:
            raise RequestError(
                f"target {pinned!r}, which holds this sequence's state, has been removed long ago",
                hint="begin the sequence anew",
            )
        return holder

    def _explores(self, context: RoutingContext, policy: Policy, reason: str) -> float:
        rules = self._rules
        return rules.explore if policy.learns and rules.learn and context.may_explore and reason == "policy" else 0.0

    def _decide(self, context: RoutingContext, now: float, policy: Policy | None) -> RoutingDecision:
        work = context.work or context.counted_work()
        if not self._watch.all_well:
            self._watch.settle(now)
        if context.pinned:
            # Whatever its cap: what comes next in a sequence cannot wait for other requests, nor go elsewhere.
            return self._without_choice((context, work), self._holder_of(context.pinned), "sequence")
        if len(self._open) == 1 and not context.is_constrained:
            only = self._open[0]
            if full := filters.full(context, (only,), now):
                raise _full([Rejection(candidate.target, reason) for candidate, reason in full])
            return self._without_choice((context, work), only, "only")
        policy = self._policy_for(context, policy)
        kept, rejections, reason = self._considered(context, work, now, policy, self._open)
        if not kept:
            raise (_full if reason == "full" else _refusal)([*self._barred, *rejections])
        selection.rate(context, kept, policy)
        index = policy.picker.pick(kept, self._rng)
        explore = self._explores(context, policy, reason)
        if explore and len(kept) > 1 and self._rng() < explore:
            other = (index + 1 + int(self._rng() * (len(kept) - 1))) % len(kept)
            if self._rng() < selection.acceptance(context, kept[other]):
                index, reason = other, "explore"
        # Before the slot is taken: the choice was made in the state without it.
        propensity = selection.probabilities(context, kept, policy, explore)[index] if self._log_propensities else 0.0
        decision = self._reserve((context, work), kept[index], reason, policy)
        decision.propensity = propensity
        if self._rules.fallback:
            decision.rated = [(candidate, candidate.score, candidate.expected_latency_ms) for candidate in kept]
        else:
            chosen = kept[index]
            decision.rated = [(chosen, chosen.score, chosen.expected_latency_ms)]
        if rejections or self._barred:
            decision.rejections = [*self._barred, *rejections]
        return decision

    def _left_for(self, earlier: Sequence[RoutingDecision], now: float) -> list[Candidate]:
        """Return who could take a request over: not tried for it yet, able to serve, and not full."""
        tried = {id(decision.candidate) for decision in earlier}
        left = [c for c in self._open if id(c) not in tried and c.in_flight < c.cap and not c.health.is_marked(now)]
        return selection.constrained(earlier[0].context, left, now)[0] if left else left

    def _decide_again(
        self, earlier: Sequence[RoutingDecision], others: list[Candidate], now: float, reason: str
    ) -> RoutingDecision:
        first = earlier[0]
        context, work = first.context, first.work
        policy = first.chooser or self._policy_for(context, None)
        kept, rejections, _ = self._considered(context, work, now, policy, others)
        # Where its last answer was a failure, too, the request may well fail again.
        kept = [candidate for candidate in kept if not candidate.health.consecutive_failures] or kept
        selection.rate(context, kept, policy)
        chosen = kept[policy.picker.pick(kept, self._rng)]
        chosen.retried += reason == "retry"
        chosen.hedged += reason == "hedge"
        decision = self._reserve((context, work), chosen, reason, policy)
        decision.attempt = len(earlier) + 1
        # Of the targets that the policy would have chosen among, some were taken away from it: it has no propensity.
        decision.propensity = 0.0
        decision.rated = [(candidate, candidate.score, candidate.expected_latency_ms) for candidate in kept]
        decision.rejections = rejections
        return decision

    def _considered(
        self, context: RoutingContext, work: float, now: float, policy: Policy, able: list[Candidate]
    ) -> tuple[list[Candidate], list[Rejection], str]:
        """Return who of the ``able`` is left to choose from, who is not, and the reason if it is an unusual one."""
        selection.predict(able, work, context.batch_size)
        if self._rules.max_backend_utilization:
            for device in self._devices:
                device.settle(now)
        rejections: list[Rejection] = []
        if context.is_constrained:
            able, rejections = selection.constrained(context, able, now)
            if not able:
                return able, rejections, "refused"
        kept, reason = able, "policy"
        if not self._watch.all_well or (self._in_flight >= self._least_cap and filters.full(context, able, now)):
            kept, reason = self._in_a_state_to_serve(context, able, now, rejections)
            if not kept:
                return kept, rejections, reason
        if self._rule_filters:
            kept = selection.filtered(context, kept, now, self._rule_filters, rejections)
        if self._rules.learn and policy.filters:  # otherwise every target of unknown speed would stay so
            kept = selection.filtered(context, kept, now, policy.filters, rejections)
        if not context.max_latency_ms:
            return kept, rejections, reason
        kept = selection.filtered(context, kept, now, (policy.late,), rejections)
        is_late = len(kept) == 1 and not policy.late.meets(kept[0], context.max_latency_ms)
        return kept, rejections, "late" if is_late and reason == "policy" else reason

    def _in_a_state_to_serve(
        self, context: RoutingContext, able: list[Candidate], now: float, rejections: list[Rejection]
    ) -> tuple[list[Candidate], str]:
        """Return who is well enough and has room, and the decision's reason so far; the others are rejected."""
        kept, resting, in_panic = self._watch.sort(able, now, self._retrying.risk(self._asked, now))
        rejections.extend(Rejection(candidate.target, why) for candidate, why in resting)
        if self._in_flight >= self._least_cap:
            kept = selection.without(filters.full(context, kept, now), kept, rejections)
        return kept, "full" if not kept else "panic" if in_panic else "policy"

    def _without_choice(
        self, asked: tuple[RoutingContext, float], candidate: Candidate, reason: str
    ) -> RoutingDecision:
        context, work = asked
        selection.predict((candidate,), work, context.batch_size)
        candidate.score = 1.0
        decision = self._reserve(asked, candidate, reason, None)
        decision.rated = [(candidate, 1.0, candidate.expected_latency_ms)]
        decision.rejections = self._barred
        return decision

    def _reserve(
        self, asked: tuple[RoutingContext, float], candidate: Candidate, reason: str, policy: Policy | None
    ) -> RoutingDecision:
        """Reserve a slot for what is asked: a context and its work."""
        context, work = asked
        self._in_flight += 1
        candidate.take(candidate.alone_ms, counted=self._rules.balance)
        candidate.chosen += reason != "mirror"
        if self._board is not None:
            self._board.post(candidate)
        decision = RoutingDecision(
            candidate.target,
            reason,
            policy,
            candidate.expected_latency_ms,
            candidate.alone_ms,
            candidate.confidence,
            1.0,
            context,
            work,
            candidate.load,
            (),
            candidate,
            (),
        )
        if not candidate.health.is_well:
            self._watch.reserved(decision)
        return decision

    def _release(self, decision: RoutingDecision, outcome: Outcome, now: float) -> None:
        candidate = decision.candidate
        if self._rules.max_backend_utilization:
            candidate.device.settle(now)
        self._in_flight -= 1
        candidate.release(decision.alone_ms, counted=self._rules.balance)
        if self._board is not None:
            self._board.post(candidate)
        if decision.reason == "mirror":
            self._mirrors.end(outcome.latency_ms)

    def _learn(self, decision: RoutingDecision, outcome: Outcome, now: float) -> None:
        if self._rules.learn:
            self._learn_figures(decision, outcome, now)
        if decision.reason == "mirror":
            self._mirrors.answered(decision.candidate, outcome.latency_ms, decision.expected_latency_ms)
        else:
            # What a request waits for others is no time in which it keeps its device busy.
            self._mirrors.earn(min(outcome.latency_ms, decision.alone_ms or outcome.latency_ms))

    def _learn_figures(self, decision: RoutingDecision, outcome: Outcome, now: float) -> None:
        device = decision.candidate.device
        alone = not (decision.load.in_flight or device.in_flight or device.peers_in_flight)
        self._learner.add(decision, outcome.latency_ms, now, alone=alone)
        if outcome.memory_mb:
            decision.candidate.profile.record_memory(outcome.memory_mb)
        if outcome.power_w:
            decision.candidate.profile.record_power(outcome.power_w)


def _filters_of(rules: RoutingRules, *, mirrors: bool) -> tuple[Filter, ...]:
    found: list[Filter] = []
    if mirrors:
        found.append(filters.unproven)
    if rules.max_backend_utilization and rules.balance:
        found.append(filters.Overloaded(rules.max_backend_utilization))
    if rules.fallback and rules.fallback_latency_ms:
        found.append(filters.Slow(rules.fallback_latency_ms))
    if rules.min_throughput:
        found.append(filters.Sluggish(rules.min_throughput))
    if rules.preferred_backends:
        found.append(filters.not_preferred)
    return tuple(found)


def _full(rejections: Sequence[Rejection]) -> AllFullError:
    reasons = "; ".join(f"{rejection.target.name}: {rejection.reason}" for rejection in rejections)
    return AllFullError(f"no target takes another request now ({reasons})", hint="wait until one is answered")


def _refusal(rejections: Sequence[Rejection]) -> RequestError:
    reasons = "; ".join(f"{rejection.target.name}: {rejection.reason}" for rejection in rejections)
    return RequestError(
        f"no target meets what the request demands ({reasons})",
        hint="loosen its constraints, or call a target directly",
    )
