"""Routed equals direct: errors keep their class, as far as the server carries it, and their message."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
from tritonclient.utils import InferenceServerException

from triton_router.serving.status_socket import read_statuses

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Both

pytestmark = [pytest.mark.triton, pytest.mark.beside]


def how(text: str) -> Callable[[Any], list[Any]]:
    def build(client: Any) -> list[Any]:
        tensor = client.InferInput("HOW", [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[text.encode()]], dtype=np.object_))
        return [tensor]

    return build


def tensor(name: str, datatype: str, array: Any) -> Callable[[Any], list[Any]]:
    def build(client: Any) -> list[Any]:
        built = client.InferInput(name, list(array.shape), datatype)
        built.set_data_from_numpy(array)
        return [built]

    return build


@pytest.mark.parametrize(
    ("build", "options"),
    [
        pytest.param(tensor("X", "FP32", np.ones((9, 2), np.float32)), {}, id="batch too large"),
        pytest.param(tensor("X", "INT32", np.ones((1, 2), np.int32)), {}, id="wrong datatype"),
        pytest.param(tensor("X", "FP32", np.ones((1, 2, 2), np.float32)), {}, id="wrong rank"),
        pytest.param(tensor("Q", "FP32", np.ones((1, 2), np.float32)), {}, id="unknown input"),
        pytest.param(lambda _: [], {}, id="no input"),
        pytest.param(tensor("X", "FP32", np.ones((1, 2), np.float32)), {"requested": ["NOPE"]}, id="unknown output"),
        pytest.param(tensor("X", "FP32", np.ones((1, 2), np.float32)), {"model_version": "7"}, id="unknown version"),
        pytest.param(
            tensor("X", "FP32", np.ones((1, 2), np.float32)), {"parameters": {"triton_x": 1}}, id="reserved parameter"
        ),
    ],
)
def test_refusals_of_the_server_are_the_same(both: Both, build: Any, options: dict[str, Any]) -> None:
    """What Triton refuses for the target it refuses for the routed model: same status, same words but the name."""
    for ask in (both.over_grpc, both.over_http):
        if ask == both.over_http and "parameters" in options:
            continue
        try:
            direct, through = ask("batch", build, **options)
        except InferenceServerException:  # refused by the client library itself, before any server
            continue
        assert direct.outputs is None
        assert through == direct


@pytest.mark.parametrize(
    ("rows", "options"),
    [
        pytest.param(1, {}, id="no correlation id"),
        pytest.param(1, {"sequence_id": 91}, id="never started"),
        pytest.param(1, {"sequence_id": "a-name"}, id="never started, by name"),
        pytest.param(2, {"sequence_id": 92, "sequence_start": True}, id="two rows"),
    ],
)
def test_a_sequence_that_breaks_its_protocol_is_refused_alike(both: Both, rows: int, options: dict[str, Any]) -> None:
    """The client's mistake is the client's behind a router too, and counts against no target."""
    for ask in (both.over_grpc, both.over_http):
        direct, through = ask("sequence", tensor("X", "INT32", np.ones((rows, 1), np.int32)), **options)
        assert direct.outputs is None
        assert through == direct
    status = next(status for status in read_statuses(both.server.pid) if status["model"] == "routed-sequence")
    assert [target["failed"] for target in status["targets"]] == [0]


@pytest.mark.parametrize("code", ["UNKNOWN", "INTERNAL", "NOT_FOUND", "INVALID_ARG", "UNAVAILABLE", "UNSUPPORTED"])
def test_error_of_the_target(both: Both, code: str) -> None:
    """A target's own error arrives with its message; servers before 25.04 carry no code through BLS but INTERNAL."""
    message = f"{code.lower()}: 'quoted' žluť {{}} %s"
    direct, through = both.over_grpc("failing", how(f"error:{code}:{message}"))
    assert message in direct.message
    assert through.message == direct.message
    assert through.status in {direct.status, "StatusCode.INTERNAL"}


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("[request id: 1] unexpected shape for input 'X' for model 'm'. Expected [-1], got [2]", "INVALID_ARGUMENT"),
        ("Exceeds maximum queue size", "UNAVAILABLE"),
        ("Request for unknown model: 'm' is not found", "NOT_FOUND"),
    ],
)
def test_codes_of_known_messages_are_recovered(both: Both, message: str, status: str) -> None:
    """Messages of Triton's own get back the code that BLS lost."""
    code = {"INVALID_ARGUMENT": "INVALID_ARG"}.get(status, status)
    direct, through = both.over_grpc("failing", how(f"error:{code}:{message}"))
    assert direct.status == f"StatusCode.{status}"
    assert through == direct


def test_exception_in_the_target(both: Both) -> None:
    """An exception that the target lets escape keeps its text to the letter, and the next request is served."""
    direct, through = both.over_grpc("failing", how("raise:something broke"))
    assert "something broke" in direct.message
    assert through == direct
    direct, through = both.over_grpc("failing", how("fine"))
    assert direct.outputs is not None
    assert through == direct


def test_missing_output_is_passed_on_as_it_is(both: Both) -> None:
    """A target that leaves out a declared output is treated by Triton, and so by the router, as having none."""
    direct, through = both.over_grpc("failing", how("missing"))
    assert through == direct


def test_cancelled_requests_leave_nothing_behind(both: Both) -> None:
    """Clients that give up while their request waits or runs: the router's counters return to zero, and it serves."""
    with grpc_client.InferenceServerClient(both.server.grpc_url) as client:
        contexts = [
            client.async_infer("routed-failing", how("sleep:0.05")(grpc_client), lambda result, error: None)
            for _ in range(60)
        ]
        time.sleep(0.1)
        for context in contexts:
            context.cancel()
        deadline = time.monotonic() + 90
        while _in_flight("routed-failing", both.server.pid):
            assert time.monotonic() < deadline, "requests are still counted as in flight"
            time.sleep(0.05)
    direct, through = both.over_grpc("failing", how("fine"))
    assert through == direct


def test_a_client_timeout_does_not_stop_the_router(both: Both) -> None:
    """A client that stops waiting gets its deadline error; others are served meanwhile and after."""
    with pytest.raises(InferenceServerException, match="Deadline"):
        both.grpc.infer("routed-failing", how("sleep:0.5")(grpc_client), client_timeout=0.05)
    direct, through = both.over_grpc("batch", tensor("X", "FP32", np.ones((1, 2), np.float32)))
    assert direct.outputs is not None
    assert through == direct


def _in_flight(model: str, server_pid: int) -> int:
    status = next(status for status in read_statuses(server_pid) if status["model"] == model)
    return sum(target["in_flight"] for target in status["targets"])
