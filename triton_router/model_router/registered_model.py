"""One registered model: its engine with a target on each backend, its profile and its counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_router.errors import RequestError, UnsupportedError
from triton_router.model_router.counts import ModelCounts
from triton_router.model_router.model_profile import ModelProfile
from triton_router.routing.arms import Roles
from triton_router.routing.capabilities import CAPABILITIES
from triton_router.routing.eligibility import ineligible
from triton_router.routing.engine import RoutingEngine
from triton_router.routing.types import Outcome, Target, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from triton_router.model_router.counts import Group
    from triton_router.routing.characteristics import ModelCharacteristics
    from triton_router.routing.policies import Policy
    from triton_router.routing.rules import RoutingRules
    from triton_router.routing.types import Backend, RoutingContext, RoutingDecision


class RegisteredModel:
    """A model as `ModelRouter` holds it; not safe to use from several threads.

    Args:
        name: The model.
        characteristics: What is known of it, checked, and its own.
        backends: Where it may run.
        routing: Policy and rules in force for it.
        history: How many of its latest answers count for quantiles.
        rng: Uniform numbers in [0, 1).

    Raises:
        UnsupportedError: No backend can run it.
    """

    def __init__(
        self,
        name: str,
        characteristics: ModelCharacteristics,
        backends: Sequence[Backend],
        routing: tuple[Policy, RoutingRules],
        *,
        history: int,
        rng: Callable[[], float],
    ) -> None:
        self.name = name
        self.profile = ModelProfile(name, characteristics)
        found = {backend: ineligible(characteristics, CAPABILITIES[backend]) for backend in backends}
        barred = {str(backend): reason for backend, reason in found.items() if reason}
        if len(barred) == len(backends):
            reasons = "; ".join(f"{backend}: {reason}" for backend, reason in barred.items())
            raise UnsupportedError(
                f"no backend can run model {name!r} ({reasons})",
                hint="initialize the router with another backend, or correct the model's characteristics",
            )
        targets = [(Target(str(backend), name, backend=backend), self.profile.on(backend)) for backend in backends]
        self.engine = RoutingEngine(targets, routing[0], rng=rng, rules=routing[1], roles=Roles(barred))
        self._able = frozenset({target.name for target, _ in targets} - barred.keys())
        self.counts = ModelCounts(history)
        self.profile.remember(history)
        self._groups: dict[RoutingDecision, Group] = {}

    def reconfigure(self, routing: tuple[Policy, RoutingRules], history: int) -> None:
        """Route otherwise from now on."""
        self.engine.reconfigure(*routing)
        self.counts.resize(history)
        self.profile.remember(history)

    def decide(
        self, context: RoutingContext, now: float, arm: tuple[Group, Policy] | None, *, counted: bool
    ) -> RoutingDecision:
        """Decide a request by the policy of its arm, else by the one in force.

        Raises:
            RequestError: It is pinned to a backend that cannot run the model, or nothing meets its bounds.
        """
        if context.pinned and context.pinned not in self._able:
            raise RequestError(
                f"backend {context.pinned!r} cannot run model {self.name!r}",
                hint=f"pin the request to one of {', '.join(sorted(self._able))}, or to none",
            )
        decision = self.engine.decide(context, now, arm[1] if arm else None)
        if arm and counted:
            self._groups[decision] = arm[0]
        if counted:
            self.counts.decided(decision.primary_backend, arm[0] if arm else None)
        return decision

    def finish(self, decision: RoutingDecision, outcome: Outcome, now: float, *, counted: bool) -> None:
        """Release the slot, learn and count."""
        self.engine.finish(decision, outcome, now)
        group = self._groups.pop(decision, None)
        if not counted:
            return
        backend = decision.primary_backend
        if outcome.verdict is Verdict.SUCCESS:
            self.counts.succeeded(backend, group, outcome.latency_ms)
        elif outcome.verdict is Verdict.TARGET_ERROR:
            self.counts.failed(backend, group)

    def abandon(self, decision: RoutingDecision, now: float, *, counted: bool) -> None:
        """Release the slot of a decision whose outcome nobody recorded; nothing is learned from that."""
        self.engine.finish(decision, Outcome(Verdict.CANCELLED, 0.0), now)
        group = self._groups.pop(decision, None)
        if counted:
            self.counts.abandoned(decision.primary_backend, group)
