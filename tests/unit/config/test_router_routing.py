"""What router.yaml says about routing is what the engine does."""

from __future__ import annotations

import json
import random
from collections import Counter
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triton_router.config.configured_engine import configured_engine
from triton_router.config.loading import parse_yaml
from triton_router.config.router_config import RouterConfig, validate_router_config
from triton_router.config.routing_of import routing_of, splits_of
from triton_router.errors import ConfigError
from triton_router.experiments.splitting_engine import SplittingEngine
from triton_router.profiling.figures import Figure, Source
from triton_router.profiling.profile import TargetProfile
from triton_router.routing.resilience import Resilience
from triton_router.routing.rules import RoutingRules
from triton_router.routing.types import Backend, Outcome, RoutingContext, Verdict

TARGETS = """
targets:
  - {name: slow, model: m1, backend: cpu, power_w: 5, price_per_hour: 0.1, memory_mb: 300,
     measured_latency: [{work: 1, latency_ms: 9}]}
  - {name: fast, model: m2, backend: gpu, power_w: 90, price_per_hour: 2.5,
     measured_latency: [{work: 1, latency_ms: 3}]}
explore: 0
"""


def config(text: str = "") -> RouterConfig:
    return validate_router_config(parse_yaml(TARGETS + text, source="router.yaml"))


def chosen(text: str, model: str = "routed") -> str:
    engine = configured_engine(config(text), model, {}, rng=random.Random(4).random)
    decision = engine.decide(RoutingContext(), 0.0)
    return decision.target.name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "fast"),
        ("policy: power\n", "slow"),
        ("policy: cost\n", "slow"),
        ("default_policy: power\n", "slow"),
        ("policy: {name: slo, parameters: {probability: 0.5}}\nmax_latency_ms: 5\n", "fast"),
        ("policy: {name: slo, parameters: {probability: 0.5}}\nmax_latency_ms: 50\n", "slow"),
        ("routing_rules: [{model_name_pattern: 'rou*', policy: power}]\n", "slow"),
        ("routing_rules: [{model_name_pattern: 'other', policy: power}]\n", "fast"),
        ("routing_rules: [{model_name_pattern: '*', preferred_backends: [cpu]}]\n", "slow"),
        ("routing_rules: [{model_name_pattern: '*', excluded_backends: [cuda]}]\n", "slow"),
        ("policy: power\nrouting_rules: [{model_name_pattern: '*', min_throughput: 200}]\n", "fast"),
        ("backend_weights: {cpu: 5}\n", "slow"),
        ("policy: power\nrouter_config: {fallback_latency_threshold_ms: 5}\n", "fast"),
        ("policy: power\nrouter_config: {fallback_latency_threshold_ms: 5, enable_fallback: false}\n", "slow"),
    ],
)
def test_a_key_decides(text: str, expected: str) -> None:
    """Policy, rules, weights, bounds, prices and watts each tip the choice."""
    assert chosen(text) == expected


def test_declared_figures_are_estimates_and_measured_ones_stay() -> None:
    """``power_w`` and ``memory_mb`` count until a meter has spoken, also where a profile was taken over."""
    learned = TargetProfile([(1, 9.0)])
    learned.record_power(33.0)
    engine = configured_engine(config(), "routed", {"slow": learned}, rng=random.random)
    slow, fast = engine.snapshot(0.0)
    assert slow.power_w == Figure(33.0, Source.MEASURED)
    assert slow.memory_mb == Figure(300.0, Source.ESTIMATED)
    assert fast.power_w == Figure(90.0, Source.ESTIMATED)
    assert fast.memory_mb.source is Source.UNKNOWN


def test_nothing_is_bounded_that_nobody_bounded() -> None:
    """Without ``router_config`` the rules are the engine's own; with an empty one they are the original's.

    But for one: where there are several targets, none may have all the workers.
    """
    caps = {"slow": 48, "fast": 48}
    assert routing_of(config(), "routed")[1] == RoutingRules(mirror=0.005, resilience=Resilience(caps=caps))
    rules = routing_of(config("router_config: {}\n"), "routed")[1]
    assert (rules.max_backend_utilization, rules.fallback_latency_ms, rules.warmup) == (0.8, 100.0, 10)
    assert routing_of(config("mirror: 0.1\n"), "routed")[1].mirror == 0.1
    assert routing_of(config("streaming: true\n"), "routed")[1].mirror == 0.0


