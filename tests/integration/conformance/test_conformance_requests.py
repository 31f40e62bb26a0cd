"""Routed equals direct: everything that a request carries beside its tensors, and every kind of client."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http.aio as http_aio

if TYPE_CHECKING:
    from .conftest import Answer, Both

pytestmark = [pytest.mark.triton, pytest.mark.beside]

ONE = np.array([1.0], np.float32)


def x(client: Any) -> list[Any]:
    tensor = client.InferInput("X", [1], "FP32")
    tensor.set_data_from_numpy(ONE)
    return [tensor]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"request_id": "order-66 ✓"},
        {"timeout": 30_000_000},
        {"sequence_id": 77, "sequence_start": True},
        {"sequence_id": 77, "sequence_start": True, "sequence_end": True},
        {"sequence_id": "a-name", "sequence_start": True, "sequence_end": True},
        {"parameters": {"yes": True, "no": False, "count": -3, "big": 2**62, "text": 'quo"ted\nžluť\\', "empty": ""}},
        {"requested": ["SEEN"]},
        {"request_id": "x", "parameters": {"k": "v"}, "requested": ["SEEN", "UNUSED"]},
    ],
    ids=str,
)
def test_the_target_sees_the_same_request(both: Both, options: dict[str, Any]) -> None:
    """Id, timeout, correlation id, flags, parameters and requested outputs reach the target unchanged.

    But for what the way through the router took of the timeout, where a busy machine takes its time.
    """
    asks = [both.over_grpc]
    if "parameters" not in options:  # the HTTP client of tritonclient sends parameters at another level
        asks.append(both.over_http)
    for ask in asks:
        began = time.monotonic()
        direct, through = ask("report", x, **options)
        most_us = (time.monotonic() - began) * 1e6
        seen, routed = (_seen(answer) for answer in (direct, through))
        if "timeout" in options:
            assert seen["timeout"] == options["timeout"]
            assert seen["timeout"] - most_us <= routed.pop("timeout") <= seen.pop("timeout")
        assert routed == seen


def _seen(answer: Answer) -> dict[str, Any]:
    """Return what the target has seen."""
    assert answer.outputs is not None, answer.message
    assert set(answer.outputs) == {"SEEN"}
    datatype, shape, raw = answer.outputs["SEEN"]
    assert datatype == "BYTES"
    found = json.loads(raw[raw.index(b'{"') :])
    return {**found, "shape": shape}


def test_what_cannot_be_forwarded_is_refused(both: Both) -> None:
    """A parameter that BLS cannot carry is refused by name and with a way out; it is never dropped."""
    body = {
        "inputs": [{"name": "X", "shape": [1], "datatype": "FP32", "data": [1.0]}],
        "parameters": {"temperature": 0.5},
    }
    status, answer = _post(both.server.http_url, "routed-report", body)
    assert status == 400
    assert "temperature" in answer["error"]
    assert "as a string" in answer["error"]


def test_plain_json_over_http(both: Both) -> None:
    """A JSON request such as curl sends gets the same JSON outputs."""
    body = {"id": "curl", "inputs": [{"name": "X", "shape": [2, 3], "datatype": "FP32", "data": [1, 2, 3, 4, 5, 6]}]}
    direct, through = (_post(both.server.http_url, model, body) for model in ("batch", "routed-batch"))
    assert direct[0] == through[0] == 200
    assert through[1]["outputs"] == direct[1]["outputs"]
    assert through[1]["id"] == direct[1]["id"] == "curl"


def test_metadata_is_the_targets(both: Both) -> None:
    """Without a word in its config.pbtxt, a routed model's inputs and outputs are its target's."""
    for model in ("types", "batch", "report", "failing", "sequence", "reshaped"):
        direct = both.grpc.get_model_metadata(model, as_json=True)
        through = both.grpc.get_model_metadata(f"routed-{model}", as_json=True)
        assert through["inputs"] == direct["inputs"]
        assert through["outputs"] == direct["outputs"]
        config = both.grpc.get_model_config(model, as_json=True)["config"]
        routed_config = both.grpc.get_model_config(f"routed-{model}", as_json=True)["config"]
        assert routed_config.get("max_batch_size") == config.get("max_batch_size")


def test_asyncio_clients(both: Both) -> None:
    """Fifty concurrent requests from each asyncio client get their own answers."""

    async def ask(client: Any, module: Any) -> None:
        async def one(value: float) -> None:
            tensor = module.InferInput("X", [1, 2], "FP32")
            tensor.set_data_from_numpy(np.full((1, 2), value, np.float32))
            result = await client.infer("routed-batch", [tensor])
            np.testing.assert_array_equal(result.as_numpy("Y"), np.full((1, 2), 2 * value, np.float32))

        await asyncio.gather(*(one(float(value)) for value in range(50)))

    async def run() -> None:
        async with grpc_aio.InferenceServerClient(both.server.grpc_url) as client:
            await ask(client, grpc_aio)
        async with http_aio.InferenceServerClient(both.server.http_url, conn_limit=50) as client:
            await ask(client, http_aio)

    asyncio.run(run())


def test_ragged_requests_at_once(both: Both) -> None:
    """Requests of different lengths under way together keep their own shapes."""
    pending = []
    for length in list(range(1, 40)) * 3:
        tensor = grpc_client.InferInput("X", [1, length], "FP32")
        tensor.set_data_from_numpy(np.full((1, length), length, np.float32))
        pending.append((length, both.http, tensor))
    client = both.grpc
    results: list[Any] = []
    for _, _, tensor in pending:
        client.async_infer("routed-batch", [tensor], lambda result, error: results.append((result, error)))
    _wait_for(lambda: len(results) == len(pending))
    lengths = []
    for result, error in results:
        assert error is None
        y = result.as_numpy("Y")
        assert y.shape[1] == result.as_numpy("LENGTH")[0, 0]
        assert (y == 2 * y.shape[1]).all()
        lengths.append(y.shape[1])
    assert sorted(lengths) == sorted(length for length, _, _ in pending)


def _wait_for(condition: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.005)


def _post(url: str, model: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(f"http://{url}/v2/models/{model}/infer", json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())
