"""The onnx and torch backends on a real Triton, with small generated models."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc as client
from tritonclient.utils import InferenceServerException

from triton_router.serving.status_socket import read_statuses

if TYPE_CHECKING:
    from collections.abc import Callable

    from triton_router.testing.triton_server import TritonServer

pytestmark = [pytest.mark.triton, pytest.mark.beside, pytest.mark.build]

LOADED = ("lookup", "lookup-native-name", "echo", "program")
ROUTED = {"routed-lookup": "lookup-native-name", "routed-program": "program"}


@pytest.fixture(scope="module")
def server(start_triton: Callable[..., TritonServer], tmp_path_factory: pytest.TempPathFactory) -> TritonServer:
    """A server in explicit mode over every model, good and bad, with the good ones loaded."""
    repository = tmp_path_factory.mktemp("executing")
    subprocess.run(
        [sys.executable, str(Path(__file__).with_name("executing_models.py")), str(repository)],
        check=True,
        timeout=240,
    )
    for name, target in ROUTED.items():
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text('backend: "router"\n')
        # Measured, as after a build: who never answered and refuses everything is held to be misdeclared.
        measured = "measured_latency: [{work: 1, latency_ms: 1.0}]"
        (repository / name / "router.yaml").write_text(f"targets:\n- {{name: it, model: {target}, {measured}}}\n")
    return start_triton(repository, control_mode="explicit", load_models=(*LOADED, *ROUTED))


@pytest.fixture
def triton(server: TritonServer) -> client.InferenceServerClient:
    """A gRPC client."""
    with client.InferenceServerClient(server.grpc_url) as connection:
        yield connection


def infer(triton: client.InferenceServerClient, model: str, **arrays: np.ndarray) -> client.InferResult:
    """Send one request."""
    types = {"int64": "INT64", "float32": "FP32", "object": "BYTES", "int32": "INT32"}
    inputs = []
    for name, array in arrays.items():
        tensor = client.InferInput(name, array.shape, types[str(array.dtype)])
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    return triton.infer(model, inputs, client_timeout=90)


def ids(*values: int) -> np.ndarray:
    """Return a batch of one row of ids."""
    return np.array([values], dtype=np.int64)


def together(triton: client.InferenceServerClient, model: str, requests: list[dict[str, np.ndarray]]) -> list:
    """Send requests at the same time; each result is an InferResult or the exception."""

    def one(arrays: dict[str, np.ndarray]) -> object:
        try:
            return infer(triton, model, **arrays)
        except InferenceServerException as error:
            return error

    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(one, requests))


def test_concurrent_requests_run_as_one_batch_and_keep_their_own_answers(triton: client.InferenceServerClient) -> None:
    """Four waiting requests reach ONNX Runtime as one batch of four, and each gets its own row back."""
    results = together(triton, "lookup", [{"ids": ids(n, 0)} for n in range(4)])
    assert [result.as_numpy("seen").item() for result in results] == [4, 4, 4, 4]
    for n, result in enumerate(results):
        assert result.as_numpy("rows").tolist() == [[[2.0 * n, 2.0 * n + 1], [0.0, 1.0]]]


def test_one_bad_request_of_a_merged_batch_fails_alone(triton: client.InferenceServerClient) -> None:
    """An id beyond the table fails its own request, as the client's mistake; the other three are answered."""
    results = together(triton, "lookup", [{"ids": ids(n)} for n in (0, 99, 1, 2)])
    failed = results.pop(1)
    assert isinstance(failed, InferenceServerException)
    assert failed.status() == "StatusCode.INVALID_ARGUMENT"
    assert "out of data bounds" in failed.message()
    assert [result.as_numpy("rows").tolist() for result in results] == [[[[0, 1]]], [[[2, 3]]], [[[4, 5]]]]
    assert [result.as_numpy("seen").item() for result in results] == [1, 1, 1], "they ran again, one by one"


def test_requests_that_differ_in_shape_are_answered_in_their_own_shape(triton: client.InferenceServerClient) -> None:
    """Lengths 1, 3, 1 and 3 at the same time come back with lengths 1, 3, 1 and 3."""
    results = together(triton, "lookup", [{"ids": ids(*range(n))} for n in (1, 3, 1, 3)])
    assert [result.as_numpy("rows").shape for result in results] == [(1, 1, 2), (1, 3, 2), (1, 1, 2), (1, 3, 2)]


def test_only_the_wanted_outputs_come_back(triton: client.InferenceServerClient) -> None:
    """A request that names one output gets that one."""
    tensor = client.InferInput("ids", (1, 1), "INT64")
    tensor.set_data_from_numpy(ids(3))
    result = triton.infer("lookup-native-name", [tensor], outputs=[client.InferRequestedOutput("seen")])
    assert [output.name for output in result.get_response().outputs] == ["seen"]


