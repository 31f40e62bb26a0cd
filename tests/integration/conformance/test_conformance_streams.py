"""Routed equals direct: decoupled targets and stateful sequences."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client

if TYPE_CHECKING:
    from .conftest import Both

pytestmark = [pytest.mark.triton, pytest.mark.beside]


def stream(both: Both, model: str, requests: list[tuple[list[Any], dict[str, Any]]]) -> list[tuple[Any, ...]]:
    """Send requests over one stream and return every response until each request has had its last."""
    answers: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
    with grpc_client.InferenceServerClient(both.server.grpc_url) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for inputs, options in requests:
            client.async_stream_infer(model, inputs, enable_empty_final_response=True, **options)
        collected: list[tuple[Any, ...]] = []
        finals = 0
        while finals < len(requests):
            result, error = answers.get(timeout=90)
            if error is not None:
                finals += 1
                collected.append(("error", error.message().replace("routed-", "")))
                continue
            response = result.get_response()
            final = response.parameters["triton_final_response"].bool_param
            finals += final
            tensors = zip(response.outputs, response.raw_output_contents, strict=True)
            collected.append((response.id, final, tuple((t.name, tuple(t.shape), raw) for t, raw in tensors)))
    return collected


def count(number: int) -> list[Any]:
    tensor = grpc_client.InferInput("COUNT", [1], "INT32")
    tensor.set_data_from_numpy(np.array([number], np.int32))
    return [tensor]


@pytest.mark.parametrize("number", [0, 1, 5, 200])
def test_decoupled_target(both: Both, number: int) -> None:
    """A stream of responses arrives whole, in order, and ends once."""
    one = [(count(number), {"request_id": "s"})]
    direct, through = (stream(both, model, one) for model in ("stream", "routed-stream"))
    assert sum(1 for answer in direct if answer[2]) == number
    assert through == direct


def test_error_on_a_stream(both: Both) -> None:
    """A decoupled target's error arrives as the stream's error, with its message."""
    direct, through = (stream(both, model, [(count(-2), {})]) for model in ("stream", "routed-stream"))
    assert direct == [("error", "cannot count to -2")]
    assert through == direct


def test_many_streams_at_once(both: Both) -> None:
    """Forty streams under way together keep their responses apart and in order."""
    requests = [(count(number % 7 + 1), {"request_id": str(number)}) for number in range(40)]
    through = stream(both, "routed-stream", requests)
    for number in range(40):
        mine = [answer[2] for answer in through if answer[0] == str(number) and answer[2]]
        indexes = [int(np.frombuffer(tensors[0][2], np.int32)[0]) for tensors in mine]
        assert indexes == list(range(number % 7 + 1))


def test_unary_call_of_a_streaming_model_is_refused_alike(both: Both) -> None:
    """Plain infer on a decoupled model fails with the same words, routed or not."""
    direct, through = both.over_grpc("stream", lambda _: count(1))
    assert direct.outputs is None
    assert through == direct


def test_unary_target_behind_a_streaming_router(both: Both) -> None:
    """A streaming routed model may have unary targets: one response each."""
    tensor = grpc_client.InferInput("X", [1, 2], "FP32")
    tensor.set_data_from_numpy(np.array([[1, 2]], np.float32))
    answers = [answer for answer in stream(both, "streaming-batch", [([tensor], {})]) if answer[2]]
    assert len(answers) == 1
    outputs = {name: raw for name, _, raw in answers[0][2]}
    assert outputs["Y"] == np.array([2, 4], np.float32).tobytes()


def number(value: int) -> list[Any]:
    tensor = grpc_client.InferInput("X", [1, 1], "INT32")
    tensor.set_data_from_numpy(np.array([[value]], np.int32))
    return [tensor]


def test_interleaved_sequences(both: Both) -> None:
    """Three sequences interleaved keep their own state, through the router as directly."""
    answers = []
    for model in ("sequence", "routed-sequence"):
        sums = []
        for step in range(5):
            for sequence in (11, 12, 13):
                result = both.grpc.infer(
                    model,
                    number(sequence * (step + 1)),
                    sequence_id=sequence,
                    sequence_start=step == 0,
                    sequence_end=step == 4,
                )
                sums.append(int(result.as_numpy("SUM")[0, 0]))
        answers.append(sums)
    assert answers[0][-1] == 13 * 15
    assert answers[1] == answers[0]


def test_a_sequence_sent_without_waiting_stays_in_order(both: Both) -> None:
    """Requests of one sequence sent back to back over a stream are served in the order they were sent."""
    requests = [
        (number(step), {"sequence_id": 99, "sequence_start": step == 1, "sequence_end": step == 60})
        for step in range(1, 61)
    ]
    answers = stream(both, "routed-sequence", requests)
    sums = sorted(int(np.frombuffer(answer[2][0][2], np.int32)[0]) for answer in answers if answer[0] != "error")
    assert sums == [step * (step + 1) // 2 for step in range(1, 61)]
