"""Reading, building and writing configurations."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from triton_router import Backend, ModelRouterConfig, ModelRouterConfigBuilder
from triton_router.config.json_document import MAX_JSON_CHARACTERS
from triton_router.config.routing_settings import RoutingSettings
from triton_router.errors import ConfigError, InvalidInputError, NotFoundError
from triton_router.routing.policies import POLICIES

if TYPE_CHECKING:
    from pathlib import Path

NAMES = st.sampled_from(sorted(POLICIES))
SHARES = st.floats(0, 1)
BOUNDS = st.floats(0, 1e9)
BACKENDS = st.sampled_from(list(Backend))


@st.composite
def rules(draw: st.DrawFn) -> dict[str, Any]:
    preferred = draw(st.lists(BACKENDS, max_size=2, unique=True))
    excluded = [backend for backend in draw(st.lists(BACKENDS, max_size=2, unique=True)) if backend not in preferred]
    return {
        "model_name_pattern": draw(st.text(min_size=1, max_size=8)),
        "policy": draw(NAMES | NAMES.map(lambda name: {"name": name}) | st.none()),
        "preferred_backends": preferred,
        "excluded_backends": excluded,
        "max_latency_ms": draw(BOUNDS),
        "min_throughput": draw(BOUNDS),
    }


@st.composite
def experiments(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "experiment_id": draw(st.text(min_size=1, max_size=8)),
        "control_policy": draw(NAMES),
        "treatment_policy": draw(NAMES),
        "treatment_percentage": draw(SHARES | SHARES.map(str)),
        "models": draw(st.lists(st.text(min_size=1, max_size=8), max_size=2)),
        "assignment": draw(st.sampled_from(["request", "model"])),
    }


SWITCHES = st.fixed_dictionaries(
    {},
    optional={
        "enable_profiling": st.booleans(),
        "profile_warmup_iterations": st.integers(0, 10**6),
        "profile_history_size": st.integers(10, 10**4),
        "enable_load_balancing": st.booleans(),
        "max_backend_utilization": SHARES,
        "enable_fallback": st.booleans(),
        "fallback_latency_threshold_ms": BOUNDS,
        "enable_ab_testing": st.booleans(),
        "enable_metrics": st.booleans(),
        "metrics_interval": st.floats(0.001, 86_400),
    },
)
CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "default_policy": NAMES,
        "routing_rules": st.lists(rules(), max_size=3),
        "ab_tests": st.lists(experiments(), max_size=2, unique_by=lambda test: test["experiment_id"]),
        "router_config": SWITCHES,
        "backend_weights": st.dictionaries(BACKENDS, st.floats(0.001, 1e6), max_size=4),
        "explore": st.floats(0, 0.01),
        "max_latency_ms": BOUNDS,
    },
)


@given(CONFIGS)
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read_back(data: dict[str, Any]) -> None:
    """parse(render(config)) == config, for every configuration there can be."""
    config = ModelRouterConfig.from_json(json.dumps(data))
    again = ModelRouterConfig.from_json(config.to_json())
    assert again == config
    assert hash(again) == hash(config)
    assert again.to_json() == config.to_json()


def test_an_empty_configuration_is_the_documented_defaults() -> None:
    """``{}`` and an untouched builder say the same: the original's defaults."""
    config = ModelRouterConfig.from_json("{}")
    assert config == ModelRouterConfigBuilder().build()
    switches = config.settings.router_config
    assert (switches.profile_warmup_iterations, switches.profile_history_size) == (10, 100)
    assert (switches.max_backend_utilization, switches.fallback_latency_threshold_ms) == (0.8, 100.0)
    assert switches.metrics_interval == 60.0
    assert config.settings.default_policy.name == "adaptive"


