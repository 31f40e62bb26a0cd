"""Loads models of a running server again, over gRPC where there is gRPC.

Over HTTP a load holds up every connection that the server's same thread serves (measured on 2.51: requests to other
models waited 2.2 s for a load of 2.2 s, and 0.2 s over gRPC).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol

from triton_router.repository.control import ModelControl
from triton_router.repository.control_errors import explain

if TYPE_CHECKING:
    from collections.abc import Generator

    from tritonclient.grpc import InferenceServerClient

    from triton_router.serving.launcher.endpoints import Endpoints
    from triton_router.serving.launcher.restricted import Access

_LOAD_TIMEOUT_S = 600.0
_ASK_TIMEOUT_S = 10.0


class Loading(Protocol):
    """The part of the repository API that a repair needs. Each method raises a `TritonRouterError` if refused."""

    def ready(self) -> set[str]:
        """Return the models that serve."""
        ...

    def unload(self, model: str) -> None:
        """Begin to unload a model."""
        ...

    def load(self, model: str) -> None:
        """Load a model, and wait until it is loaded."""
        ...


def reload_dead(loading: Loading, model: str) -> None:
    """Load a model afresh whose process has died.

    A plain load does nothing, since the server holds the model for ready. Touching its files would do, but they may be
    read-only, and a repository's times are the user's. Unloading works with what cannot end, too: requests under way in
    the dead process keep the old instance for ever, and a new one beside it starts all the same.

    Raises:
        TritonRouterError: The server refused.
    """
    served = loading.ready()
    loading.unload(model)
    loading.load(model)
    # Unloading has taken the ensembles that contain it along.
    for other in sorted(served - loading.ready() - {model}):
        loading.load(other)


def loading_of(endpoints: Endpoints, access: Access) -> Loading | None:
    """Return how models of this server are loaded; None if it listens to nobody."""
    if endpoints.grpc is not None:
        return GrpcLoading(str(endpoints.grpc), access.grpc)
    return HttpLoading(f"http://{endpoints.http}", access.http) if endpoints.http is not None else None


class GrpcLoading:
    """Over gRPC.

    Args:
        url: ``host:port``.
        headers: What opens the API.
    """

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self._url, self._headers = url, headers

    def ready(self) -> set[str]:
        """Return the models that serve."""
        with self._client() as client:
            index = client.get_model_repository_index(
                headers=self._headers, as_json=True, client_timeout=_ASK_TIMEOUT_S
            )
        rows: list[dict[str, str]] = index["models"] if index else []
        return {row["name"] for row in rows if row.get("state") == "READY"}

    def unload(self, model: str) -> None:
        """Begin to unload a model."""
        with self._client(model) as client:
            client.unload_model(model, headers=self._headers, client_timeout=_ASK_TIMEOUT_S)

    def load(self, model: str) -> None:
        """Load a model, and wait until it is loaded."""
        with self._client(model) as client:
            client.load_model(model, headers=self._headers, client_timeout=_LOAD_TIMEOUT_S)

    @contextlib.contextmanager
    def _client(self, model: str = "") -> Generator[InferenceServerClient]:
        # A connection for each call: repairs are rare, and one that broke would have to be noticed.
        from tritonclient.grpc import InferenceServerClient
        from tritonclient.utils import InferenceServerException

        try:
            with InferenceServerClient(self._url) as client:
                yield client
        except InferenceServerException as error:
            raise explain(str(error.message() or ""), "", model=model, url=self._url) from error


class HttpLoading:
    """Over HTTP.

    Args:
        url: ``http://host:port``.
        headers: What opens the API.
    """

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self._url, self._headers = url, headers

    def ready(self) -> set[str]:
        """Return the models that serve."""
        with self._control() as control:
            return {row.model for row in control.index() if row.ready}

    def unload(self, model: str) -> None:
        """Begin to unload a model."""
        with self._control() as control:
            control.begin_unload(model)

    def load(self, model: str) -> None:
        """Load a model, and wait until it is loaded."""
        with self._control() as control:
            control.load(model)

    def _control(self) -> ModelControl:
        return ModelControl(self._url, headers=self._headers, timeout_s=_LOAD_TIMEOUT_S)