def test_experiments_take_place_in_the_engine() -> None:
    """``ab_tests`` split a routed model's requests, and can be switched off."""
    test = (
        "ab_tests: [{experiment_id: e, control_policy: latency, treatment_policy: power, treatment_percentage: 0.5}]\n"
    )
    engine = configured_engine(config(test), "routed", {}, rng=random.Random(4).random)
    assert isinstance(engine, SplittingEngine)
    names: Counter[str] = Counter()
    for _ in range(300):
        decision = engine.decide(RoutingContext(), 0.0)
        names[decision.policy] += 1
        engine.finish(decision, Outcome(Verdict.SUCCESS, 3.0), 0.0)
    assert 110 < names["power"] < 190
    assert splits_of(config(test + "router_config: {enable_ab_testing: false}\n")) == ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("policy: latency\ndefault_policy: power\n", "policy and default_policy say the same thing"),
        (
            "policy: {name: latncy}\n",
            r"router.yaml:8: policy: there is no policy 'latncy' \(did you mean 'latency'\?\)",
        ),
        ("policy: {nme: latency}\n", r"policy.nme: unknown key \(did you mean 'name'\?\)"),
        ("routing_rules:\n  - {model_name_pattern: '*', prefered_backends: [cpu]}\n", "router.yaml:9: .*did you mean"),
        ("mirror: 0.9\n", "mirror: "),
    ],
)
def test_a_mistake_is_named(text: str, problem: str) -> None:
    """Line and key, and what was probably meant."""
    with pytest.raises(ConfigError, match=problem):
        config(text)


def test_rendered_settings_are_read_back() -> None:
    """What pydantic writes of a router.yaml is read as the same settings."""
    full = config(
        "policy: {name: slo, parameters: {probability: 0.9}}\nbackend_weights: {ane: 2}\nmirror: 0.01\n"
        "routing_rules: [{model_name_pattern: '*', excluded_backends: [mps]}]\nrouter_config: {metrics_interval: 5s}\n"
    )
    written = full.model_dump_json(exclude_unset=True)
    assert validate_router_config(parse_yaml(written, source="again")) == full
    assert full.backend_weights == {Backend.NEURAL_ENGINE: 2.0}


KEYS = [
    "policy",
    "name",
    "parameters",
    "router_config",
    "routing_rules",
    "ab_tests",
    "backend_weights",
    "model_name_pattern",
]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(allow_nan=False)
    | st.sampled_from(["latency", "gpu", "x"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5))
def test_known_keys_in_wrong_places_are_refused_and_nothing_else_happens(data: dict[str, object]) -> None:
    """Whatever stands where, it is accepted or a ConfigError, with a suggestion or without."""
    targets = [{"name": "a", "model": "m"}]
    with suppress(ConfigError):
        validate_router_config(parse_yaml(json.dumps({"targets": targets, **data}), source="router.yaml"))


def test_no_target_of_several_takes_all_the_workers() -> None:
    """Three quarters of them at most, unless it says otherwise itself, takes merged calls, or is alone."""

    def caps(targets: str, more: str = "") -> dict[str, int]:
        document = f"targets: [{targets}]\n{more}"
        settings = validate_router_config(parse_yaml(document, source="router.yaml"))
        return dict(routing_of(settings, "m")[1].resilience.caps)

    assert caps("{name: a, model: a}, {name: b, model: b}", "dispatch: {max_concurrency: 10}\n") == {"a": 7, "b": 7}
    assert caps("{name: a, model: a, max_in_flight: 3}, {name: b, model: b}") == {"a": 3, "b": 48}
    assert caps("{name: a, model: a, instances: 2, batch_independent: true}, {name: b, model: b}") == {"b": 48}
    assert caps("{name: a, model: a}") == {}
    assert caps("{name: a, model: a}, {name: b, model: b}", "dispatch: {max_concurrency: 1}\n") == {"a": 1, "b": 1}
