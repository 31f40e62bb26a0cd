"""Calls with NVIDIA's stock clients: the pipeline by gRPC and HTTP, and single models by gRPC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from examples.minilm.demo.repository import PIPELINE
from triton_router.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

Array = NDArray[Any]

TIMEOUT_S = 60.0


class Client:
    """One connection; use each in one thread.

    Args:
        protocol: ``grpc`` or ``http``.
        url: ``host:port`` of that protocol.
    """

    def __init__(self, protocol: str, url: str) -> None:
        self.protocol = protocol
        self._library: Any = {"grpc": triton_grpc, "http": triton_http}[protocol]
        if protocol == "http":
            self._client = self._library.InferenceServerClient(url, network_timeout=TIMEOUT_S)
            self._limits: dict[str, Any] = {}
        else:
            self._client = self._library.InferenceServerClient(url)
            self._limits = {"client_timeout": TIMEOUT_S}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def call(self, model: str, inputs: Mapping[str, Array], output: str) -> Array:
        """Return one output of a model.

        Raises:
            UnavailableError: The server answered with an error, or not in time.
        """
        return self.fetch(model, inputs)[output]

    def fetch(self, model: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return every output of a model. Errors as `call`."""
        try:
            result = self._client.infer(model, self._tensors(inputs), **self._limits)
        except InferenceServerException as error:
            raise UnavailableError(
                f"{model} failed over {self.protocol}: {error.message()}", hint="read the server's log"
            ) from error
        response = result.get_response(as_json=True) if self.protocol == "grpc" else result.get_response()
        return {item["name"]: result.as_numpy(item["name"]) for item in response["outputs"]}

    def embed(self, sentences: Sequence[str]) -> Array:
        """Return ``[sentences, 384]`` from the pipeline."""
        return self.call(PIPELINE, text(sentences), "embedding")

    def _tensors(self, inputs: Mapping[str, Array]) -> list[Any]:
        tensors: list[Any] = []
        for name, value in inputs.items():
            tensor = self._library.InferInput(name, list(value.shape), np_to_triton_dtype(value.dtype))
            tensor.set_data_from_numpy(value)
            tensors.append(tensor)
        return tensors


def text(sentences: Sequence[str]) -> dict[str, Array]:
    """Return sentences as the pipeline's input."""
    return {"TEXT": np.array([[sentence.encode()] for sentence in sentences], dtype=np.object_)}