def test_the_builder_says_the_same_as_json() -> None:
    """Every setter of the builder has its key in JSON, and returns the builder."""
    built = (
        ModelRouterConfigBuilder()
        .set_default_policy("adaptive", latency_weight=0.9)
        .add_routing_rule("a*", "latency", preferred_backends=["gpu"], excluded_backends=["cpu"], max_latency_ms=5)
        .add_routing_rule("b*", min_throughput=3)
        .add_ab_test("e", "latency", "power", 0.1, ["a*"], assignment="model")
        .set_backend_weight("ane", 2)
        .set_backend_weight("neural_engine", 1.5)
        .enable_profiling(False)
        .enable_load_balancing(False)
        .enable_fallback(False)
        .enable_ab_testing(False)
        .enable_metrics(False)
        .set_profile_warmup_iterations(3)
        .set_profile_history_size(50)
        .set_max_backend_utilization(0.5)
        .set_fallback_latency_threshold_ms(7)
        .set_metrics_interval(9)
        .set_explore(0.001)
        .set_max_latency_ms(70)
        .build()
    )
    written = {
        "default_policy": {"name": "adaptive", "parameters": {"latency_weight": 0.9}},
        "routing_rules": [
            {
                "model_name_pattern": "a*",
                "policy": {"name": "latency"},
                "preferred_backends": ["gpu"],
                "excluded_backends": ["cpu"],
                "max_latency_ms": 5,
            },
            {"model_name_pattern": "b*", "min_throughput": 3},
        ],
        "ab_tests": [
            {
                "experiment_id": "e",
                "control_policy": "latency",
                "treatment_policy": "power",
                "treatment_percentage": 0.1,
                "models": ["a*"],
                "assignment": "model",
            }
        ],
        "backend_weights": {"neural_engine": 1.5},
        "router_config": {
            "enable_profiling": False,
            "enable_load_balancing": False,
            "enable_fallback": False,
            "enable_ab_testing": False,
            "enable_metrics": False,
            "profile_warmup_iterations": 3,
            "profile_history_size": 50,
            "max_backend_utilization": 0.5,
            "fallback_latency_threshold_ms": 7,
            "metrics_interval": "9s",
        },
        "explore": 0.001,
        "max_latency_ms": 70,
    }
    assert built == ModelRouterConfig.from_json(json.dumps(written))
    assert set(written) == set(RoutingSettings.model_fields)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "JSON:1: Expecting value"),
        ("[]", "is empty or not an object"),
        ("null", "is empty or not an object"),
        ('{"a": 1, "a": 2}', "key 'a' stands twice"),
        ('{\n\t"default_polcy": "latency"}', r"JSON:2: default_polcy: unknown key \(did you mean 'default_policy'\?\)"),
        (
            '{\n\n"default_policy": "latncy"}',
            r"JSON:3: default_policy: there is no policy 'latncy' \(did you mean 'latency'",
        ),
        ('{"default_policy": {"name": "latency", "parameters": {"x": 1}}}', "has no parameter 'x'"),
        ('{"default_policy": {"name": "adaptive", "parameters": {"latency_weight": "much"}}}', "latency_weight: "),
        ('{"default_policy": {"name": "adaptive", "parameters": {"latency_weight": -1}}}', "cannot be -1"),
        ('{"backend_weights": {"gpu": 0}}', "backend_weights.gpu: Input should be greater than 0"),
        ('{"backend_weights": {"tpu": 1}}', "backend_weights: unknown backend 'tpu'"),
        ('{"backend_weights": {"gpu": 1, "cuda": 2}}', "gpu stands twice"),
        ('{"backend_weights": {"gpu": NaN}}', "NaN is no number"),
        ('{"backend_weights": {"gpu": "nan"}}', "backend_weights.gpu: "),
        ('{"backend_weights": {"gpu": 1e999}}', "backend_weights.gpu: "),
        ('{"backend_weights": 7}', "backend_weights: "),
        ('{"explore": 0.02}', "explore: Input should be less than or equal to 0.01"),
        ('{"explore": true}', "explore: "),
        ('{"mirror": 0.01}', "mirror: unknown key"),
        ('{"routing_rules": [{"policy": "latency"}]}', r"routing_rules.0.model_name_pattern: is required"),
        ('{"routing_rules": [{"model_name_pattern": "*", "preferred_backends": ["npu"]}]}', "unknown backend 'npu'"),
        (
            (
                '{"routing_rules": [{"model_name_pattern": "*", "preferred_backends": ["gpu"],'
                ' "excluded_backends": ["cuda"]}]}'
            ),
            "gpu is both preferred and excluded",
        ),
        (
            '{"routing_rules": [{"model_name_pattern": "*", "excluded_backends": ["cpu", "gpu", "ane", "mps"]}]}',
            "every backend is excluded",
        ),
        ('{"router_config": {"enable_metrics": "yes"}}', "router_config.enable_metrics: "),
        ('{"router_config": {"metrics_interval": 0}}', "router_config.metrics_interval: "),
        ('{"router_config": {"profile_history_size": 1.5}}', "router_config.profile_history_size: "),
        ("[" * 100_000, "nested too deeply|Expecting value"),
        ('{"a":' * 40 + "1" + "}" * 40, "nested deeper than 32 levels"),
        ('{"explore": %s}' % ("9" * 5000), "JSON: |explore: "),
        (" " * (MAX_JSON_CHARACTERS + 1), "has more than"),
        ('{"default_policy": "\\ud800"}', "there is no policy"),
    ],
)
def test_a_wrong_configuration_is_refused(text: str, problem: str) -> None:
    """Unknown keys and names, wrong types and values, hostile documents: refused, with line and key."""
    with pytest.raises(ConfigError, match=problem) as caught:
        ModelRouterConfig.from_json(text)
    assert caught.value.hint


