"""An engine whose requests take part in an experiment with policies, in a rollout, or in both."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from triton_router.experiments.ab_results import Experiment
from triton_router.experiments.rollout import Rollout
from triton_router.experiments.rollout_evidence import read_peers
from triton_router.experiments.rollout_plan import ENDED, PROMOTED, ROLLED_BACK
from triton_router.experiments.split import Arm as Side
from triton_router.experiments.split import Assignment
from triton_router.experiments.tally import Tally
from triton_router.routing.arms import Arm, Roles
from triton_router.routing.engine import RoutingEngine
from triton_router.routing.types import OptimizationGoal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from triton_router.experiments.rollout_plan import RolloutPlan, Transition
    from triton_router.experiments.split import Split
    from triton_router.profiling.profile import TargetProfile
    from triton_router.routing.explanation import Explanation
    from triton_router.routing.policies import Policy
    from triton_router.routing.rules import RoutingRules
    from triton_router.routing.types import RoutingContext, RoutingDecision, Target, Witness

_NO_WISH = OptimizationGoal.BALANCED
_SHADOW = "a shadow, which gets copies only"


@dataclass(frozen=True, slots=True)
class Trials:
    """What a model's requests take part in.

    Attributes:
        split: An experiment with policies, or None.
        plan: What is wanted of a rollout, or None.
        shadow: Name of the target that gets copies only, or "".
    """

    split: Split | None = None
    plan: RolloutPlan | None = None
    shadow: str = ""


class _UnderWay(NamedTuple):
    """What a decision has to look at. It is replaced as a whole: reading it takes no lock.

    Attributes:
        experiment: The experiment with what was seen of it, or None.
        rollout: The rollout, if it divides requests now; else None.
        canary, stable: Its arms.
    """

    experiment: Experiment | None
    rollout: Rollout | None
    canary: Arm
    stable: Arm


class SplittingEngine(RoutingEngine):
    """Decides each request by its arms, while there is an experiment or a rollout; all arms learn together.

    What a request's caller stays with is its context's ``key``; requests without one are numbered. The outcomes of
    first attempts are evidence. What follows in a sequence is none: nobody assigned it. And a request counts for a
    rollout only where both arms had a target that could serve it: otherwise it was no matter of chance who did.

    Args:
        targets: See `RoutingEngine`.
        routing: Policy and rules in force for the model.
        trials: What its requests take part in.
        model: Name of the routed model.
        rng: Uniform numbers in [0, 1).
        log_propensities: Whether each decision carries its probability within its arms.

    Attributes:
        wants_keys: Whether it matters what a request's caller stays with.
    """

    def __init__(
        self,
        targets: Iterable[tuple[Target, TargetProfile]],
        routing: tuple[Policy, RoutingRules],
        trials: Trials,
        model: str,
        *,
        rng: Callable[[], float],
        log_propensities: bool = False,
    ) -> None:
        self._model = model
        self._numbers = count()
        self._number = -1
        self._shadow = trials.shadow
        self._experiment = Experiment(trials.split) if trials.split is not None else None
        self._rollout = Rollout(trials.plan) if trials.plan is not None else None
        self._under_way: _UnderWay | None = None
        # Without labels: they are no arms of their own.
        self._served = Tally(), Tally()
        self._treated = {Side.CONTROL: Tally(), Side.TREATMENT: Tally()}
        super().__init__(targets, routing[0], rng=rng, rules=routing[1], log_propensities=log_propensities)

    @property
    def counted(self) -> dict[str, Tally]:
        """What this process has seen of each arm, whichever rollouts and experiments there were; for metrics."""
        canary, stable = self._served
        return {"canary": canary, "stable": stable, **self._treated}

    def _roles_now(self) -> Roles:
        """Return what the targets are there for, as the trials have it."""
        barred = {self._shadow: _SHADOW} if self._shadow else {}
        rollout = self._rollout
        if rollout is None:
            return Roles(barred)
        canary, stable = _arms(rollout)
        if rollout.phase == PROMOTED:
            return Roles(barred, canary)
        if rollout.share > 0.0 and rollout.plan.gate.rollback:
            return Roles(barred, stable, rollout.plan.canary)
        if rollout.share <= 0.0:
            why = "rolled it back" if rollout.phase == ROLLED_BACK else "gives it no requests"
            barred |= dict.fromkeys(rollout.plan.canary, f"rollout {rollout.plan.id} {why}")
        return Roles(barred, stable)

    def follow(self, trials: Trials, now: float) -> list[Transition]:
        """Go on with other trials; what was observed stays, as far as they are the same.

        Targets serve as before until `reconfigure` is called, which is to come next.

        Args:
            trials: From now on.
            now: Wall clock, seconds.

        Returns:
            What has changed of the rollout that goes on, or how the one ended that nothing is wanted of any more.
        """
        with self._lock:
            self._shadow = trials.shadow
            if trials.split is None:
                self._experiment = None
            elif self._experiment is None:
                self._experiment = Experiment(trials.split)
            else:
                self._experiment.follow(trials.split)
            plan, rollout = trials.plan, self._rollout
            changes: list[Transition] = []
            if plan is None:
                if rollout is not None:
                    changes = [rollout.remove(now)]
                self._rollout = None
            elif rollout is None or rollout.plan.id != plan.id:
                self._rollout = Rollout(plan)
            elif rollout.plan != plan:
                changes = rollout.follow(plan, now)
            self._look_again()
            return changes

    def resume(self, *, rollout: object = None, experiment: object = None) -> None:
        """Go on from where another process was, from the next `step` or `reconfigure` on.

        Args:
            rollout: As `rollout_state` gave it; None for nothing.
            experiment: As `experiment_state` gave it; likewise.

        Raises:
            ValueError: It is of another rollout or experiment, or not valid; that one begins anew.
        """
        with self._lock:
            if rollout is not None and self._rollout is not None:
                self._rollout = Rollout.from_state(self._rollout.plan, rollout)
            if experiment is not None and self._experiment is not None:
                self._experiment = Experiment.from_state(self._experiment.split, experiment)
            self._look_again()

    def step(self, now: float, peers: Sequence[object] = ()) -> list[Transition]:
        """Judge the canary, give it more, less or as many requests, and have the experiment know the time.

        Args:
            now: Wall clock, seconds.
            peers: The states of the same rollout at other instances.

        Returns:
            What has changed.
        """
        rollout = self._rollout
        plan = rollout.plan if rollout is not None else None
        # Before the lock is taken: meanwhile no request can be decided.
        read = read_peers(plan, peers) if plan is not None else ()
        with self._lock:
            if self._experiment is not None:
                self._experiment.tick(now)
            rollout = self._rollout
            is_same = rollout is not None and rollout.plan is plan
            changes = rollout.step(now, read if is_same else peers) if rollout is not None else []
            if self._roles != self._roles_now():
                self._apply(self._policy, self._rules)
            elif changes:
                self._look_again()
            return changes

    @property
    def canary(self) -> frozenset[str]:
        """Names of the canaries whose answers the rollout wants to be compared with stable's now; none for none."""
        rollout = self._rollout
        if rollout is None or rollout.phase in ENDED or rollout.plan.gate.max_mismatch >= 1.0:
            return frozenset()
        return rollout.plan.canary

    def note_parity(self, agrees: bool) -> None:
        """Note that a canary's answer was compared with that of a stable target, and whether they agree."""
        with self._lock:
            if self._rollout is not None:
                self._rollout.note_parity(agrees)

    def rollout_state(self) -> dict[str, object] | None:
        """Return the rollout's state, to be written down; None if there is no rollout."""
        with self._lock:
            return self._rollout.state() if self._rollout is not None else None

    def rollout_report(self, now: float) -> dict[str, object] | None:
        """Return how the rollout stands at ``now`` (wall clock, seconds), for people and metrics."""
        with self._lock:
            return self._rollout.report(now) if self._rollout is not None else None

    def experiment_state(self) -> dict[str, object] | None:
        """Return the experiment's evidence, to be written down; None if there is no experiment."""
        with self._lock:
            return self._experiment.state() if self._experiment is not None else None

    def experiment_report(self, now: float, peers: Sequence[object] = ()) -> dict[str, object] | None:
        """Return the experiment's results as of ``now`` (wall clock, seconds), those of ``peers`` included."""
        with self._lock:
            experiment = self._experiment.copy() if self._experiment is not None else None
        return experiment.report(now, peers) if experiment is not None else None

    def decide(
        self, context: RoutingContext, now: float, policy: Policy | None = None, arm: Arm | None = None
    ) -> RoutingDecision:
        """See `RoutingEngine.decide`."""
        under_way = self._under_way
        if under_way is None or policy is not None or context.pinned:
            return super().decide(context, now, policy, arm)
        experiment, rollout, canary, stable = under_way
        key = context.key
        if not key:
            self._number = number = next(self._numbers)
            key = f"#{number}"
        witnesses: tuple[Witness, ...] = ()
        judges: tuple[Witness, ...] = ()
        if experiment is not None:
            side = experiment.split.arm_of(self._model, key)
            policy = experiment.split.policy_of(side)
            if context.optimization_goal is _NO_WISH:
                witnesses = (experiment.witness_of(side), self._treated[side])
        if rollout is None:
            decision = super().decide(context, now, policy, arm)
        else:
            is_stable = not rollout.is_canary(key)
            tally = (rollout.canary, rollout.stable)[is_stable]
            arm = stable if is_stable else canary
            decision = super().decide(context, now, policy, arm)
            if arm.divides(decision.rejections):
                judges = (tally, self._served[is_stable])
        decision.witnesses, decision.judges = witnesses, judges
        return decision

    def explain(
        self, context: RoutingContext, now: float, policy: Policy | None = None, arm: Arm | None = None
    ) -> Explanation:
        """See `RoutingEngine.explain`: by the request's arms; without a key, those of the next request."""
        under_way = self._under_way
        if under_way is None or policy is not None or context.pinned:
            return super().explain(context, now, policy, arm)
        experiment, rollout, canary, stable = under_way
        key = context.key or f"#{self._number + 1}"
        arms: list[str] = []
        if experiment is not None:
            side = experiment.split.arm_of(self._model, key)
            policy = experiment.split.policy_of(side)
            arms.append(experiment.witness_of(side).label)
        if rollout is not None:
            is_canary = rollout.is_canary(key)
            arm = canary if is_canary else stable
            arms.append((rollout.canary if is_canary else rollout.stable).label)
        return replace(super().explain(context, now, policy, arm), arms=tuple(arms))

    def _apply(self, policy: Policy, rules: RoutingRules) -> None:
        self._look_again()
        self._roles = self._roles_now()
        super()._apply(policy, rules)

    def _look_again(self) -> None:
        """Have decisions see what the trials have become."""
        experiment, rollout = self._experiment, self._rollout
        if rollout is not None and (rollout.phase in ENDED or rollout.share <= 0.0):
            rollout = None
        canary, stable = _arms(rollout) if rollout is not None else (_NOBODY, _NOBODY)
        nothing = experiment is None and rollout is None
        self._under_way = None if nothing else _UnderWay(experiment, rollout, canary, stable)
        by_request = experiment is not None and experiment.split.assignment is Assignment.REQUEST
        self.wants_keys = by_request or (rollout is not None and rollout.share < 1.0)


_NOBODY = Arm(frozenset(), is_inside=True, reason="")


def _arms(rollout: Rollout) -> tuple[Arm, Arm]:
    """Return a rollout's canaries and all others."""
    reason = f"in the other arm of rollout {rollout.plan.id}"
    names = rollout.plan.canary
    return Arm(names, is_inside=True, reason=reason), Arm(names, is_inside=False, reason=reason)
