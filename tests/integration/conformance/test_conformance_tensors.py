"""Routed equals direct: tensors of every datatype and shape, bit for bit."""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
from tritonclient.utils import InferenceServerException, shared_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Both

pytestmark = [pytest.mark.triton, pytest.mark.beside]

NUMPY = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}
SHAPES = [(0, 3), (1, 1), (3, 5), (2, 0), (1, 70_000)]


def values(datatype: str, shape: tuple[int, int]) -> np.ndarray[Any, Any]:
    """Return a tensor with the datatype's extremes among its values."""
    count = shape[0] * shape[1]
    if datatype == "BYTES":
        words = [b"", b"\x00\xff\xfe", "žluťoučký".encode(), b"x" * 300]
        return np.array([words[i % 4] for i in range(count)], dtype=np.object_).reshape(shape)
    rng = np.random.default_rng(7)
    raw = rng.integers(0, 256, count * np.dtype(NUMPY[datatype]).itemsize, dtype=np.uint8).tobytes()
    if datatype == "BOOL":
        return (np.frombuffer(raw, np.uint8) % 2 == 0).reshape(shape)
    # Random bits: NaNs with payloads, infinities and denormals included.
    return np.frombuffer(raw, NUMPY[datatype]).reshape(shape)


def one_input(name: str, datatype: str, array: np.ndarray[Any, Any]) -> Callable[[Any], list[Any]]:
    def build(client: Any) -> list[Any]:
        tensor = client.InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array)
        return [tensor]

    return build


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("datatype", NUMPY)
def test_every_datatype_and_shape(both: Both, datatype: str, shape: tuple[int, int]) -> None:
    """A tensor of any datatype, empty ones included, comes back over gRPC and HTTP with the same bits."""
    name = "STRING" if datatype == "BYTES" else datatype
    array = values(datatype, shape)
    build = one_input(f"IN_{name}", datatype, array)
    requested = [f"OUT_{name}"]
    for direct, through in (
        both.over_grpc("types", build, requested=requested),
        both.over_http("types", build, requested=requested),
    ):
        assert direct.outputs is not None, direct.message
        assert direct.outputs[f"OUT_{name}"][1] == shape
        assert through == direct


def test_bfloat16(both: Both) -> None:
    """BF16, which numpy lacks, passes with the same bits."""
    raw = b"".join(struct.pack("<H", value) for value in (0x3F80, 0x7FC1, 0xFF80, 0x0001))

    def build(client: Any) -> list[Any]:
        tensor = client.InferInput("IN_BF16", [2, 2], "BF16")
        tensor._raw_content = raw
        return [tensor]

    direct, through = both.over_grpc("types", build, requested=["OUT_BF16"])
    assert through == direct
    if direct.outputs is not None:
        assert direct.outputs["OUT_BF16"] == ("BF16", (2, 2), raw)


def test_optional_inputs_and_requested_outputs(both: Both) -> None:
    """Any subset of optional inputs and of outputs gives the outputs that it gives directly."""

    def build(client: Any) -> list[Any]:
        return [
            *one_input("IN_FP32", "FP32", values("FP32", (2, 3)))(client),
            *one_input("IN_INT64", "INT64", values("INT64", (1, 4)))(client),
            *one_input("IN_STRING", "BYTES", values("BYTES", (2, 2)))(client),
        ]

    for requested in (None, ["OUT_FP32"], ["OUT_STRING", "OUT_INT64"], ["OUT_BOOL"]):
        for direct, through in (
            both.over_grpc("types", build, requested=requested),
            both.over_http("types", build, requested=requested),
        ):
            assert direct.outputs is not None, direct.message
            assert through == direct


@pytest.mark.parametrize("rows", [1, 2, 7, 8])
@pytest.mark.parametrize("length", [0, 1, 129])
def test_dynamic_batch_sizes(both: Both, rows: int, length: int) -> None:
    """Every batch size up to the model's, and every length, gives the same rows."""
    build = one_input("X", "FP32", values("FP32", (rows, length)) if length else np.zeros((rows, 0), np.float32))
    direct, through = both.over_grpc("batch", build)
    assert direct.outputs is not None, direct.message
    assert through == direct


def test_scalars(both: Both) -> None:
    """A target that reshapes rows of shape [1] to scalars gets its scalars through the router too."""
    direct, through = both.over_grpc("reshaped", one_input("X", "FP32", np.array([[2.5], [1.0]], np.float32)))
    assert direct.outputs == {"Y": ("FP32", (2, 1), np.array([-2.5, -1.0], np.float32).tobytes())}
    assert through == direct


def test_ten_megabytes(both: Both) -> None:
    """A tensor larger than the stub's first shared memory region passes whole."""
    build = one_input("IN_FP32", "FP32", values("FP32", (2, 1_250_000)))
    direct, through = both.over_grpc("types", build, requested=["OUT_FP32"])
    assert direct.outputs is not None, direct.message
    assert through == direct


def test_system_shared_memory(both: Both) -> None:
    """Inputs and outputs in a client's shared memory region work through the router."""
    array = np.arange(8, dtype=np.float32).reshape(2, 4)
    for model in ("batch", "routed-batch"):
        region = shared_memory.create_shared_memory_region(f"in-{model}", f"/triton-router-test-{model}", 64)
        try:
            shared_memory.set_shared_memory_region(region, [array])
            both.grpc.register_system_shared_memory(f"in-{model}", f"/triton-router-test-{model}", 64)
            tensor = grpc_client.InferInput("X", [2, 4], "FP32")
            tensor.set_shared_memory(f"in-{model}", 32)
            output = grpc_client.InferRequestedOutput("Y")
            output.set_shared_memory(f"in-{model}", 32, offset=32)
            result = both.grpc.infer(model, [tensor], outputs=[output])
            assert result.get_output("Y") is not None
            answered = shared_memory.get_contents_as_numpy(region, np.float32, [2, 4], offset=32)
            np.testing.assert_array_equal(answered, array * 2)
        finally:
            unregister(both, f"in-{model}")
            shared_memory.destroy_shared_memory_region(region)


def unregister(both: Both, region: str) -> None:
    """Unregister a region, once the server has let go of the request that used it: a moment after its answer."""
    deadline = time.monotonic() + 60.0
    while True:
        try:
            both.grpc.unregister_system_shared_memory(region)
        except InferenceServerException as error:
            if "in use" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def test_classification_extension(both: Both) -> None:
    """The server's classification extension applies to routed outputs as to direct ones."""
    array = np.array([[0.1, 3.0, 2.0]], np.float32)
    answers: list[list[bytes]] = []
    for model in ("batch", "routed-batch"):
        output = grpc_client.InferRequestedOutput("Y", class_count=2)
        result = both.grpc.infer(model, one_input("X", "FP32", array)(grpc_client), outputs=[output])
        answers.append(result.as_numpy("Y").ravel().tolist())
    assert answers[0][0].endswith(b":1")
    assert answers[1] == answers[0]


@pytest.mark.parametrize(("direct", "through"), [("first-direct", "first-routed"), ("nested-direct", "nested-routed")])
def test_ensembles(both: Both, direct: str, through: str) -> None:
    """A routed model works as the first step of an ensemble, and inside an ensemble of ensembles."""
    build = one_input("X", "FP32", values("FP32", (3, 16)))
    answers = [both.grpc.infer(model, build(grpc_client)).as_numpy("Y").tobytes() for model in (direct, through)]
    assert answers[1] == answers[0]
