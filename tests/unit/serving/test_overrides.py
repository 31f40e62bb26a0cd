"""What a request may ask of the router, in every spelling, and what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triton_router.errors import RequestError, UnsupportedError
from triton_router.profiling.profile import TargetProfile
from triton_router.routing.engine import RoutingEngine
from triton_router.routing.policies import policy_named
from triton_router.routing.types import Backend, OptimizationGoal, RoutingContext, Target
from triton_router.serving.capabilities import has_response_parameters
from triton_router.serving.exchange import Exchange
from triton_router.serving.explanation_json import as_json
from triton_router.serving.forwarding import Forwarder
from triton_router.serving.overrides import HEADER_PATTERN, Overrides, overrides
from triton_router.serving.relay import EXPLANATION_PARAMETER, Relay
from triton_router.testing.fake_stub import FakeRequest, FakeStub, FakeTensor, InferenceResponse

if TYPE_CHECKING:
    from collections.abc import Mapping

EVERYTHING = Overrides(OptimizationGoal.MINIMIZE_POWER, 20.0, frozenset({Backend.CPU, Backend.GPU}), explain=True)


@pytest.mark.parametrize(
    "given_",
    [
        {"router_goal": "power", "router_max_latency_ms": 20, "router_backends": "cpu,gpu", "router_explain": True},
        {"router_goal": "Power", "router_max_latency_ms": "20.0", "router_backends": "cuda, CPU", "router_explain": 1},
        {"x-router-goal": "power", "x-router-max-latency-ms": "2e1", "x-router-backends": "gpu,cpu"}
        | {"x-router-explain": "yes"},
        {"X-Router-Goal": "power", "X-ROUTER-MAX-LATENCY-MS": "20", "x-Router-Backends": "gpu,cpu,gpu"}
        | {"X-Router-Explain": "TRUE"},
        {"router_goal": "power", "x-router-goal": "latency", "router_max_latency_ms": 20, "router_explain": "true"}
        | {"router_backends": "cpu,gpu", "X-Router-Max-Latency-Ms": "1"},
        {"x-router-goal": "latency", "router_goal": "power", "x-router-backends": "cpu", "router_backends": "cpu,gpu"}
        | {"router_max_latency_ms": 20, "router_explain": True, "mine": 3, "router_id": "own", "x-router-own": "1"},
    ],
)
def test_every_spelling_says_the_same(given_: Mapping[str, Any]) -> None:
    """Parameters and headers of any case; a parameter wins; what is not the router's is not looked at."""
    assert overrides(json.dumps(given_)) == EVERYTHING


@pytest.mark.parametrize("text", ["{}", "", '{"mine": 1}', '{"goal": "power"}', '{"router_other": "x"}'])
def test_requests_that_ask_for_nothing(text: str) -> None:
    """They are told apart from those that do."""
    assert overrides(text) is None


@pytest.mark.parametrize("value", ["balanced", "BALANCED"])
def test_asking_for_the_default_asks_for_nothing(value: str) -> None:
    """The policy in force decides."""
    assert overrides(json.dumps({"router_goal": value})) is None


@pytest.mark.parametrize(
    ("key", "value", "hint"),
    [
        ("router_goal", "fastest", "one of latency, throughput, power, balanced"),
        ("router_goal", 3, "one of latency"),
        ("router_max_latency_ms", 0, "more than 0"),
        ("router_max_latency_ms", -5, "more than 0"),
        ("router_max_latency_ms", "nan", "more than 0"),
        ("router_max_latency_ms", "inf", "more than 0"),
        ("router_max_latency_ms", "1e300", "at most 86400000"),
        ("x-router-max-latency-ms", "soon", "more than 0"),
        ("router_backends", "", "separated by commas"),
        ("router_backends", "cpu,,gpu", "separated by commas"),
        ("router_backends", "tpu", "some of cpu, gpu, neural_engine, metal_mps"),
        ("router_explain", "perhaps", "true or false"),
        ("router_goal", "x" * 129, "at most 128 characters"),
        ("router_goal", None, "text of"),
        ("router_goal", ["power"], "text of"),
    ],
)
def test_a_wrong_value_is_refused_with_what_to_write(key: str, value: object, hint: str) -> None:
    """Never silently ignored, and never repeated at length."""
    with pytest.raises(RequestError) as refused:
        overrides(json.dumps({key: value}))
    assert hint in refused.value.hint
    assert key in refused.value.message
    assert len(refused.value.message) < 300


