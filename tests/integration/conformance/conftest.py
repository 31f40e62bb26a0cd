"""One server with every conformance model, once by itself and once behind a router."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from tritonclient.utils import InferenceServerException

from triton_router.testing.triton_server import triton_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from triton_router.testing.triton_server import TritonServer

MODELS = Path(__file__).parent / "models"
STREAMING = {"stream"}

ENSEMBLE = """
platform: "ensemble"
max_batch_size: 8
input { name: "X" data_type: TYPE_FP32 dims: [ -1 ] }
output { name: "Y" data_type: TYPE_FP32 dims: [ -1 ] }
ensemble_scheduling { step [
  { model_name: "%s" model_version: -1 input_map { key: "X" value: "X" } output_map { key: "Y" value: "mid" } },
  { model_name: "%s" model_version: -1 input_map { key: "X" value: "mid" } output_map { key: "Y" value: "Y" } }
] }
"""


def routed(model: str) -> str:
    """Return the name under which ``model`` is served through the router."""
    return f"routed-{model}"


@dataclass(frozen=True)
class Answer:
    """What a client got: for every output its datatype, shape and bytes; or an error's status and message."""

    outputs: dict[str, tuple[str, tuple[int, ...], bytes]] | None = None
    status: str = ""
    message: str = ""


class Both:
    """Makes one call twice, to a model directly and to the routed model in front of it."""

    def __init__(self, server: TritonServer) -> None:
        self.server = server
        self.grpc = grpc_client.InferenceServerClient(server.grpc_url)
        self.http = http_client.InferenceServerClient(server.http_url, concurrency=4)

    def close(self) -> None:
        self.grpc.close()
        self.http.close()

    def over_grpc(self, model: str, inputs: Callable[[Any], list[Any]], **options: Any) -> tuple[Answer, Answer]:
        """Return the direct and the routed answer. ``inputs`` builds them from the client module."""
        return tuple(self._grpc(name, inputs, options) for name in (model, routed(model)))  # type: ignore[return-value]

    def over_http(self, model: str, inputs: Callable[[Any], list[Any]], **options: Any) -> tuple[Answer, Answer]:
        """Likewise over HTTP."""
        return tuple(self._http(name, inputs, options) for name in (model, routed(model)))  # type: ignore[return-value]

    def _grpc(self, name: str, inputs: Callable[[Any], list[Any]], options: dict[str, Any]) -> Answer:
        requested = options.pop("requested", None) if "requested" in options else None
        outputs = [grpc_client.InferRequestedOutput(output) for output in requested] if requested else None
        try:
            result = self.grpc.infer(name, inputs(grpc_client), outputs=outputs, **options)
        except InferenceServerException as error:
            return Answer(status=str(error.status()), message=anonymous(error.message()))
        finally:
            if requested is not None:
                options["requested"] = requested
        response = result.get_response()
        tensors = zip(response.outputs, response.raw_output_contents, strict=True)
        return Answer({t.name: (t.datatype, tuple(t.shape), raw) for t, raw in tensors})

    def _http(self, name: str, inputs: Callable[[Any], list[Any]], options: dict[str, Any]) -> Answer:
        requested = options.get("requested")
        rest = {key: value for key, value in options.items() if key != "requested"}
        outputs = [http_client.InferRequestedOutput(output) for output in requested] if requested else None
        try:
            result = self.http.infer(name, inputs(http_client), outputs=outputs, **rest)
        except InferenceServerException as error:
            return Answer(status=str(error.status()), message=anonymous(error.message()))
        described = {tensor["name"]: tensor for tensor in result.get_response()["outputs"]}
        return Answer(
            {
                key: (tensor["datatype"], tuple(tensor["shape"]), _bytes(result.as_numpy(key)))
                for key, tensor in described.items()
            }
        )


def _bytes(array: Any) -> bytes:
    return b"\0".join(array.ravel().tolist()) if array.dtype == object else array.tobytes()


def anonymous(message: str) -> str:
    """Leave out what must differ: the model's name."""
    return re.sub(r"routed-", "", message)


@pytest.fixture(scope="package")
def conformance_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with each model, a routed model in front of each, and ensembles around one of them."""
    repository = tmp_path_factory.mktemp("conformance")
    for source in sorted(MODELS.iterdir()):
        shutil.copytree(source, repository / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        directory = repository / routed(source.name)
        (directory / "1").mkdir(parents=True)
        (directory / "config.pbtxt").write_text('backend: "router"\n')
        streaming = "streaming: true\n" if source.name in STREAMING else ""
        (directory / "router.yaml").write_text(f"targets: [{{name: only, model: {source.name}}}]\n{streaming}")
    _write_unary_front(repository)
    for name, first, second in (
        ("first-direct", "batch", "batch"),
        ("first-routed", routed("batch"), "batch"),
        ("nested-direct", "first-direct", "batch"),
        ("nested-routed", "first-routed", routed("batch")),
    ):
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(ENSEMBLE % (first, second))
    return repository


def _write_unary_front(repository: Path) -> None:
    """A unary target behind a streaming router: one response each, over the streaming API."""
    directory = repository / "streaming-batch"
    (directory / "1").mkdir(parents=True)
    (directory / "config.pbtxt").write_text('backend: "router"\n')
    (directory / "router.yaml").write_text("targets: [{name: only, model: batch}]\nstreaming: true\n")


@pytest.fixture(scope="package")
def conformance_server(conformance_repository: Path) -> Iterator[TritonServer]:
    """The server; it lives as long as this folder is tested, because every module here asks the same models."""
    with triton_server(conformance_repository) as server:
        yield server


@pytest.fixture
def both(conformance_server: TritonServer) -> Iterator[Both]:
    """Clients that call twice."""
    calls = Both(conformance_server)
    yield calls
    calls.close()