def test_a_model_for_the_native_backend_is_served_without_it(triton: client.InferenceServerClient) -> None:
    """``backend: "onnxruntime"`` runs on the onnx backend where Triton's own is not installed."""
    assert infer(triton, "lookup-native-name", ids=ids(1)).as_numpy("rows").tolist() == [[[2.0, 3.0]]]


def test_text_survives_the_way_through_onnx_runtime(triton: client.InferenceServerClient) -> None:
    """Non-ASCII text comes back as the same bytes."""
    text = np.array([["Grüße, 世界"], [""]], dtype=np.object_)
    same = infer(triton, "echo", text=text).as_numpy("same")
    assert [item.decode() for item in same.ravel()] == ["Grüße, 世界", ""]


def test_bytes_that_are_not_text_are_the_clients_mistake(triton: client.InferenceServerClient) -> None:
    """ONNX strings are UTF-8: other bytes are refused, never turned into something else."""
    with pytest.raises(InferenceServerException, match="UTF-8") as caught:
        infer(triton, "echo", text=np.array([[b"\xff\xfe"]], dtype=np.object_))
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_an_exported_program_merges_and_matches_inputs_by_name(triton: client.InferenceServerClient) -> None:
    """config.pbtxt lists the inputs in another order than forward() takes them; names decide, and batches merge."""
    requests = [{"ids": ids(n, n), "scale": np.array([[2.0]], dtype=np.float32)} for n in range(4)]
    results = together(triton, "program", requests)
    assert [result.as_numpy("mean").tolist() for result in results] == [[[4.0 * n, 4.0 * n + 2]] for n in range(4)]
    assert [result.as_numpy("seen").item() for result in results] == [4, 4, 4, 4]


@pytest.mark.parametrize("bad", [ids(0, 7), ids(*([0] * 17))], ids=["index", "length"])
def test_a_program_refuses_what_it_was_not_exported_for(triton: client.InferenceServerClient, bad: np.ndarray) -> None:
    """An index beyond the table and a length beyond the exported range are the client's mistakes, and fail alone."""
    scale = np.ones((1, 1), dtype=np.float32)
    good = {"ids": ids(*([1] * bad.shape[1]))[:, :2], "scale": scale}
    results = together(triton, "program", [{"ids": bad, "scale": scale}, *[good] * 3])
    assert results[0].status() == "StatusCode.INVALID_ARGUMENT"
    assert [result.as_numpy("mean").tolist() for result in results[1:]] == [[[2.0, 3.0]]] * 3


def settled(server: TritonServer, model: str) -> dict[str, Any]:
    """Return a routed model's only target once all is accounted for, which is after the clients are answered."""
    deadline = time.monotonic() + 60
    while True:
        (status,) = [status for status in read_statuses(server.pid) if status["model"] == model]
        (target,) = status["targets"]
        if not target["in_flight"]:
            return target
        assert time.monotonic() < deadline, "requests are still counted as in flight"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("model", "bad"),
    [
        ("routed-lookup", {"ids": ids(99)}),
        ("routed-program", {"ids": ids(0, 7), "scale": np.ones((1, 1), dtype=np.float32)}),
    ],
)
def test_a_wrong_request_is_the_clients_mistake_through_a_router_too(
    triton: client.InferenceServerClient, server: TritonServer, model: str, bad: dict[str, np.ndarray]
) -> None:
    """They get the target's own words and code, however many they are, and it is not held against the target."""
    direct = together(triton, ROUTED[model], [bad] * 4)[0]
    for failed in [*together(triton, model, [bad] * 4), *together(triton, model, [bad] * 4)]:
        assert (failed.status(), failed.message()) == ("StatusCode.INVALID_ARGUMENT", direct.message())
    target = settled(server, model)
    assert (target["refused"], target["failed"], target["why"]) == (8, 0, "")


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("corrupt", "not accepted by ONNX Runtime"),
        ("wrong-type", "correct data_type in config.pbtxt"),
        ("wrong-name", "declares output 'columns'"),
        ("wrong-threads", "not a whole number"),
        ("absent-provider", "would run on the CPU instead"),
        ("tampered", "not the file in manifest.json"),
        ("unlisted", "no manifest.json"),
        ("absent-device", "does not find here"),
    ],
)
def test_what_cannot_be_served_is_refused_at_load_with_the_reason(
    triton: client.InferenceServerClient, model: str, reason: str
) -> None:
    """A broken file, a config that disagrees, a missing device or an unlisted program never becomes ready."""
    with pytest.raises(InferenceServerException, match=reason):
        triton.load_model(model)
    assert not triton.is_model_ready(model)
