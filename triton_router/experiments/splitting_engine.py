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
    """Decides each request by the policy of its arm; all arms learn together.

    Args:
        targets: See `RoutingEngine`.
        routing: Policy and rules in force for the model.
        split: The experiment.
        model: Name of the routed model.
        rng: Uniform numbers in [0, 1).
        log_propensities: Whether each decision carries its probability within its arm.
    """

    def __init__(
        self,
        targets: Iterable[tuple[Target, TargetProfile]],
        routing: tuple[Policy, RoutingRules],
        split: Split,
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

    def decide(self, context: RoutingContext, now: float, policy: Policy | None = None) -> RoutingDecision:
        """See `RoutingEngine.decide`."""
        if policy is None:
            key = context.key
            if not key:
                with self._numbered:
                    key = f"#{self._number}"
                    self._number += 1
            policy = self._policy_for_key(key)
        return super().decide(context, now, policy)

    def explain(self, context: RoutingContext, now: float, policy: Policy | None = None) -> Explanation:
        """See `RoutingEngine.explain`: by the policy of the request's arm; without a key, that of the next request."""
        return super().explain(context, now, policy or self._policy_for_key(context.key or f"#{self._number}"))

    def _policy_for_key(self, key: str) -> Policy:
        return self._split.policy_of(self._split.arm_of(self._model, key))
