"""Whatever a client puts into its request's parameters, it is routed or refused by name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.properties.hostile import PROFILE, VALUES, refused_well
from triton_router.errors import TritonRouterError
from triton_router.experiments.split import Split
from triton_router.experiments.splitting_engine import SplittingEngine, Trials
from triton_router.profiling.profile import TargetProfile
from triton_router.routing.policies import policy_named
from triton_router.routing.rules import RoutingRules
from triton_router.routing.types import Backend, Target
from triton_router.serving.forwarding import Forwarder
from triton_router.serving.parameters import MAX_CHARACTERS
from triton_router.testing.fake_stub import FakeRequest, FakeStub, FakeTensor

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES = st.one_of(
    st.sampled_from(["router_goal", "router_max_latency_ms", "router_backends", "router_key", "router_explain"]),
    st.sampled_from(["router_priority", "x-priority", "x-router-goal", "X-Router-Max-Latency-Ms", "X-ROUTER-KEY"]),
    st.sampled_from(["router_", "x-router-", "router_self", "X-Router-", "triton_x", "\x1b[2Jrouter", "\ud800router"]),
    st.text(max_size=8),
)
CARRIED = st.one_of(st.integers(-(2**63), 2**64 - 1), st.booleans(), st.text(max_size=12))
FEASIBLE = st.sampled_from(["latency", "1", "1e-9", "86400000", "cpu", "cpu,gpu", "true", "no", " ", "٣", "1_0", "nan"])


class RawRequest(FakeRequest):
    """A request whose parameters are the given text, whatever that is."""

    text = ""

    def parameters(self) -> str:
        return self.text


def engine() -> SplittingEngine:
    """Two targets and an experiment, so that keys are hashed."""
    targets = [(Target("a", "m", None, Backend.CPU), TargetProfile([(16, 1.0)]))]
    targets.append((Target("b", "n", None, Backend.GPU), TargetProfile([(16, 2.0)])))
    split = Split("e", policy_named("latency"), policy_named("random"), 0.5)
    return SplittingEngine(targets, (policy_named("latency"), RoutingRules()), Trials(split), "m", rng=lambda: 0.5)


def _routed_or_refused(text: str) -> bool:
    request = RawRequest([FakeTensor()])
    request.text = text
    forwarder = Forwarder(FakeStub(lambda *_: None), batched=True, explains=True)
    routing = engine()
    try:
        wish = forwarder.wish(request)
        decision = routing.decide(forwarder.context(request, wish), 1.0)
        forwarder.copy_for(decision.target, request, {})
    except TritonRouterError as error:
        refused_well(error)
        return False
    return True


@PROFILE
@given(parameters=st.dictionaries(NAMES, VALUES | CARRIED | FEASIBLE, max_size=4))
@example(parameters={"router_max_latency_ms": 10**4000})
@example(parameters={"router_max_latency_ms": float("nan")})
@example(parameters={"router_key": "\ud800"})
@example(parameters={"router_goal": "\x1b[2J" * 200})
@example(parameters={"router_backends": "cpu," * 31 + "cpu"})
@example(parameters={"k" * 100_000: 1.5})
def test_any_parameters_are_routed_or_refused(parameters: Mapping[str, Any]) -> None:
    """Names in every spelling, values of every kind, those included that no server would pass on."""
    _routed_or_refused(json.dumps(parameters))


@PROFILE
@given(text=st.text(max_size=60), around=st.sampled_from(["%s", '{"router_key": %s}', '{"a": %s}', '"router%s"']))
@example(text="[" * 100_000, around='{"router_key": %s')
@example(text='{"a":' * 100_000, around='{"a": %s')
@example(text="9" * 5_000, around='{"router_key": %s}')
@example(text="[]", around="%s")
def test_any_text_is_routed_or_refused(text: str, around: str) -> None:
    """As from a server that escapes wrongly: text that is no JSON, or no object, nested without end."""
    _routed_or_refused(around % text)


@pytest.mark.parametrize("name", ["router_key", "mine"])
def test_parameters_beyond_the_bound_are_refused_unread(name: str) -> None:
    """A megabyte is taken, one character more is not: reading them would hold up every other request."""
    room = MAX_CHARACTERS - len(json.dumps({"mine": "", "router_goal": "latency"}))
    assert _routed_or_refused(json.dumps({"mine": "x" * room, "router_goal": "latency"}))
    assert not _routed_or_refused(json.dumps({name: "x" * MAX_CHARACTERS}))
