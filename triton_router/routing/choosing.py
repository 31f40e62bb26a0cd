"""Choosing: the settings in force, applied to the targets and what is known of them.

The order of the steps: who can be chosen at all, what the request demands, who is in a state to serve, which arm the
request is in, what the rules and the policy filter, the latency bound; then the policy rates whoever is left and picks
one.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from triton_router.errors import AllFullError, RequestError
from triton_router.routing import filters, selection
from triton_router.routing.arms import within
from triton_router.routing.explanation import explained
from triton_router.routing.policies import policy_named
from triton_router.routing.types import OptimizationGoal, Rejection

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from triton_router.routing.arms import Arm, Roles
    from triton_router.routing.explanation import Explanation
    from triton_router.routing.health_watch import HealthWatch
    from triton_router.routing.policies import Policy
    from triton_router.routing.protocols import Candidate, Filter
    from triton_router.routing.retrying import Retrying
    from triton_router.routing.roster import Roster
    from triton_router.routing.rules import RoutingRules
    from triton_router.routing.types import RoutingContext, RoutingDecision

_NO_WISH = OptimizationGoal.BALANCED
_GOALS = {goal: policy_named(goal) for goal in OptimizationGoal if goal is not _NO_WISH}


class Chooser:
    """Chooses among the targets of one engine; under its lock. `go_by` comes before anything else.

    Args:
        roster: The targets.
        watch: How they are.
        retrying: What may be risked at those that may fail.
        rng: Uniform numbers in [0, 1).
        log_propensities: Whether each decision carries its probability.

    Attributes:
        open: The targets that can be chosen, in the order of the configuration.
        mirror_share: Time that copies may take, as a share of the time spent serving; 0 for no copies.
        yardstick: The target by whose expected latency that of the others is measured, whatever a request asks.
    """

    __slots__ = (
        "_barred",
        "_least_cap",
        "_log_propensities",
        "_policy",
        "_retrying",
        "_rng",
        "_roster",
        "_rule_filters",
        "_rules",
        "_steady",
        "_watch",
        "mirror_share",
        "open",
        "yardstick",
    )

    def __init__(
        self,
        roster: Roster,
        watch: HealthWatch,
        retrying: Retrying,
        *,
        rng: Callable[[], float],
        log_propensities: bool,
    ) -> None:
        self._roster = roster
        self._watch = watch
        self._retrying = retrying
        self._rng = rng
        self._log_propensities = log_propensities

    def go_by(self, policy: Policy, rules: RoutingRules, roles: Roles) -> None:
        """Choose by these from now on."""
        steady, unfit = roles.steady, roles.barred
        present = {candidate.target.name: candidate for candidate in self._roster.present}
        excluded = [name for name, c in present.items() if c.target.backend in rules.excluded_backends]
        reasons = dict.fromkeys(excluded, "backend excluded")
        reasons.update((name, reason) for name, reason in unfit.items() if name in present)
        self._barred = [Rejection(present[name].target, reason) for name, reason in reasons.items()]
        self.open = [candidate for name, candidate in present.items() if name not in reasons]
        usual = [candidate for candidate in self.open if steady is None or steady.has(candidate.target.name)]
        self.yardstick = next(iter(usual or self.open or present.values()))
        self._steady = steady
        self._policy = policy
        self._rules = rules
        # Below it nobody can be full: what costs two counts saves looking at every target.
        self._least_cap = min(rules.resilience.caps.values(), default=inf)
        mirrors = policy.learns and rules.learn and len(self.open) > 1 and rules.resilience.idempotent
        self.mirror_share = rules.mirror if mirrors else 0.0
        self._rule_filters = _filters_of(rules, mirrors=self.mirror_share > 0.0)

    def choose(
        self, context: RoutingContext, now: float, policy: Policy | None, arm: Arm | None = None
    ) -> RoutingDecision:
        """Choose a target for a request, to whose context the rules are applied, and reserve its slot there.

        Raises what `RoutingEngine.decide` raises.
        """
        work = context.work or context.counted_work()
        if not self._watch.all_well:
            self._watch.settle(now)
        if context.pinned:
            # Whatever its cap: what comes next in a sequence cannot wait for other requests, nor go elsewhere.
            return self._without_choice((context, work), self._roster.holder_of(context), "sequence")
        if len(self.open) == 1 and not context.is_constrained:
            only = self.open[0]
            if full := filters.full(context, (only,), now):
                raise _full([Rejection(candidate.target, reason) for candidate, reason in full])
            return self._without_choice((context, work), only, "only")
        policy = self._policy_for(context, policy)
        kept, rejections, reason = self._considered(context, work, now, (policy, arm or self._steady), self.open)
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
        decision = self._roster.reserve((context, work), kept[index], reason, policy)
        decision.propensity = propensity
        if self._rules.fallback:
            decision.rated = [(candidate, candidate.score, candidate.expected_latency_ms) for candidate in kept]
        else:
            chosen = kept[index]
            decision.rated = [(chosen, chosen.score, chosen.expected_latency_ms)]
        if rejections or self._barred:
            decision.rejections = [*self._barred, *rejections]
        return decision

    def left_for(self, earlier: Sequence[RoutingDecision], now: float) -> list[Candidate]:
        """Return who could take a request over: not tried for it yet, able to serve, and not full."""
        tried = {id(decision.candidate) for decision in earlier}
        left = [c for c in self.open if id(c) not in tried and c.in_flight < c.cap and not c.health.is_marked(now)]
        return selection.constrained(earlier[0].context, left, now)[0] if left else left

    def choose_again(
        self, earlier: Sequence[RoutingDecision], others: list[Candidate], now: float, reason: str
    ) -> RoutingDecision:
        """Choose one of the ``others``, of whom there is one at least, for a request that was decided ``earlier``."""
        first = earlier[0]
        context, work = first.context, first.work
        policy = first.chooser or self._policy_for(context, None)
        kept, rejections, _ = self._considered(context, work, now, (policy, self._steady), others)
        # Where its last answer was a failure, too, the request may well fail again.
        kept = [candidate for candidate in kept if not candidate.health.consecutive_failures] or kept
        selection.rate(context, kept, policy)
        chosen = kept[policy.picker.pick(kept, self._rng)]
        chosen.retried += reason == "retry"
        chosen.hedged += reason == "hedge"
        decision = self._roster.reserve((context, work), chosen, reason, policy)
        decision.attempt = len(earlier) + 1
        # Of the targets that the policy would have chosen among, some were taken away from it: it has no propensity.
        decision.propensity = 0.0
        decision.rated = [(candidate, candidate.score, candidate.expected_latency_ms) for candidate in kept]
        decision.rejections = rejections
        return decision

    def explain(
        self, context: RoutingContext, now: float, policy: Policy | None, arm: Arm | None = None
    ) -> Explanation:
        """Return what `choose` would do and why; nothing is reserved or counted."""
        policy = self._policy_for(context, policy)
        by = (policy, arm or self._steady)
        kept, rejections, reason = self._considered(context, context.counted_work(), now, by, self.open)
        chances: list[float] = []
        if kept:
            selection.rate(context, kept, policy)
            chances = selection.probabilities(context, kept, policy, self._explores(context, policy, reason))
        rejected = [*self._barred, *rejections]
        return explained(self._roster.present, kept, rejected, policy, reason, (context, chances))

    def _policy_for(self, context: RoutingContext, policy: Policy | None) -> Policy:
        if context.optimization_goal is not _NO_WISH:
            return _GOALS[context.optimization_goal]
        return policy or self._policy

    def _explores(self, context: RoutingContext, policy: Policy, reason: str) -> float:
        rules = self._rules
        return rules.explore if policy.learns and rules.learn and context.may_explore and reason == "policy" else 0.0

    def _considered(
        self,
        context: RoutingContext,
        work: float,
        now: float,
        by: tuple[Policy, Arm | None],
        able: list[Candidate],
    ) -> tuple[list[Candidate], list[Rejection], str]:
        """Return who of the ``able`` is left to choose from, who is not, and the reason if it is an unusual one."""
        policy, arm = by
        selection.predict(able, work, context.batch_size)
        if self._rules.max_backend_utilization:
            self._roster.settle_devices(now)
        rejections: list[Rejection] = []
        if context.is_constrained:
            able, rejections = selection.constrained(context, able, now)
        if not able:
            return able, rejections, "refused"
        kept, reason = able, "policy"
        if not self._watch.all_well or (self._roster.in_flight >= self._least_cap and filters.full(context, able, now)):
            kept, reason = self._in_a_state_to_serve(context, able, now, rejections)
            if not kept:
                return kept, rejections, reason
        if arm is not None:
            kept = within(arm, kept, rejections, otherwise=self._steady)
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
        kept, resting, in_panic = self._watch.sort(able, now, self._retrying.risk(now))
        rejections.extend(Rejection(candidate.target, why) for candidate, why in resting)
        if self._roster.in_flight >= self._least_cap:
            kept = selection.without(filters.full(context, kept, now), kept, rejections)
        return kept, "full" if not kept else "panic" if in_panic else "policy"

    def _without_choice(
        self, asked: tuple[RoutingContext, float], candidate: Candidate, reason: str
    ) -> RoutingDecision:
        context, work = asked
        selection.predict((candidate,), work, context.batch_size)
        candidate.score = 1.0
        decision = self._roster.reserve(asked, candidate, reason, None)
        decision.rated = [(candidate, 1.0, candidate.expected_latency_ms)]
        decision.rejections = self._barred
        return decision


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
