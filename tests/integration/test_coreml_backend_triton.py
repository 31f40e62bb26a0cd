"""The Core ML backend on a real Triton on Linux: its refusal, and all of it but Core ML itself."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tritonclient.grpc as client
from tritonclient.utils import InferenceServerException

if TYPE_CHECKING:
    from collections.abc import Callable

    from triton_router.testing.triton_server import TritonServer

pytestmark = [pytest.mark.triton, pytest.mark.beside]

CONFIG = """backend: "{backend}"
max_batch_size: 8
input {{ name: "ids" data_type: TYPE_INT64 dims: [ 2 ] }}
output {{ name: "total" data_type: TYPE_INT64 dims: [ 1 ] }}
output {{ name: "rows" data_type: TYPE_FP32 dims: [ 1 ] }}
dynamic_batching {{ preferred_batch_size: [ 3 ] max_queue_delay_microseconds: 2000000 }}
instance_group {{ kind: KIND_CPU count: 1 }}
"""
ARITHMETIC = '''
import numpy as np
from triton_router.repository.coreml_package import METADATA_KEY, Package
from triton_router.serving.backends.coreml import CoremlModel, CoremlSession


class Sum:
    """In Core ML's place: int32 in batches of 1, 2, 4 or 8; answers the sum and how many rows came."""

    user_defined_metadata = {
        METADATA_KEY: Package({"ids": "ids"}, {"total": "total", "rows": "rows"}, (1, 2, 4, 8)).to_metadata()
    }

    def predict(self, data):
        ids = data["ids"]
        assert ids.dtype == np.int32 and len(ids) in (1, 2, 4, 8)
        return {"total": ids.sum(axis=1, keepdims=True), "rows": np.full((len(ids), 1), len(ids), np.float32)}


def open_session(context, warn):
    return CoremlSession(context, warn, Sum())


class TritonPythonModel(CoremlModel):
    open_session = open_session
'''


@pytest.fixture(scope="module")
def triton(
    start_triton: Callable[..., TritonServer], tmp_path_factory: pytest.TempPathFactory
) -> client.InferenceServerClient:
    """A server with a package that it cannot open, and a model with arithmetic in Core ML's place."""
    repository = tmp_path_factory.mktemp("coreml")
    for name, backend in (("package", "coreml"), ("arithmetic", "python")):
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(CONFIG.format(backend=backend))
    (repository / "package" / "1" / "model.mlpackage").mkdir()
    (repository / "arithmetic" / "1" / "model.py").write_text(ARITHMETIC)
    server = start_triton(repository, control_mode="explicit", load_models=("arithmetic",))
    with client.InferenceServerClient(server.grpc_url) as connection:
        yield connection


def _infer(triton: client.InferenceServerClient, ids: np.ndarray) -> client.InferResult:
    tensor = client.InferInput("ids", ids.shape, "INT64")
    tensor.set_data_from_numpy(ids)
    return triton.infer("arithmetic", [tensor], client_timeout=90)


@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML runs on macOS")
def test_a_package_is_refused_with_the_reason(triton: client.InferenceServerClient) -> None:
    """The load fails at once, and its message says why and what to do."""
    with pytest.raises(InferenceServerException, match=r"Core ML runs on macOS only.*cannot be served on linux.*Mac"):
        triton.load_model("package")


def test_merged_requests_are_padded_and_each_gets_its_own_rows(triton: client.InferenceServerClient) -> None:
    """Three waiting INT64 requests run as one int32 batch of four, and the answers are INT64 again."""
    requests = [np.array([[n, 10 * n]], dtype=np.int64) for n in range(3)]
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda ids: _infer(triton, ids), requests))
    assert [result.as_numpy("total").tolist() for result in results] == [[[0]], [[11]], [[22]]]
    assert [result.as_numpy("rows").item() for result in results] == [4, 4, 4]
    assert results[0].as_numpy("total").dtype == np.int64


def test_an_integer_beyond_32_bits_is_the_callers_error(triton: client.InferenceServerClient) -> None:
    """It is refused by name with INVALID_ARGUMENT; the next request is served."""
    with pytest.raises(InferenceServerException, match="input 'ids' holds integers beyond 32 bits") as refused:
        _infer(triton, np.array([[2**40, 0]], dtype=np.int64))
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert _infer(triton, np.array([[2, 3]], dtype=np.int64)).as_numpy("total").item() == 5
