"""Outputs that answers lack: a model's way or a target's failure, told apart by what another target does."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.serving.failing_targets import Gate, Rig, answer_of, error
from triton_router.config.resilience_settings import RetryConfig
from triton_router.routing.resilience import Resilience
from triton_router.routing.types import RoutingContext, Target
from triton_router.serving.exchange import Attempt, Exchange
from triton_router.serving.optional_outputs import OptionalOutputs
from triton_router.testing.fake_stub import FakeRequest, FakeTensor, InferenceResponse

if TYPE_CHECKING:
    from collections.abc import Callable

EVERYTHING = frozenset({"Y", "Z", "W"})
OVERDUE = Resilience(retry_burst=1000, overdue_ms=300.0)


def giving(*names: str) -> InferenceResponse:
    return InferenceResponse([FakeTensor(name) for name in names])


def names_in(response: Any) -> list[str]:
    return [tensor.name() for tensor in response.output_tensors()]


def attempt_at(target: str, exchange: Exchange) -> Attempt:
    decision: Any = SimpleNamespace(target=Target(target, target))
    return Attempt(exchange, decision, 0.0)


def asked_for_all(rig: Rig, times: int = 1) -> list[list[str]]:
    """Return the names in each answer to requests that come one after the other, for every output."""
    return [names_in(rig.answered(FakeRequest(outputs=EVERYTHING))[0]) for _ in range(times)]


def failures(rig: Rig) -> list[str]:
    return [target for target, _, verdict in rig.verdicts() if verdict == "target_error"]


def test_a_target_owes_what_another_supplies() -> None:
    """Each client gets the whole answer; the first omission is nobody's failure, for one answer cannot tell."""

    def serve(name: str, _: dict[str, Any]) -> InferenceResponse:
        if name == "t0":
            return giving("Y", "Z")
        time.sleep(0.2)  # so that t0 goes first
        return giving(*EVERYTHING)

    rig = Rig(serve)
    assert [sorted(names) for names in asked_for_all(rig, 4)] == [sorted(EVERYTHING)] * 4
    assert rig.verdicts()[:2] == [("t0", "policy", "success"), ("t1", "retry", "success")]
    assert failures(rig) == ["t0"] * 3
    assert rig.closed() == {"retries": 4, "retries_helped": 4}


def test_what_every_target_leaves_out_is_nobodys_failure() -> None:
    """Two are asked once, for each output and not for each combination of them; then one, and nobody has failed."""
    left: list[tuple[str, ...]] = [("Y",), ("Y",), ("Y", "Z"), ("Y", "W"), ("Y", "Z", "W")]
    rig = Rig(lambda _, arguments: giving(*left[arguments["parameters"]["n"]]))
    for n, names in enumerate(left):
        (response,) = rig.answered(FakeRequest(params={"n": n}, outputs=EVERYTHING))
        assert names_in(response) == list(names)
    assert len(rig.calls) == len(left) + 1
    assert failures(rig) == []
    assert rig.closed() == {"retries": 1}


def test_what_each_target_leaves_out_now_and_then_is_optional() -> None:
    """Where answers differ by something else than the target, nobody owes it."""
    outputs = OptionalOutputs()
    for first, second in (("t0", "t1"), ("t1", "t0")):
        exchange = Exchange(FakeRequest(), RoutingContext(), 0.0)
        exchange.outputs = sorted(EVERYTHING)
        assert not outputs.left_out(attempt_at(first, exchange), giving("Y", "Z"))
        outputs.supplied(attempt_at(second, exchange))
    assert outputs.missing(giving("Y"), EVERYTHING) == {"Z"}
    assert outputs.missing(giving("Y", "Z"), EVERYTHING) == set()


def test_the_more_complete_answer_is_kept() -> None:
    """Of two that lack something, the client gets the one that lacks less; each owes what the other has."""
    outputs = OptionalOutputs()
    exchange = Exchange(FakeRequest(), RoutingContext(), 0.0)
    exchange.outputs = sorted(EVERYTHING)
    best = giving("Y", "Z")
    outputs.left_out(attempt_at("t0", exchange), giving("Y"))
    outputs.left_out(attempt_at("t1", exchange), best)
    outputs.left_out(attempt_at("t2", exchange), giving("Y"))
    assert exchange.incomplete is best
    assert outputs.missing(giving("Y"), EVERYTHING) == {"Z"}
    later = Exchange(FakeRequest(), RoutingContext(), 0.0)
    later.outputs = exchange.outputs
    assert outputs.left_out(attempt_at("t0", later), giving("Y", "W"))


@pytest.mark.parametrize(
    "alone",
    [{"targets": 1}, {"retry": RetryConfig(idempotent=False)}, {"retry": RetryConfig(attempts=1)}],
    ids=["one target", "not idempotent", "no retries"],
)
def test_who_cannot_be_compared_has_not_failed(alone: dict[str, Any]) -> None:
    """Where nobody else is asked, the answer is passed on as it is, and held against nobody."""
    rig = Rig(lambda _, __: giving("Y"), **alone)
    assert asked_for_all(rig, 20) == [["Y"]] * 20
    assert failures(rig) == []
    assert rig.closed() == {}


def test_what_is_left_out_after_an_error_is_passed_on() -> None:
    """An answer that lacks something is better than the error of another target."""
    rig = Rig(lambda name, _: giving("Y") if name == "t0" else error())
    assert asked_for_all(rig) == [["Y"]]
    assert rig.verdicts() == [("t0", "policy", "success"), ("t1", "retry", "target_error")]
    assert rig.closed() == {"retries": 1}


@pytest.mark.parametrize(
    ("options", "request_of"),
    [
        ({}, lambda: FakeRequest(outputs=EVERYTHING, timeout_us=500_000)),
        ({"resilience": OVERDUE}, lambda: FakeRequest(outputs=EVERYTHING)),
    ],
    ids=["deadline", "overdue"],
)
def test_a_target_that_hangs_takes_no_answer_away(
    options: dict[str, Any], request_of: Callable[[], FakeRequest]
) -> None:
    """Whoever is asked for what was left out has the client's time, or his own; then the client gets what there is."""
    gate = Gate()
    rig = Rig(lambda name, _: giving("Y") if name == "t0" else gate(giving(*EVERYTHING)), **options)
    request = request_of()
    rig.execute(request)
    assert names_in(answer_of(request)) == ["Y"]
    assert rig.dispatcher.resilience_counts()["abandoned"] == 1
    gate.open()
    counts = rig.closed()
    assert "deadline_errors_target" not in counts