def test_experiments_need_ids_of_their_own() -> None:
    """Two experiments of one id are refused, and a percentage that is no fraction."""
    test = {"experiment_id": "e", "control_policy": "latency", "treatment_policy": "power", "treatment_percentage": 0.1}
    with pytest.raises(ConfigError, match="'e' stands twice"):
        ModelRouterConfig.from_json(json.dumps({"ab_tests": [test, test]}))
    with pytest.raises(ConfigError, match="treatment_percentage: Input should be less than or equal to 1"):
        ModelRouterConfig.from_json(json.dumps({"ab_tests": [{**test, "treatment_percentage": 10}]}))


def test_a_configuration_is_read_from_a_file(tmp_path: Path) -> None:
    """A ``Path`` is read, with its name in messages; text is text."""
    path = tmp_path / "routing.json"
    path.write_text('{"default_policy": "power"}')
    assert ModelRouterConfig.from_json(path).settings.default_policy.name == "power"
    path.write_text('{\n"x": 1}')
    with pytest.raises(ConfigError, match=r"routing\.json:2: x: unknown key"):
        ModelRouterConfig.from_json(path)
    with pytest.raises(NotFoundError, match="does not exist"):
        ModelRouterConfig.from_json(tmp_path / "none.json")


def test_the_builder_refuses_when_it_builds() -> None:
    """What the builder was given wrong is named by its key; an unknown backend at once."""
    with pytest.raises(ConfigError, match="default_policy: there is no policy 'fast'"):
        ModelRouterConfigBuilder().set_default_policy("fast").build()
    with pytest.raises(InvalidInputError, match=r"unknown backend 'gpus' \(did you mean 'gpu'\?\)"):
        ModelRouterConfigBuilder().set_backend_weight("gpus", 1)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = sorted(RoutingSettings.model_fields)


@given(st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), JSON_VALUES, max_size=4))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_hostile_values_are_refused_and_nothing_else_happens(data: dict[str, Any]) -> None:
    """Any JSON value at any key is accepted or a ConfigError."""
    with suppress(ConfigError):
        ModelRouterConfig.from_json(json.dumps(data))


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: raw.decode("latin-1")))
@settings(max_examples=150, deadline=None)
def test_hostile_text_is_refused_and_nothing_else_happens(text: str) -> None:
    """Any text is accepted or a ConfigError."""
    with suppress(ConfigError):
        ModelRouterConfig.from_json(text)


def test_nothing_changes_a_configuration_afterwards() -> None:
    """Settings are frozen: whoever holds them cannot change what a router goes by."""
    config = ModelRouterConfig.from_json("{}")
    with pytest.raises(ValidationError, match="frozen"):
        config.settings.explore = 0.0  # type: ignore[misc]
