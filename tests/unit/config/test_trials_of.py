"""From settings to what requests take part in: rollout, experiment, shadow."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from triton_router.config.configured_engine import configured_engine, reconfigure
from triton_router.config.router_config import RouterConfig
from triton_router.config.routing_of import trials_of
from triton_router.errors import ConfigError
from triton_router.experiments.gate import Gate
from triton_router.experiments.rollout_plan import RolloutPlan
from triton_router.routing.types import Outcome, RoutingContext, Verdict

if TYPE_CHECKING:
    from triton_router.experiments.splitting_engine import SplittingEngine

LATENCIES = {"old": 4.0, "new": 1.0, "copy": 0.5}
TARGETS = [
    {"name": name, "model": name, "measured_latency": [{"work": 1, "latency_ms": latency}]}
    for name, latency in LATENCIES.items()
]
TEST = {"experiment_id": "x", "control_policy": "latency", "treatment_policy": "cost", "treatment_percentage": 0.5}


def config(**settings: Any) -> RouterConfig:
    """Return settings of three targets without any exploring."""
    return RouterConfig.model_validate({"targets": TARGETS, "explore": 0.0, "mirror": 0.0, **settings})


def served(engine: SplittingEngine) -> set[str]:
    """Return who serves two hundred callers."""
    names: set[str] = set()
    for number in range(200):
        decision = engine.decide(RoutingContext(1, 1, key=str(number)), 0.0)
        engine.finish(decision, Outcome(Verdict.SUCCESS, LATENCIES[decision.target.name]), 0.0)
        names.add(decision.target.name)
    return names


def test_a_rollout_is_what_the_settings_say() -> None:
    """Percent become shares, every key arrives, and what is streamed is not compared."""
    gate = {"min_requests": 7, "max_error_factor": 2, "max_latency_increase": 0.2, "max_mismatch": 0.02}
    rollout = {"id": "v2", "canary": ["new"], "steps": [10, 100], "hold_s": 5, "paused": True, "outcome": "abort"}
    full = {**rollout, "by": "ada", "gate": {**gate, "false_alarms": 0.01, "rollback": False}}
    wanted = Gate(7, 2.0, 0.2, 0.02, 0.01, rollback=False)
    plan = trials_of(config(rollout=full), "m").plan
    assert plan == RolloutPlan("v2", frozenset({"new"}), (0.1, 1.0), 5.0, None, True, "abort", "ada", wanted)
    by_hand = trials_of(config(rollout={"id": "v2", "canary": ["new"], "weight": 25}, streaming=True), "m").plan
    assert by_hand is not None
    assert (by_hand.weight, by_hand.gate.max_mismatch) == (0.25, 1.0)


@pytest.mark.parametrize(
    "trial",
    [{"shadow": {"target": "new"}}, {"rollout": {"id": "v2", "canary": ["new"]}}],
    ids=["shadow", "canary"],
)
def test_rules_that_exclude_whoever_is_no_canary_and_no_shadow_are_refused(trial: dict[str, Any]) -> None:
    """A shadow gets copies only and a canary may be rolled back: every request would be refused."""
    targets = [{**TARGETS[0], "backend": "cpu"}, {**TARGETS[1], "backend": "gpu"}]
    settings = {"targets": targets, **trial}
    excluding = {"excluded_backends": ["cpu"]}
    refused = config(**settings, routing_rules=[{"model_name_pattern": "m*", **excluding}])
    with pytest.raises(ConfigError, match=r"excluded_backends.*'m'.*no target") as raised:
        trials_of(refused, "m")
    assert "excluded_backends" in raised.value.hint
    trials_of(refused, "other")
    trials_of(
        config(
            **(settings | {"targets": [*targets, {**TARGETS[2], "backend": "gpu"}]}),
            routing_rules=[{"model_name_pattern": "m*", **excluding}],
        ),
        "m",
    )


@pytest.mark.parametrize("trial", [{}, {"rollout": {"id": "v2", "canary": ["new"], "outcome": "promote"}}])
def test_rules_that_exclude_everybody_are_refused(trial: dict[str, Any]) -> None:
    """Each request would be refused, and told that it is at fault; models of other names are none of its business."""
    rules = [{"model_name_pattern": "m*", "excluded_backends": ["cpu", "gpu"]}]
    refused = config(targets=[{**TARGETS[0], "backend": "cpu"}, {**TARGETS[1], "backend": "gpu"}], routing_rules=rules)
    refused = refused.model_copy(update={"rollout": config(**trial).rollout})
    with pytest.raises(ConfigError, match=r"routing rule 'm\*'.*'m'.*leave no target") as raised:
        trials_of(refused, "m")
    assert "excluded_backends" in raised.value.hint
    trials_of(refused, "other")


def test_rules_may_exclude_what_a_promoted_canary_has_replaced() -> None:
    """Promoted by hand it gets everything, and nothing takes it back."""
    rollout = {"id": "v2", "canary": ["new"], "outcome": "promote"}
    rules = [{"model_name_pattern": "*", "excluded_backends": ["cpu"]}]
    targets = [{**TARGETS[0], "backend": "cpu"}, {**TARGETS[1], "backend": "gpu"}]
    assert trials_of(config(targets=targets, rollout=rollout, routing_rules=rules), "m").plan is not None


def test_an_engine_follows_its_trials() -> None:
    """A shadow gets nothing, a canary its share, an experiment takes place unless it is switched off."""
    first = config(shadow={"target": "copy"}, rollout={"id": "v2", "canary": ["new"], "weight": 0})
    engine = configured_engine(first, "m", {}, rng=random.Random(3).random)
    assert served(engine) == {"old"}
    for settings, expected in (
        ({"shadow": {"target": "copy"}, "rollout": {"id": "v2", "canary": ["new"], "weight": 50}}, {"old", "new"}),
        ({"shadow": {"target": "copy"}, "rollout": {"id": "v2", "canary": ["new"], "weight": 100}}, {"new"}),
        ({"shadow": {"target": "copy"}}, {"new"}),
        ({"shadow": {"target": "new"}}, {"copy"}),
        ({}, {"copy"}),
    ):
        changed = config(**settings)
        engine.follow(trials_of(changed, "m"), 1.0)
        reconfigure(engine, changed, "m", {}, kept={"old", "new", "copy"})
        assert served(engine) == expected
    assert not engine.wants_keys
    engine.follow(trials_of(config(ab_tests=[TEST]), "m"), 1.0)
    assert engine.experiment_report(1.0) is not None
    off = config(ab_tests=[TEST], router_config={"enable_ab_testing": False})
    engine.follow(trials_of(off, "m"), 1.0)
    assert engine.experiment_report(1.0) is None
