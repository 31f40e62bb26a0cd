"""Copies for comparison: who gets them, what is compared, and that clients notice nothing."""

from __future__ import annotations

import time
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.unit.serving.compared_targets import EVERY, Rig
from triton_router.config.parity_of import Pair
from triton_router.serving.copied_request import MAX_BYTES
from triton_router.testing.fake_stub import FakeTensor

if TYPE_CHECKING:
    from collections.abc import Iterator

INT8, NEXT = Pair("int8", "fp32"), Pair("next", "fp32")


@pytest.fixture(params=[True, False], ids=["inline", "in a worker"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    made = Rig(dispatch={"inline": request.param})
    yield made
    made.dispatcher.close()


@pytest.mark.parametrize("server", ["fp32", "int8"])
def test_a_variant_is_judged_whoever_serves(rig: Rig, server: str) -> None:
    """What the variant served is asked again of the reference, and the other way round; both find the same."""
    rig.only(server)
    rig.serve(20)
    assert set(rig.judge.notes) == {(INT8, "")}
    rig.wrong.add("int8")
    rig.judge.notes.clear()
    rig.serve(20)
    assert rig.judge.notes
    assert all(pair == INT8 and "cosine" in problem for pair, problem in rig.judge.notes)


def test_a_client_gets_what_served_it_answered_and_nothing_else(rig: Rig) -> None:
    """One answer for each request, that of the target that served it, whatever the copies answer."""
    rig.wrong.add("int8")
    rig.only("fp32")
    for request in rig.serve(20):
        ((response, flags),) = request.answers
        np.testing.assert_array_equal(response.output_tensors()[0].as_numpy(), np.full((1, 4), 2.0))
        assert flags == 1
    assert rig.calls["int8"]


def test_copies_are_no_clients_requests(rig: Rig) -> None:
    """They teach what the target takes, and are counted as copies alone."""
    rig.only("fp32")
    rig.serve(20)
    variant = next(target for target in rig.engine.snapshot(time.monotonic()) if target.target.name == "int8")
    assert variant.mirrored == rig.calls["int8"] == variant.latency.count > 0
    assert (variant.chosen, variant.succeeded) == (0, 0)


def test_who_is_not_guarded_gets_no_copy(rig: Rig) -> None:
    """A second fp32 variant on the same kind of device is neither asked nor judged, nor compared when it serves."""
    rig.only("next")
    rig.serve(20)
    assert set(rig.calls) == {"next"}
    assert not rig.judge.notes


def test_a_copy_that_fails_is_no_divergence_but_a_failure(rig: Rig) -> None:
    """An error of the variant counts against its health, and says nothing of its answers."""
    rig.failing.add("int8")
    rig.only("fp32")
    rig.serve(20)
    assert set(rig.judge.failures) == {INT8}
    assert not rig.judge.notes
    variant = next(target for target in rig.engine.snapshot(time.monotonic()) if target.target.name == "int8")
    assert variant.error_rate > 0


@pytest.mark.parametrize("server", ["fp32", "int8"])
def test_who_refuses_what_the_reference_answers_diverges(rig: Rig, server: str) -> None:
    """Whoever served: no failure shows it. What both refuse says nothing, nor what the reference alone refuses."""
    rig.only(server)
    rig.refusing.add("int8")
    rig.serve(20)
    assert set(rig.judge.notes) == {(INT8, "refuses what 'fp32' answers")}
    rig.judge.notes.clear()
    rig.refusing.add("fp32")
    rig.serve(20)
    rig.refusing.remove("int8")
    rig.serve(20)
    assert not rig.judge.notes


def test_a_canary_that_gets_everything_is_seen_to_refuse() -> None:
    """There is no request of stable's that could be asked of it; and a shadow has nothing to be held against."""
    rig = Rig(rollout={"id": "r", "canary": ["next"], "weight": 100}, shadow={"target": "int8", **EVERY})
    rig.judge.canary = True
    rig.serve(20)
    rig.judge.notes.clear()
    shadowed = rig.calls["int8"]
    rig.refusing.add("next")
    assert all(request.answers[0][0].has_error() for request in rig.serve(20))
    assert set(rig.judge.notes) == {(NEXT, "refuses what 'fp32' answers")}
    assert rig.calls["int8"] == shadowed
    rig.dispatcher.close()


def test_what_is_refused_for_something_that_a_copy_has_not_says_nothing(rig: Rig) -> None:
    """An id, for one, that anybody may send: nobody is put out of service by a request of which only half is asked."""
    rig.only("int8")
    rig.refusing_ids.add("int8")
    assert all(request.answers[0][0].has_error() for request in rig.serve(20))
    assert rig.calls["fp32"]
    assert not rig.judge.notes


def test_what_cannot_be_forwarded_is_no_refusal_of_anybodys(rig: Rig, capfd: pytest.CaptureFixture[str]) -> None:
    """Nobody is asked, nothing is noted, and the log has nothing of a client's mistakes."""
    rig.only("int8")
    rig.params = {"a": [1]}
    assert all(request.answers[0][0].has_error() for request in rig.serve(20))
    assert not rig.judge.notes
    assert not rig.judge.failures
    assert not rig.calls
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("inline", [True, False])
def test_what_the_client_was_not_answered_is_not_compared(inline: bool) -> None:
    """Where nobody answers nothing is said of anybody's answers, and no later sample is held up by it."""
    patient = {"consecutive_failures": 1000, "failure_rate": 1.0}
    rig = Rig(dispatch={"inline": inline}, health=patient)
    rig.failing.update({"fp32", "int8", "next"})
    rig.serve(3)
    assert not rig.judge.notes
    rig.failing.clear()
    rig.only("fp32")
    rig.serve(20)
    assert rig.judge.notes
    rig.dispatcher.close()


@pytest.mark.parametrize(
    "tensor",
    [
        FakeTensor("X", (1, 16)),  # BF16: has no array
        FakeTensor("X", (1, 16), np.zeros((1, 16), np.float32), on_cpu=False),
        FakeTensor.of("X", np.zeros((1, MAX_BYTES), np.int16)),
        FakeTensor.of("X", np.array([[3, b"x" * MAX_BYTES, "y"]], object)),
    ],
    ids=["bf16", "gpu", "large", "few large strings"],
)
def test_what_cannot_be_copied_is_served_all_the_same(tensor: FakeTensor) -> None:
    """It is counted, nothing is compared, and requests that can be copied are compared again."""
    rig = Rig(targets=[{"name": "fp32", "model": "a"}, {"name": "int8", "model": "b", "variant": "int8"}])
    rig.only("fp32")
    (served,) = rig.serve(1, tensor)
    assert len(served.answers) == 1
    assert rig.dispatcher.comparisons.uncopied
    assert not rig.judge.notes
    rig.serve(3)
    assert rig.judge.notes
    rig.dispatcher.close()


def test_one_copy_at_a_time_and_one_that_hangs_is_given_up() -> None:
    """While a copy hangs no other goes out; once it is overdue others do, and clients notice nothing of either."""
    rig = Rig(dispatch={"inline": False}, retry={"overdue_ms": 2000})
    rig.only("fp32")
    rig.hanging.add("int8")
    rig.gate.clear()
    comparisons = rig.dispatcher.comparisons
    rig.settle = lambda: None  # the copies do not come back
    rig.serve(10)
    _until(lambda: rig.calls["int8"] == 1)
    rig.serve(10)
    assert rig.calls["int8"] == 1
    _until(lambda: time.monotonic() > comparisons._guard._overdue_at)
    rig.serve(10)
    _until(lambda: rig.calls["int8"] == 2)
    rig.gate.set()
    rig.dispatcher.close()


def test_nothing_is_copied_while_every_worker_is_busy() -> None:
    """Comparisons are for idle time: a machine at its limit serves clients."""
    rig = Rig()
    comparisons = rig.dispatcher.comparisons
    comparisons._is_busy = lambda: True
    rig.only("fp32")
    rig.serve(20)
    assert set(rig.calls) == {"fp32"}
    rig.dispatcher.close()


@pytest.mark.parametrize(
    "settings",
    [
        {"parity": {"share": 0.0}},
        {"retry": {"idempotent": False}},
        {"targets": [{"name": "fp32", "model": "a"}, {"name": "other", "model": "b"}]},
        {
            "targets": [
                {"name": "fp32", "model": "a", "variant": "onnx-int8"},
                {"name": "b", "model": "b", "variant": "int8"},
            ]
        },
    ],
    ids=["no share", "not idempotent", "none quantised", "no reference"],
)
def test_where_nothing_is_to_be_compared_no_copy_is_made(settings: dict[str, Any]) -> None:
    """And what every request pays for it is a subtraction."""
    rig = Rig(**settings)
    rig.serve(20)
    assert sum(rig.calls.values()) == 20
    assert rig.dispatcher.comparisons._due_at == inf
    rig.dispatcher.close()


def test_a_shadow_gets_copies_of_what_anybody_served_and_nothing_else() -> None:
    """Its answers are compared with those that clients got; none of its own reaches a client."""
    rig = Rig(shadow={"target": "next", **EVERY}, parity={"share": 0.0})
    rig.wrong.add("next")
    for server in ("fp32", "int8"):
        rig.only(server)
        for request in rig.serve(10):
            np.testing.assert_array_equal(request.answers[0][0].output_tensors()[0].as_numpy(), np.full((1, 4), 2.0))
    assert {pair for pair, _ in rig.judge.notes} == {Pair("next", "fp32"), Pair("next", "int8")}
    assert all(problem for _, problem in rig.judge.notes)
    assert rig.calls["next"] == len(rig.judge.notes)
    rig.dispatcher.close()


def test_a_shadow_that_is_not_compared_is_asked_only() -> None:
    """``compare: false`` is for a shadow that is meant to answer differently."""
    rig = Rig(shadow={"target": "next", "compare": False, **EVERY}, parity={"share": 0.0})
    rig.only("fp32")
    rig.serve(10)
    assert rig.calls["next"]
    assert not rig.judge.notes
    rig.dispatcher.close()


def test_a_canary_is_compared_with_stable_while_its_gate_wants_to_know() -> None:
    """Whoever serves; and once the gate has spoken, no more."""
    rig = Rig(rollout={"id": "r", "canary": ["next"]}, parity={**EVERY, "targets": []})
    rig.judge.canary = True
    rig.serve(30)
    assert {pair.judged for pair, _ in rig.judge.notes} == {"next"}
    rig.judge.canary = False
    rig.judge.notes.clear()
    rig.serve(10)
    assert not rig.judge.notes
    rig.dispatcher.close()


def test_of_several_variants_each_has_its_turn() -> None:
    """What the reference served is asked again of one guarded target after the other."""
    rig = Rig(parity={**EVERY, "targets": ["int8", "next"]})
    rig.only("fp32")
    rig.serve(20)
    judged = [pair for pair, _ in rig.judge.notes]
    assert abs(judged.count(INT8) - judged.count(NEXT)) <= 1
    rig.dispatcher.close()


def test_settings_are_followed_while_requests_are_served() -> None:
    """A share that is set to nothing ends comparisons, and another tolerance finds something else."""
    rig = Rig()
    rig.only("fp32")
    rig.wrong.add("int8")
    loose = rig.config.model_copy(
        update={"parity": rig.config.parity.model_validate({**EVERY, "tolerance": {"relative": 1e9, "cosine": -1.0}})}
    )
    rig.follow(loose)
    rig.serve(5)
    assert {problem for _, problem in rig.judge.notes} == {""}
    rig.follow(rig.config.model_copy(update={"parity": rig.config.parity.model_validate({"share": 0.0})}))
    before = rig.calls["int8"]
    rig.serve(5)
    assert rig.calls["int8"] == before
    rig.dispatcher.close()


def _until(met: Any) -> None:
    end = time.monotonic() + 60
    while not met():
        assert time.monotonic() < end
        time.sleep(0.002)
