"""An engine whose requests take part in an experiment."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from triton_router.routing.engine import RoutingEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from triton_router.experiments.split import Split
    from triton_router.profiling.profile import TargetProfile
    from triton_router.routing.explanation import Explanation
    from triton_router.routing.policies import Policy
    from triton_router.routing.rules import RoutingRules
    from triton_router.routing.types import RoutingContext, RoutingDecision, Target


class SplittingEngine(RoutingEngine):
    """Decides each request by the policy of its arm, while there is an experiment; all arms learn together.

    Args:
        targets: See `RoutingEngine`.
        routing: Policy and rules in force for the model.
        split: The experiment, or None.
        model: Name of the routed model.
        rng: Uniform numbers in [0, 1).
        log_propensities: Whether each decision carries its probability within its arm.
    """

    def __init__(
        self,
        targets: Iterable[tuple[Target, TargetProfile]],
        routing: tuple[Policy, RoutingRules],
        split: Split | None,
        model: str,
        *,
        rng: Callable[[], float],
        log_propensities: bool = False,
    ) -> None:
        super().__init__(targets, routing[0], rng=rng, rules=routing[1], log_propensities=log_propensities)
        self._split = split
        self._model = model
        self._numbered = Lock()
        self._number = 0

    def split_by(self, split: Split | None) -> None:
        """Go on with another experiment, or (None) without one."""
        self._split = split

    def decide(self, context: RoutingContext, now: float, policy: Policy | None = None) -> RoutingDecision:
        """See `RoutingEngine.decide`."""
        split = self._split
        if policy is None and split is not None:
            key = context.key
            if not key:
                with self._numbered:
                    key = f"#{self._number}"
                    self._number += 1
            policy = split.policy_of(split.arm_of(self._model, key))
        return super().decide(context, now, policy)

    def explain(self, context: RoutingContext, now: float, policy: Policy | None = None) -> Explanation:
        """See `RoutingEngine.explain`: by the policy of the request's arm; without a key, that of the next request."""
        split = self._split
        if policy is None and split is not None:
            policy = split.policy_of(split.arm_of(self._model, context.key or f"#{self._number}"))
        return super().explain(context, now, policy)