@given(
    st.dictionaries(
        st.sampled_from(["router_goal", "X-Router-Backends", "router_max_latency_ms", "x-router-explain"])
        | st.text(max_size=20),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=200) | st.lists(st.integers()),
    )
)
def test_nothing_else_is_raised(parameters: dict[str, object]) -> None:
    """Whatever a client sends is understood, not the router's, or refused; what is understood is sound."""
    try:
        wish = overrides(json.dumps(parameters))
    except RequestError:
        return
    assert wish is None or (0.0 <= wish.max_latency_ms <= 86_400_000 and wish.backends != frozenset())


def test_the_forwarded_headers_are_these_four() -> None:
    """The pattern lets no other header through."""
    import re

    pattern = re.compile(HEADER_PATTERN, re.IGNORECASE)
    names = ("X-Router-Goal", "x-router-max-latency-ms", "x-router-backends", "x-router-explain")
    assert all(pattern.fullmatch(name) for name in names)
    assert not any(pattern.fullmatch(name) for name in ("authorization", "cookie", "x-router", "x-router-goal-2"))


def test_the_wish_reaches_the_engine_and_the_target() -> None:
    """The context carries it, and the parameters go on to the target unchanged."""
    stub: Any = FakeStub(lambda _: None)
    forwarder = Forwarder(stub, batched=True)
    parameters = {"router_goal": "power", "router_max_latency_ms": 20, "router_backends": "cpu,gpu", "mine": "x"}
    request: Any = FakeRequest(params=parameters)
    context = forwarder.context(request, forwarder.wish(request))
    assert context.optimization_goal is OptimizationGoal.MINIMIZE_POWER
    assert context.max_latency_ms == 20.0
    assert context.allowed_backends == EVERYTHING.backends
    forwarded: Any = forwarder.request_for(Target("t", "m"), Exchange(request, context, 0.0))
    assert forwarded.arguments["parameters"] == parameters


def test_an_explanation_is_refused_where_it_cannot_travel() -> None:
    """With the release that is needed, instead of an answer that lacks it."""
    stub: Any = FakeStub(lambda _: None)
    request: Any = FakeRequest(params={"router_explain": True})
    with pytest.raises(UnsupportedError, match=r"25\.02"):
        Forwarder(stub, batched=True).wish(request)
    assert Forwarder(stub, batched=True, explains=True).wish(request) == Overrides(explain=True)
    assert not has_response_parameters(stub)


class ParametersResponse(InferenceResponse):
    """What servers from 25.02 on have."""

    def __init__(self, output_tensors: Any = (), error: Any = None, parameters: Any = None) -> None:
        """Take outputs, or an error, and parameters."""
        super().__init__(output_tensors, error)
        self.given = parameters or {}

    def parameters(self) -> str:
        """Return them as JSON."""
        return json.dumps(self.given)


def test_an_explanation_travels_as_a_response_parameter() -> None:
    """On a server that has them: the outputs are the target's own, the reason beside them is JSON."""
    stub: Any = FakeStub(lambda _: None)
    stub.InferenceResponse = ParametersResponse
    ParametersResponse.__init__.__doc__ = "__init__(self, output_tensors: list, error, parameters: object)"
    assert has_response_parameters(stub)
    engine = RoutingEngine(
        [(Target("a", "m"), TargetProfile([(1, 2.0)])), (Target("b", "m"), TargetProfile([(1, 9.0)]))],
        policy_named("latency"),
        rng=lambda: 0.5,
    )
    explanation = engine.explain(RoutingContext(1, 1.0), 0.0)
    relay = Relay(stub, Forwarder(stub, batched=True), streaming=False, clock=lambda: 0.0)
    good: Any = InferenceResponse([FakeTensor()])
    answer: Any = relay.explained(good, explanation, "a")
    assert answer.output_tensors() == good.output_tensors()
    told = json.loads(answer.given[EXPLANATION_PARAMETER])
    assert told["target"] == "a"
    assert told["chosen"] == "a"
    assert [target["target"] for target in told["targets"]] == ["a", "b"]
    assert as_json(explanation)["targets"] == told["targets"]
    own: Any = ParametersResponse([FakeTensor()], parameters={"tokens": 4})
    beside: Any = relay.explained(own, explanation, "a")
    assert set(beside.given) == {"tokens", EXPLANATION_PARAMETER}
    failed = relay.refused(RequestError("no"))
    assert relay.explained(failed, explanation, "a") is failed


def test_a_backslash_is_shown_once() -> None:
    """What a client sent is escaped once, so that it can be found again in what it sent."""
    with pytest.raises(RequestError) as refused:
        overrides(json.dumps({"router_goal": "a\\b\x1b"}))
    assert "cannot be 'a\\b\\x1b'" in refused.value.message
