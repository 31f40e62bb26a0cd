"""From settings and a model's name to what the engine takes: the one place that reads routing settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_router.config.rollout_settings import Outcome
from triton_router.config.router_config import ROUTER_FILE, RouterConfig
from triton_router.errors import ConfigError
from triton_router.experiments.gate import Gate
from triton_router.experiments.rollout import RolloutPlan
from triton_router.experiments.split import Split
from triton_router.experiments.splitting_engine import Trials
from triton_router.routing.resilience import HealthRules, Resilience
from triton_router.routing.rules import RoutingRules

if TYPE_CHECKING:
    from triton_router.config.rollout_settings import RolloutConfig
    from triton_router.config.routing_settings import ExperimentSettings, RoutingSettings
    from triton_router.routing.policies import Policy


MOST_WORKERS = 0.75
"""Of ``dispatch.max_concurrency``, the share that one target of several may have."""


def routing_of(settings: RoutingSettings, model: str) -> tuple[Policy, RoutingRules]:
    """Return how a model's requests are routed: the policy and the rules in force for it."""
    rule = settings.rule_for(model)
    switches = settings.router_config
    rules = RoutingRules(
        backend_weights=settings.backend_weights,
        preferred_backends=rule.preferred_backends if rule else (),
        excluded_backends=rule.excluded_backends if rule else (),
        max_latency_ms=(rule.max_latency_ms if rule else 0.0) or settings.max_latency_ms,
        min_throughput=rule.min_throughput if rule else 0.0,
        max_backend_utilization=switches.max_backend_utilization if switches.enable_load_balancing else 0.0,
        explore=settings.explore,
        mirror=settings.mirror_share,
        learn=switches.enable_profiling,
        balance=switches.enable_load_balancing,
        fallback=switches.enable_fallback,
        fallback_latency_ms=switches.fallback_latency_threshold_ms,
        warmup=switches.profile_warmup_iterations,
        resilience=resilience_of(settings),
    )
    return settings.policy_for(model).made(), rules


def splits_of(settings: RoutingSettings) -> tuple[Split, ...]:
    """Return the experiments that take place, in the order of the settings."""
    return tuple(_split(test) for test in settings.ab_tests) if settings.router_config.enable_ab_testing else ()


def trials_of(config: RouterConfig, model: str) -> Trials:
    """Return what a routed model's requests take part in.

    Raises:
        ConfigError: Its rule leaves nobody to go to; see `refuse_nobody`.
    """
    refuse_nobody(config, model)
    split = next((split for split in splits_of(config) if split.covers(model)), None)
    plan = plan_of(config.rollout, compares=not config.streaming) if config.rollout else None
    return Trials(split, plan, config.shadow.target if config.shadow else "")


def refuse_nobody(config: RouterConfig, model: str) -> None:
    """Do nothing if a routed model's rule leaves somebody to serve its requests, whatever becomes of a canary.

    Raises:
        ConfigError: It excludes every target, or every one that is neither canary nor shadow.
    """
    rule, rollout = config.rule_for(model), config.rollout
    if rule is None:
        return
    left = {target.name for target in config.targets if target.backend not in rule.excluded_backends}
    if not left:
        raise ConfigError(
            f"{ROUTER_FILE}: excluded_backends of the routing rule {rule.model_name_pattern!r}, the first that matches "
            f"{model!r}, leave no target: every request would be refused",
            hint="take the backend of a target out of excluded_backends, or narrow model_name_pattern",
        )
    if rollout is not None and rollout.outcome is Outcome.PROMOTE:
        return
    special = {*(rollout.canary if rollout else ()), *([config.shadow.target] if config.shadow else ())}
    if left <= special:
        raise ConfigError(
            f"{ROUTER_FILE}: excluded_backends of the routing rule for {model!r} leave no target that is neither "
            "canary nor shadow: nobody could serve what the canary does not get",
            hint="take the backend of a stable target out of excluded_backends, or rollout or shadow out of the file",
        )


def plan_of(rollout: RolloutConfig, *, compares: bool = True) -> RolloutPlan:
    """Return what is wanted of a rollout.

    Args:
        rollout: The settings.
        compares: Whether the canary's answers can be compared with others: those that are streamed cannot.
    """
    gate = rollout.gate
    return RolloutPlan(
        id=rollout.id,
        canary=frozenset(rollout.canary),
        steps=tuple(percent / 100.0 for percent in rollout.steps),
        hold_s=rollout.hold_s,
        weight=None if rollout.weight is None else rollout.weight / 100.0,
        is_paused=rollout.paused,
        outcome=rollout.outcome.value if rollout.outcome else "",
        by=rollout.by,
        gate=Gate(
            min_requests=gate.min_requests,
            max_error_factor=gate.max_error_factor,
            max_latency_increase=gate.max_latency_increase,
            max_mismatch=gate.max_mismatch if compares else 1.0,
            false_alarms=gate.false_alarms,
            rollback=gate.rollback,
        ),
    )


def resilience_of(settings: RoutingSettings) -> Resilience:
    """Return what is done on bad days; the defaults where settings have no say in it, as those of a ``ModelRouter``."""
    if not isinstance(settings, RouterConfig):
        return Resilience()
    retry, health, hedge = settings.retry, settings.health, settings.hedge
    return Resilience(
        idempotent=retry.idempotent,
        attempts=retry.attempts,
        retry_share=retry.budget,
        retry_burst=retry.burst,
        overdue_ms=retry.overdue_ms or 0.0,
        hedge_share=hedge.share,
        hedge_probability=hedge.probability,
        health=HealthRules(
            consecutive_failures=health.consecutive_failures,
            failure_rate=health.failure_rate,
            slow_factor=health.slow_factor,
            first_pause_s=health.first_pause_s,
            longest_pause_s=health.longest_pause_s,
            slow_start_s=health.slow_start_s,
            panic_share=health.panic_share,
        ),
        caps=_caps(settings),
    )


def _caps(settings: RouterConfig) -> dict[str, int]:
    """Return how many requests may be in flight at each target, by its name.

    Where nobody has said so, no target may have all the workers, so that one that hangs leaves some to the others. One
    that takes merged calls never has more of them than calls.
    """
    caps: dict[str, int] = {}
    workers = max(1, int(settings.dispatch.max_concurrency * MOST_WORKERS))
    for target in settings.targets:
        if target.max_in_flight:
            caps[target.name] = target.max_in_flight
        elif len(settings.targets) > 1 and not settings.calls_in_flight_at(target):
            caps[target.name] = workers
    return caps


def _split(test: ExperimentSettings) -> Split:
    return Split(
        test.experiment_id,
        test.control_policy.made(),
        test.treatment_policy.made(),
        test.treatment_percentage,
        test.models,
        test.assignment,
    )
