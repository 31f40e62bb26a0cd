"""Drive the model repository API of a running Triton: list, load, load one version, unload."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias
from urllib.parse import urlsplit

import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

from triton_router.errors import InvalidInputError, NotFoundError, TritonRouterError, UnavailableError
from triton_router.repository.control_errors import explain, short_reason

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from types import TracebackType

    VersionChoice: TypeAlias = Sequence[int] | Literal["latest", "all"]
    """What a model serves: these versions, its highest one, or every one."""

DEFAULT_URL = "http://localhost:8000"
CONNECT_TIMEOUT_S = 10.0
LOAD_TIMEOUT_S = 900.0
"""A large model takes minutes to load, and Triton answers only when it is done."""

_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """One line of the server's index.

    Attributes:
        model: The model's name.
        version: None if the server has not tried to load the model yet.
        state: Triton's word (``READY``, ``LOADING``, ``UNLOADING``, ``UNAVAILABLE``), or ``NOT_LOADED``.
        reason: Why it is not ready, shortened.
    """

    model: str
    version: int | None
    state: str
    reason: str

    @property
    def ready(self) -> bool:
        """Whether it serves requests."""
        return self.state == "READY"


class ModelControl:
    """A connection to the model repository API.

    Every method raises a `TritonRouterError` that says what the server refused, or that it cannot be reached.

    Args:
        url: ``http://host:port`` or ``https://host:port``.
        headers: Sent with every request, for a server that restricts this API.
        timeout_s: Longest wait for one answer, in seconds.

    Raises:
        InvalidInputError: The URL is not of that form.
    """

    def __init__(
        self, url: str = DEFAULT_URL, *, headers: Mapping[str, str] | None = None, timeout_s: float = LOAD_TIMEOUT_S
    ) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            raise InvalidInputError(f"{url!r} is not the URL of an HTTP server", hint=f"for example {DEFAULT_URL}")
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._headers = dict(headers or {})
        self._timeout_s = timeout_s
        self._client = triton_http.InferenceServerClient(
            self.url.partition("://")[2],
            ssl=parts.scheme == "https",
            connection_timeout=CONNECT_TIMEOUT_S,
            network_timeout=timeout_s,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def index(self) -> list[VersionStatus]:
        """Return every version the server knows of, by model and version."""
        with self._errors():
            rows: list[dict[str, Any]] = self._client.get_model_repository_index(headers=self._headers)
        found = [
            VersionStatus(
                model=row["name"],
                version=int(row["version"]) if row.get("version") else None,
                state=row.get("state") or "NOT_LOADED",
                reason=short_reason(row.get("reason", "")),
            )
            for row in rows
        ]
        return sorted(found, key=lambda row: (row.model, row.version or 0))

    def versions(self, model: str) -> list[VersionStatus]:
        """Return the index of one model.

        Raises:
            NotFoundError: The server does not know it.
        """
        index = self.index()
        rows = [row for row in index if row.model == model]
        if not rows:
            names = ", ".join(dict.fromkeys(row.model for row in index)) or "no model at all"
            raise NotFoundError(
                f"the server at {self.url} has no model {model!r} in its repository", hint=f"it holds: {names}"
            )
        return rows

    def ready_versions(self, model: str) -> tuple[int, ...]:
        """Return the versions of a model that serve requests, ascending; none for an unknown model."""
        return tuple(row.version for row in self.index() if row.model == model and row.ready and row.version)

    def config(self, model: str) -> dict[str, Any]:
        """Return the whole configuration of a loaded model, as Triton completed it."""
        with self._errors(model):
            return self._client.get_model_config(model, headers=self._headers)

    def load(self, model: str) -> tuple[int, ...]:
        """Load or reload a model as its files say; return the versions that serve now.

        If the load fails, the versions that were loaded before keep serving.
        """
        with self._errors(model):
            self._client.load_model(model, headers=self._headers)
        return self.ready_versions(model)

    def load_versions(self, model: str, choice: VersionChoice) -> tuple[int, ...]:
        """Serve these versions of a model, by overriding the version policy in its whole configuration.

        Triton has no parameter for the version, and a configuration in part would replace the whole one. A model
        that is not loaded is loaded plainly first, because only then is its whole configuration known. The
        override stays until the model is unloaded or its files change and it is loaded again.

        Raises:
            NotFoundError: A version is not in the repository; what was served before is served still, and a model
                that was not loaded is not loaded.
        """
        if self.ready_versions(model):
            return self._choose_versions(model, choice, was_loaded=True)
        self.load(model)
        try:
            return self._choose_versions(model, choice, was_loaded=False)
        except TritonRouterError:
            self.unload(model, dependents=True)
            raise

    def _choose_versions(self, model: str, choice: VersionChoice, *, was_loaded: bool) -> tuple[int, ...]:
        former = self.config(model)
        wanted = () if isinstance(choice, str) else tuple(sorted(set(choice)))
        try:
            self._override(model, former | {"version_policy": _policy(choice)})
        except NotFoundError as error:
            raise self._missing(model, wanted, was_loaded=was_loaded) from error
        ready = self.ready_versions(model)
        if not set(wanted) <= set(ready):
            self._override(model, former)
            absent = tuple(version for version in wanted if version not in ready)
            raise self._missing(model, absent, was_loaded=was_loaded)
        return ready

    def unload(self, *models: str, dependents: bool = False) -> tuple[str, ...]:
        """Unload models and wait until they are gone; return every model that stopped serving.

        Triton stops the ensembles that contain one of them too. An ensemble's own steps go with it if
        ``dependents`` is true and they were loaded for its sake alone.

        Raises:
            NotFoundError: The server does not know one of them (Triton itself would say nothing).
            UnavailableError: One is still unloading when the time is up; requests in flight hold it.
        """
        for model in models:
            self.versions(model)
        before = self._serving()
        for model in models:
            self.begin_unload(model, dependents=dependents)
        self._wait_until_unloaded(set(models))
        after = self._serving()
        return tuple(name for name in before if name not in after)

    def begin_unload(self, model: str, *, dependents: bool = False) -> None:
        """Tell the server to unload a model, and wait for nothing."""
        with self._errors(model):
            self._client.unload_model(model, headers=self._headers, unload_dependents=dependents)

    def _wait_until_unloaded(self, models: set[str]) -> None:
        deadline = time.monotonic() + self._timeout_s
        while True:
            left = [row.model for row in self.index() if row.model in models and row.state in {"READY", "UNLOADING"}]
            if not left:
                return
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"model {left[0]!r} is still unloading after {self._timeout_s:g} s",
                    hint="requests in flight hold it; look again with 'triton-router models list'",
                )
            time.sleep(_POLL_S)

    def _serving(self) -> list[str]:
        return list(dict.fromkeys(row.model for row in self.index() if row.ready))

    def _override(self, model: str, config: dict[str, Any]) -> None:
        # Loading a Python model writes __pycache__ beside model.py. Triton takes that for an edit, and the next
        # plain load would fall back to the file's policy. A second load remembers the time after the writing.
        for _ in range(2 if config.get("backend") == "python" else 1):
            with self._errors(model):
                self._client.load_model(model, headers=self._headers, config=json.dumps(config))

    def _missing(self, model: str, versions: tuple[int, ...], *, was_loaded: bool) -> NotFoundError:
        names = ", ".join(str(version) for version in versions) or "any"
        rest = f"it still serves {_join(self.ready_versions(model))}" if was_loaded else "it is not loaded, as before"
        return NotFoundError(
            f"model {model!r} has no version {names} in the repository of the server at {self.url}; {rest}",
            hint=f"a version is a directory {model}/{versions[0] if versions else 1}/ with the model's files",
        )

    @contextlib.contextmanager
    def _errors(self, model: str = "") -> Generator[None]:
        """Turn what tritonclient raises into this project's errors."""
        try:
            yield
        except InferenceServerException as error:
            raise explain(str(error.message() or ""), str(error.status() or ""), model=model, url=self.url) from error
        except OSError as error:
            raise UnavailableError(
                f"the server at {self.url} cannot be reached: {error.strerror or error}",
                hint="start it with 'triton-router serve --repository DIR', or give its address with --url",
            ) from error
        except (ValueError, http.client.HTTPException) as error:  # an answer that is not JSON, or not HTTP at all
            raise UnavailableError(
                f"the server at {self.url} gave no answer that Triton would give: {error}",
                hint="give Triton's HTTP port (8000 by default) with --url, not that of gRPC or of metrics",
            ) from error


def _policy(choice: VersionChoice) -> dict[str, Any]:
    match choice:
        case "latest":
            return {"latest": {"num_versions": 1}}
        case "all":
            return {"all": {}}
        case versions:
            return {"specific": {"versions": sorted(set(versions))}}


def _join(versions: Sequence[int]) -> str:
    return f"version {', '.join(str(version) for version in versions)}" if versions else "no version"
