"""``router.yaml``: the whole desired state of one routed model, typed and strictly validated.

Example::

    targets:
      - {name: onnx-int8-cpu, model: minilm-onnx-int8-cpu, backend: cpu, variant: onnx-int8}
      - {name: pt2-cpu, model: minilm-pt2-cpu, backend: cpu, variant: pt2}
    policy: latency
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from triton_router.config.loading import load_yaml
from triton_router.routing.types import Backend, backend_named

if TYPE_CHECKING:
    from pathlib import Path

    from triton_router.config.loading import Document

ROUTER_FILE = "router.yaml"
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
"""Names of models that this project makes itself."""

_MAX_NAME_BYTES = 255
"""A model's name is that of a directory."""

_INT64_MAX = (1 << 63) - 1
_DAY_MS = 86_400_000


def _safe_name(value: str) -> str:
    """Take whatever Triton may have as a model, but nothing that leaves the repository or acts on a terminal."""
    if not value or value.startswith(".") or any(slash in value for slash in "/\\"):
        raise ValueError("must be the name of a directory: not empty, no slash, no '.' at its beginning")
    if not value.isprintable() or value != value.strip():
        raise ValueError("has characters that cannot be seen, or a blank at its beginning or end")
    if len(value.encode()) > _MAX_NAME_BYTES:
        raise ValueError(f"is longer than {_MAX_NAME_BYTES} bytes")
    return value


Name = Annotated[str, AfterValidator(_safe_name)]
"""Name of a target or of the model behind it, which may be anyone's: a path, a metric label, a word on a terminal."""


def _backend(value: object) -> object:
    return backend_named(value) if isinstance(value, str) else value


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class MeasuredLatency(_Settings):
    """One latency measured when the variant was built; it seeds what the router learns.

    Attributes:
        work: Elements of the largest input tensor, batch dimension included.
        latency_ms: Median time of one call, in milliseconds; a day at most.
    """

    work: Annotated[int, Field(ge=1, le=_INT64_MAX)]
    latency_ms: Annotated[float, Field(gt=0, le=_DAY_MS)]


class TargetConfig(_Settings):
    """One sibling that can answer for the routed model.

    Attributes:
        name: Unique in this file; stands in metrics, logs and decisions.
        model: Triton model that is called.
        version: Its version; absent means the one that Triton's version policy serves.
        backend: Where it runs: ``cpu``, ``gpu`` (``cuda``), ``neural_engine`` (``ane``), ``metal_mps`` (``mps``).
        variant: How it was compiled, for people.
        batch_independent: Whether a row's answer is known not to depend on the rows beside it.
        measured_latency: Latencies measured at build time.
    """

    name: Name
    model: Name
    version: Annotated[int, Field(ge=1, le=_INT64_MAX)] | None = None
    backend: Annotated[Backend, BeforeValidator(_backend)] = Backend.CPU
    variant: Annotated[str, Field(max_length=128)] = ""
    batch_independent: bool = False
    measured_latency: Annotated[tuple[MeasuredLatency, ...], Field(max_length=64, strict=False)] = ()


class DispatchConfig(_Settings):
    """How requests travel to the targets.

    Attributes:
        max_concurrency: Most calls to targets in flight at once; further requests wait in the router.
        inline: Whether a lone request of a fast model may be served without a thread of its own.
    """

    max_concurrency: Annotated[int, Field(ge=1, le=1024)] = 64
    inline: bool = True


class MergeConfig(_Settings):
    """How requests that wait for the same target go out together.

    Attributes:
        enabled: Whether they do, at targets that are ``batch_independent``.
        calls_in_flight: Calls to one such target at once, as many as it has instances; further requests wait in
            the router for the next call.
    """

    enabled: bool = True
    calls_in_flight: Annotated[int, Field(ge=1, le=1024)] = 1


class StateConfig(_Settings):
    """What becomes of what is learned, where the server was given a state directory.

    Attributes:
        keep: Whether it is written there, and read again at the next start.
        interval_s: Seconds between two snapshots; a process that is killed loses what it learned since the last.
    """

    keep: bool = True
    interval_s: Annotated[float, Field(ge=1, le=86_400)] = 30.0


class DecisionLogConfig(_Settings):
    """Where decisions and their outcomes are written down.

    Attributes:
        path: The file, absolute; one for each routed model. The one before it is kept as ``path.1``.
        sample: Share of the decisions that are written.
        max_mb: Size in megabytes from which on a new file is begun.
    """

    path: Annotated[str, Field(pattern=r"^/[^\x00]*[^/\x00]$", max_length=4096)]
    sample: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_mb: Annotated[float, Field(ge=1, le=1_000_000)] = 64.0


class RouterConfig(_Settings):
    """The settings of one routed model.

    Attributes:
        targets: The siblings to choose from.
        policy: How one is chosen: lowest predicted ``latency``, ``least-request`` in flight, or ``random``.
        explore: Share of requests that may go to a target other than the favourite, so that its profile stays true;
            one that is n times as slow gets an n-th of it.
        streaming: Whether the routed model is decoupled (several responses per request, gRPC streaming only).
        dispatch: How requests travel.
        merge: How they go out together.
        state: What becomes of what is learned.
        decision_log: Where decisions are written down; nowhere by default.
    """

    targets: Annotated[tuple[TargetConfig, ...], Field(min_length=1, max_length=256, strict=False)]
    policy: Literal["latency", "least-request", "random"] = "latency"
    explore: Annotated[float, Field(ge=0, le=0.1)] = 0.002
    streaming: bool = False
    dispatch: DispatchConfig = DispatchConfig()
    decision_log: DecisionLogConfig | None = None
    merge: MergeConfig = MergeConfig()
    state: StateConfig = StateConfig()

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [target.name for target in self.targets]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"target name {twice[0]!r} stands twice; every target needs a name of its own")
        return self


def load_router_config(path: Path) -> RouterConfig:
    """Read and validate a ``router.yaml`` (YAML or JSON).

    Raises:
        NotFoundError: There is no such file.
        ConfigError: It is not valid; the message names line and key.
    """
    return validate_router_config(load_yaml(path))


def validate_router_config(document: Document) -> RouterConfig:
    """Validate a parsed document. Errors as `load_router_config`."""
    if not isinstance(document.data, dict):
        raise document.error((), "is empty or not a mapping", hint="begin with 'targets:' and list the siblings")
    try:
        return RouterConfig.model_validate(document.data)
    except ValidationError as error:
        raise document.validation_error(
            error, hint=f"the keys of {ROUTER_FILE} are described in docs/router-yaml.md", settings=RouterConfig
        ) from error
