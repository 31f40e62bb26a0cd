"""What ``router.yaml`` says of bad days is what the engine does."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import pytest

from triton_router.config.configured_engine import configured_engine
from triton_router.config.router_config import RouterConfig
from triton_router.config.routing_of import resilience_of
from triton_router.errors import AllFullError
from triton_router.routing.resilience import HealthRules, Resilience
from triton_router.routing.types import Outcome, RoutingContext, Verdict

if TYPE_CHECKING:
    from triton_router.routing.engine import RoutingEngine

REQUEST = RoutingContext(1, 10.0)
FAILURE = Outcome(Verdict.TARGET_ERROR, 1.0)


def config(**settings: object) -> RouterConfig:
    known = [{"work": 10, "latency_ms": 1.0}]
    first = {"name": "a", "model": "a", "measured_latency": known, "max_in_flight": settings.pop("cap", None)}
    second = {"name": "b", "model": "b", "measured_latency": [{"work": 10, "latency_ms": 5.0}]}
    return RouterConfig.model_validate({"targets": [first, second], "explore": 0.0, "mirror": 0.0, **settings})


def engine(**settings: object) -> RoutingEngine:
    return configured_engine(config(**settings), "m", {}, rng=lambda: 0.5)


def test_by_default_settings_and_engine_agree() -> None:
    """A router.yaml that says nothing of bad days has the engine's own defaults, bounded by its workers alone."""
    made = resilience_of(config())
    assert replace(made, caps={}) == Resilience()
    assert all(1 < cap < config().dispatch.max_concurrency for cap in made.caps.values())


def test_every_setting_arrives() -> None:
    """Each key of ``retry``, ``health`` and ``hedge`` changes the rule of its name."""
    rules = HealthRules(7, 0.9, 9.0, first_pause_s=2.0, longest_pause_s=60.0, slow_start_s=1.0, panic_share=0.75)
    health = asdict(rules)
    retry = {"idempotent": False, "attempts": 5, "budget": 0.5, "burst": 3, "overdue_ms": 250.0}
    made = resilience_of(config(health=health, retry=retry, hedge={"share": 0.1, "probability": 0.9}, cap=4))
    assert made == Resilience(
        idempotent=False,
        attempts=5,
        retry_share=0.5,
        retry_burst=3,
        overdue_ms=250.0,
        hedge_share=0.1,
        hedge_probability=0.9,
        health=rules,
        caps={**made.caps, "a": 4},
    )


def test_max_in_flight_bounds_a_target() -> None:
    """Beyond it requests go elsewhere; where it alone is allowed to serve, they wait."""
    subject = engine(cap=1)
    assert [subject.decide(REQUEST, 0.0).target.name for _ in range(3)] == ["a", "b", "b"]
    bounded = engine(cap=1, routing_rules=[{"model_name_pattern": "*"}])
    bounded.decide(REQUEST, 0.0)
    bounded.mark("b", "not loaded", 0.0, 9.0)
    with pytest.raises(AllFullError):
        bounded.decide(REQUEST, 0.0)


@pytest.mark.parametrize(("limit", "name"), [(1, "b"), (2, "a")])
def test_consecutive_failures_send_a_target_out(limit: int, name: str) -> None:
    """After one failure it is out where one is enough, and in where two are."""
    subject = engine(health={"consecutive_failures": limit})
    subject.finish(subject.decide(REQUEST, 0.0), FAILURE, 0.0)
    assert subject.decide(REQUEST, 0.0).target.name == name


@pytest.mark.parametrize("retry", [{"idempotent": False}, {"attempts": 1}, {"budget": 0.0, "burst": 0}])
def test_retry_says_whether_a_request_is_tried_again(retry: dict[str, object]) -> None:
    """By default it is; not where a request must run once, has one attempt, or there is no budget."""
    usual, subject = engine(), engine(retry=retry)
    assert usual.again([usual.decide(REQUEST, 0.0)], 0.0) is not None
    assert subject.again([subject.decide(REQUEST, 0.0)], 0.0) is None
