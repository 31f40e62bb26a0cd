"""How requests are routed, whatever they are routed to: the same keys in JSON for `ModelRouter` and in ``router.yaml``.

Example::

    {
      "default_policy": {"name": "adaptive", "parameters": {"latency_weight": "0.4"}},
      "routing_rules": [{"model_name_pattern": "resnet*", "policy": "throughput", "preferred_backends": ["gpu"]}],
      "backend_weights": {"neural_engine": 1.5}
    }
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from triton_router.config.json_document import load_json, parse_json
from triton_router.config.settings import (
    BackendName,
    Bound,
    Number,
    PolicySettings,
    PolicyValue,
    Settings,
    Share,
    backends_by_name,
)
from triton_router.experiments.split import Assignment
from triton_router.routing.rules import MAX_EXPLORE
from triton_router.routing.types import Backend

if TYPE_CHECKING:
    from pathlib import Path

    from triton_router.config.loading import Document

_MOST = 1000
"""Rules or experiments in one file."""
_DAY_S = 86_400.0
_PATTERN_LENGTH = 256


def _seconds(value: object) -> object:
    if isinstance(value, str) and value.endswith("s"):
        return value[:-1].strip()
    return value


Pattern = Annotated[str, Field(min_length=1, max_length=_PATTERN_LENGTH)]
"""A glob of model names: ``*``, ``?`` and ``[...]``; case counts."""
Backends = Annotated[tuple[BackendName, ...], Field(strict=False, max_length=len(Backend) * 2)]
Weight = Annotated[Number, Field(gt=0, le=1e6)]


class RuleSettings(Settings):
    """What holds for some models instead of the defaults. Of several rules that match a model, the first counts.

    Attributes:
        model_name_pattern: Whose models.
        policy: How to choose for them; absent for the default.
        preferred_backends: Chosen among first, while one of them can serve.
        excluded_backends: Never chosen.
        max_latency_ms: Latency bound of requests that bring none.
        min_throughput: Rows per second asked for by requests that ask for none.
    """

    model_name_pattern: Pattern
    policy: PolicyValue | None = None
    preferred_backends: Backends = ()
    excluded_backends: Backends = ()
    max_latency_ms: Bound = 0.0
    min_throughput: Bound = 0.0

    @model_validator(mode="after")
    def _leaves_a_backend(self) -> Self:
        both = sorted(set(self.preferred_backends) & set(self.excluded_backends))
        if both:
            raise ValueError(f"{both[0]} is both preferred and excluded")
        if set(self.excluded_backends) == set(Backend):
            raise ValueError("every backend is excluded, so that nothing could serve the model")
        return self


class ExperimentSettings(Settings):
    """An A/B test of two policies.

    Attributes:
        experiment_id: Names it; another one splits requests afresh.
        control_policy: For those that are not treated.
        treatment_policy: For those that are.
        treatment_percentage: Their share; despite its name a fraction, 0 to 1.
        models: Globs of the models that take part; none for all.
        assignment: Whether each ``request`` (by its key, if it has one) or each ``model`` belongs to one arm.
    """

    experiment_id: Annotated[str, Field(min_length=1, max_length=_PATTERN_LENGTH)]
    control_policy: PolicyValue
    treatment_policy: PolicyValue
    treatment_percentage: Share
    models: Annotated[tuple[Pattern, ...], Field(strict=False, max_length=_MOST)] = ()
    assignment: Annotated[Assignment, Field(strict=False)] = Assignment.REQUEST


class RouterSwitches(Settings):
    """What the router does besides choosing.

    Attributes:
        enable_profiling: Whether outcomes teach; without it predictions stay what they were at first.
        profile_warmup_iterations: Answers of a target before its predictions are trusted at all: until then their
            confidence is 0.
        profile_history_size: How many of a target's latest answers say how far off predictions are; also the window
            of the latency quantiles in `ModelRouter`'s metrics.
        enable_load_balancing: Whether what is in flight counts, in predictions, in scores and as utilization.
        max_backend_utilization: Share of the recent past for which a device may be busy before another one that was
            less so is taken; 0 for no bound.
        enable_fallback: Whether decisions name fallbacks, and slow targets give way.
        fallback_latency_threshold_ms: A target predicted to take longer gives way to one that is not; 0 for no bound.
        enable_ab_testing: Whether experiments take place.
        enable_metrics: Whether metrics are kept and published.
        metrics_interval: Seconds between two publications; ``"60s"`` is accepted.
    """

    enable_profiling: bool = True
    profile_warmup_iterations: Annotated[int, Field(ge=0, le=1_000_000)] = 10
    profile_history_size: Annotated[int, Field(ge=10, le=10_000)] = 100
    enable_load_balancing: bool = True
    max_backend_utilization: Share = 0.8
    enable_fallback: bool = True
    fallback_latency_threshold_ms: Bound = 100.0
    enable_ab_testing: bool = True
    enable_metrics: bool = True
    metrics_interval: Annotated[float, BeforeValidator(_seconds), Field(gt=0, le=_DAY_S, strict=False)] = 60.0


class RoutingSettings(Settings):
    """How to route.

    Attributes:
        default_policy: How one of several targets is chosen where no rule says otherwise.
        routing_rules: What holds for some models instead.
        ab_tests: Experiments; of several that cover a model, the first counts.
        router_config: What the router does besides choosing.
        backend_weights: What the scores of a backend's targets are multiplied with; only ratios count.
        explore: Share of requests that may go to a target other than the favourite, so that its profile stays true;
            one that is n times as slow gets an n-th of it.
        max_latency_ms: Latency bound of requests that bring none; 0 for none.
    """

    default_policy: PolicyValue = PolicySettings(name="adaptive")
    routing_rules: Annotated[tuple[RuleSettings, ...], Field(strict=False, max_length=_MOST)] = ()
    ab_tests: Annotated[tuple[ExperimentSettings, ...], Field(strict=False, max_length=_MOST)] = ()
    router_config: RouterSwitches = RouterSwitches()
    backend_weights: Annotated[dict[Backend, Weight], BeforeValidator(backends_by_name)] = Field(
        default_factory=dict[Backend, float]
    )
    explore: Annotated[Number, Field(ge=0, le=MAX_EXPLORE)] = 0.002
    max_latency_ms: Bound = 0.0

    @model_validator(mode="after")
    def _experiments_are_unique(self) -> Self:
        ids = [test.experiment_id for test in self.ab_tests]
        twice = sorted({name for name in ids if ids.count(name) > 1})
        if twice:
            raise ValueError(f"experiment_id {twice[0]!r} stands twice")
        return self

    @property
    def policy_in_force(self) -> PolicySettings:
        """How to choose where no rule says otherwise."""
        return self.default_policy

    @property
    def mirror_share(self) -> float:
        """Time for copies of requests, sent to learn from, as a share of serving time."""
        return 0.0

    def policy_for(self, model: str) -> PolicySettings:
        """Return how one of a model's targets is chosen."""
        rule = self.rule_for(model)
        return rule.policy if rule and rule.policy else self.policy_in_force

    def rule_for(self, model: str) -> RuleSettings | None:
        """Return the first rule whose pattern matches a model's name."""
        return next((rule for rule in self.routing_rules if fnmatchcase(model, rule.model_name_pattern)), None)


def load_routing_settings(path: Path) -> RoutingSettings:
    """Read and validate a JSON file.

    Raises:
        NotFoundError: There is no such file.
        ConfigError: It is not valid; the message names line and key.
    """
    return validate_routing_settings(load_json(path))


def parse_routing_settings(text: str, *, source: str = "JSON") -> RoutingSettings:
    """Validate the text of a JSON document. ``source`` names it in messages. Errors as `load_routing_settings`."""
    return validate_routing_settings(parse_json(text, source=source))


def validate_routing_settings(document: Document) -> RoutingSettings:
    """Validate a parsed document. Errors as `load_routing_settings`."""
    if not isinstance(document.data, dict):
        raise document.error((), "is empty or not an object", hint="write {} for the defaults")
    try:
        return RoutingSettings.model_validate(document.data)
    except ValidationError as error:
        raise document.validation_error(
            error, hint="the keys are described in docs/python-api.md", settings=RoutingSettings
        ) from error
