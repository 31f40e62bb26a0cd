"""The original's router in Python: decides where a model's requests run, without executing them itself.

This is where clock and chance enter; everything below is given both.
"""

from __future__ import annotations

import random
import time
from itertools import count
from threading import Lock, RLock
from typing import TYPE_CHECKING, ClassVar, Self

from triton_router.config.routing_of import routing_of, splits_of
from triton_router.config.routing_settings import RoutingSettings
from triton_router.config.settings import suggestion
from triton_router.errors import InvalidInputError, NotFoundError
from triton_router.experiments.split import Assignment, Split
from triton_router.model_router.leases import Leases
from triton_router.model_router.metrics import RoutingMetrics
from triton_router.model_router.model_profile import check_execution
from triton_router.model_router.names import backend_of
from triton_router.model_router.policies import policy_of
from triton_router.model_router.registered_model import RegisteredModel
from triton_router.model_router.requests import checked, checked_characteristics
from triton_router.routing.types import OptimizationGoal, Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from triton_router.model_router.counts import Group
    from triton_router.model_router.metrics import ModelMetrics
    from triton_router.model_router.model_profile import ModelProfile
    from triton_router.routing.characteristics import ModelCharacteristics
    from triton_router.routing.explanation import Explanation
    from triton_router.routing.policies import Policy
    from triton_router.routing.rules import RoutingRules
    from triton_router.routing.types import Backend, RoutingContext, RoutingDecision

OUTCOME_TIMEOUT_S = 60.0
"""How long a decision's slot is kept for an outcome that may never be recorded."""


class ModelRouter:
    """Chooses a backend for each request of each registered model, and learns from what is recorded.

    Safe to use from several threads. ``ModelRouter()`` makes one of its own, `get_instance` gives the process's.

    Args:
        clock: Monotonic seconds.
        rng: Uniform numbers in [0, 1).
        outcome_timeout_s: After how long a decision whose outcome was not recorded gives its slot back.
        on_metrics: Called with the metrics every ``metrics_interval`` seconds, by a call of `record_execution`.
    """

    _instance: ClassVar[ModelRouter | None] = None
    _instance_lock: ClassVar[Lock] = Lock()

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: Callable[[], float] = random.random,
        outcome_timeout_s: float = OUTCOME_TIMEOUT_S,
        on_metrics: Callable[[RoutingMetrics], object] | None = None,
    ) -> None:
        self._clock = clock
        self._rng = rng
        self._on_metrics = on_metrics
        self._lock = RLock()
        self._backends: tuple[Backend, ...] = ()
        self._models: dict[str, RegisteredModel] = {}
        self._leases: Leases[RegisteredModel] = Leases(outcome_timeout_s)
        self._serial = count()
        self._published_at = clock()
        self._settings = RoutingSettings()
        self._policy: Policy | None = None
        self._own_policies: dict[str, Policy] = {}
        self._splits: dict[str, Split] = {}

    @classmethod
    def get_instance(cls) -> ModelRouter:
        """Return the router of this process; the first call makes it."""
        with cls._instance_lock:
            if cls._instance is None:
                cls._instance = cls()
            return cls._instance

    def initialize(self, backends: Iterable[Backend | str]) -> Self:
        """Say where models can run, by name or alias, and begin afresh: earlier models and counts are forgotten.

        Raises:
            InvalidInputError: A name is unknown, or there is none.
        """
        found = tuple(dict.fromkeys(backend_of(name) for name in backends))
        if not found:
            raise InvalidInputError("there is no backend to route to", hint="name at least one, such as 'cpu'")
        with self._lock:
            self._backends = found
            self._models = {}
        return self

    def register_model(self, model_name: str, characteristics: ModelCharacteristics) -> None:
        """Make a model known, or known anew: what was learned of one by the same name is forgotten.

        Args:
            model_name: What requests name.
            characteristics: What is known of it, copied.

        Raises:
            InvalidInputError: The router has not been initialized, or a figure is negative or not a number, or the
                characteristics are of a model of another name.
            UnsupportedError: No backend can run it.
        """
        with self._lock:
            if not self._backends:
                raise InvalidInputError("the router knows no backends", hint="call initialize([...]) first")
            known = checked_characteristics(model_name, characteristics)
            model = RegisteredModel(
                model_name,
                known,
                self._backends,
                self._routing_of(model_name),
                history=self._settings.router_config.profile_history_size,
                rng=self._rng,
            )
            model.profile.share(self._lock, lambda: model.engine.snapshot(self._clock()))
            self._models[model_name] = model

    def route_request(self, model_name: str, context: RoutingContext) -> RoutingDecision:
        """Choose a backend for a request and reserve its slot there, until `record_execution` is told how it went.

        Raises:
            NotFoundError: No such model is registered.
            RequestError: The context has an impossible value, or nothing meets its bounds.
        """
        asked = checked(context)
        with self._lock:
            now = self._clock()
            self._give_back(now)
            model = self._model(model_name)
            decision = model.decide(asked, now, self._arm(model_name, asked), counted=self._counts)
            self._leases.add(decision, model, now)
            return decision

    def explain(self, model_name: str, context: RoutingContext) -> Explanation:
        """Return what `route_request` would do and why, experiments aside; nothing is reserved. Errors as there."""
        asked = checked(context)
        with self._lock:
            return self._model(model_name).engine.explain(asked, self._clock())

    def record_execution(  # noqa: PLR0913 - the original's signature
        self,
        model_name: str,
        decision: RoutingDecision,
        latency_ms: float,
        memory_mb: float = 0.0,
        power_w: float = 0.0,
        success: bool = True,
        *,
        verdict: Verdict | None = None,
    ) -> None:
        """Say how a decided request went: its slot is released and its figures are learned. Once for each decision.

        Args:
            model_name: The model it was for.
            decision: What `route_request` returned.
            latency_ms: From decision to answer.
            memory_mb: Memory it was measured to take; 0 if it was not measured.
            power_w: Power it was measured to draw; 0 if it was not measured.
            success: Whether it gave an answer. If not, the backend is held to have failed.
            verdict: Says more than ``success``: that the request itself was wrong, or was cancelled.

        Raises:
            InvalidInputError: The decision was recorded before, or so late that its slot has been given back, or was
                for another model, or a figure is negative or not a number.
        """
        check_execution(latency_ms, memory_mb, power_w)
        if decision.target.model != model_name:
            raise InvalidInputError(
                f"the decision is for model {decision.target.model!r}, not for {model_name!r}",
                hint="record each decision under the model it was made for",
            )
        outcome = Outcome(
            verdict or (Verdict.SUCCESS if success else Verdict.TARGET_ERROR), latency_ms, memory_mb, power_w
        )
        with self._lock:
            now = self._clock()
            self._give_back(now)
            model = self._leases.take(decision)
            if model is None:
                raise InvalidInputError(
                    f"the decision was recorded before, or was made more than {self._leases.timeout_s:g} s ago",
                    hint="record each decision once; raise outcome_timeout_s where requests take longer",
                )
            model.finish(decision, outcome, now, counted=self._counts)
            is_due = self._counts and now - self._published_at >= self._settings.router_config.metrics_interval
            self._published_at = now if is_due else self._published_at
        # Without the lock: the callback may ask this router anything.
        if is_due and self._on_metrics:
            self._on_metrics(self.get_metrics())

    def set_routing_policy(self, policy: Policy | str) -> None:
        """Choose by another policy from now on, where no rule and no policy of the model's own says otherwise.

        Raises:
            ConfigError: No policy has that name.
        """
        made = policy_of(policy)
        with self._lock:
            self._policy = made
            self._reconfigure()

    def set_routing_policy_for_model(self, model_name: str, policy: Policy | str) -> None:
        """Choose by another policy for one model, registered or not yet. Errors as `set_routing_policy`."""
        made = policy_of(policy)
        with self._lock:
            self._own_policies[model_name] = made
            self._reconfigure()

    def enable_ab_testing(
        self,
        experiment_id: str,
        control_policy: Policy | str,
        treatment_policy: Policy | str,
        treatment_fraction: float,
        *,
        models: Sequence[str] = (),
        assignment: Assignment | str = Assignment.REQUEST,
    ) -> None:
        """Compare two policies. An experiment of the same id is replaced.

        Args:
            experiment_id: Names it; requests are split anew under another id.
            control_policy: For requests that are not treated.
            treatment_policy: For those that are.
            treatment_fraction: Their share, 0 to 1.
            models: Globs of the models that take part; none for all.
            assignment: ``request``: each belongs to an arm by its ``key``, else by chance; ``model``: all of a
                model's requests do.

        Raises:
            InvalidInputError: The fraction is not from 0 to 1, the assignment is unknown, or there is no id.
            ConfigError: No policy has that name.
        """
        if not experiment_id:
            raise InvalidInputError(
                f"experiment_id cannot be {experiment_id!r}", hint="give it a name, such as 'new_algorithm_v2'"
            )
        if not 0.0 <= treatment_fraction <= 1.0:
            raise InvalidInputError(
                f"treatment_fraction cannot be {treatment_fraction}", hint="give a share: 0.1 for 10% of the requests"
            )
        if assignment not in list(Assignment):
            raise InvalidInputError(f"unknown assignment {assignment!r}", hint="use 'request' or 'model'")
        split = Split(
            experiment_id,
            policy_of(control_policy),
            policy_of(treatment_policy),
            treatment_fraction,
            tuple(models),
            Assignment(assignment),
        )
        with self._lock:
            self._splits[experiment_id] = split

    def disable_ab_testing(self, experiment_id: str) -> None:
        """End an experiment; its counts stay. Does nothing if there is none of that id."""
        with self._lock:
            self._splits.pop(experiment_id, None)

    def configure(self, settings: RoutingSettings) -> None:
        """Replace policies, rules, weights, switches and experiments by these; what was learned and counted stays."""
        with self._lock:
            self._settings = settings
            self._policy = None
            self._own_policies = {}
            self._splits = {split.experiment_id: split for split in splits_of(settings)}
            self._reconfigure()

    def get_metrics(self) -> RoutingMetrics:
        """Return a view of the counts, always up to date."""
        return RoutingMetrics(self._read_metrics)

    def get_model_profile(self, model_name: str) -> ModelProfile:
        """Return what has been learned of a model: the profiles that decisions rest on.

        Raises:
            NotFoundError: No such model is registered.
        """
        with self._lock:
            return self._model(model_name).profile

    @property
    def _counts(self) -> bool:
        return self._settings.router_config.enable_metrics

    def _model(self, name: str) -> RegisteredModel:
        if name not in self._models:
            raise NotFoundError(
                f"no model {name!r} is registered{suggestion(name, self._models)}", hint="call register_model first"
            )
        return self._models[name]

    def _routing_of(self, model: str) -> tuple[Policy, RoutingRules]:
        policy, rules = routing_of(self._settings, model)
        rule = self._settings.rule_for(model)
        if self._policy and not (rule and rule.policy):
            policy = self._policy
        return self._own_policies.get(model, policy), rules

    def _reconfigure(self) -> None:
        for model in self._models.values():
            model.reconfigure(self._routing_of(model.name), self._settings.router_config.profile_history_size)

    def _arm(self, model: str, context: RoutingContext) -> tuple[Group, Policy] | None:
        # A goal of the request's own replaces the policy of either arm, which then decides nothing.
        has_goal = context.optimization_goal is not OptimizationGoal.BALANCED
        if has_goal or not self._settings.router_config.enable_ab_testing:
            return None
        for split in self._splits.values():
            if context.experiment_id in {"", split.experiment_id} and split.covers(model):
                arm = split.arm_of(model, context.key or f"#{next(self._serial)}")
                return (split.experiment_id, arm), split.policy_of(arm)
        return None

    def _give_back(self, now: float) -> None:
        for decision, model in self._leases.expired(now):
            model.abandon(decision, now, counted=self._counts)

    def _read_metrics(self) -> Mapping[str, ModelMetrics]:
        with self._lock:
            if not self._counts:
                return {}
            now = self._clock()
            self._give_back(now)
            return {name: model.counts.metrics(model.engine.snapshot(now)) for name, model in self._models.items()}
