"""``router.yaml``: the whole desired state of one routed model, typed and strictly validated.

Example::

    targets:
      - {name: onnx-int8-cpu, model: minilm-onnx-int8-cpu, backend: cpu, variant: onnx-int8}
      - {name: pt2-cpu, model: minilm-pt2-cpu, backend: cpu, variant: pt2}
    policy: latency
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from triton_router.config.loading import load_yaml
from triton_router.config.resilience_settings import (
    DeadlineConfig,
    HealthConfig,
    HedgeConfig,
    QueueConfig,
    RetryConfig,
)
from triton_router.config.rollout_settings import ParityConfig, RolloutConfig, ShadowConfig
from triton_router.config.routing_settings import RouterSwitches, RoutingSettings
from triton_router.config.settings import BackendName, Bound, PolicySettings, PolicyValue, Settings, Share
from triton_router.routing.types import Backend

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
MAX_MIRROR = 0.5
"""Most of the serving time that may be spent again on copies."""


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


UNSWITCHED = RouterSwitches(
    profile_warmup_iterations=0,
    profile_history_size=64,
    max_backend_utilization=0.0,
    fallback_latency_threshold_ms=0.0,
    metrics_interval=1.0,
)
"""Where a ``router.yaml`` has no ``router_config``: nothing is bounded that nobody asked to bound."""


class MeasuredLatency(Settings):
    """One latency measured when the variant was built; it seeds what the router learns.

    Attributes:
        work: Elements of the largest input tensor, batch dimension included; of strings, their bytes.
        latency_ms: Median time of one call, in milliseconds; a day at most.
    """

    work: Annotated[int, Field(ge=1, le=_INT64_MAX)]
    latency_ms: Annotated[float, Field(gt=0, le=_DAY_MS)]


class TargetConfig(Settings):
    """One sibling that can answer for the routed model.

    Attributes:
        name: Unique in this file; stands in metrics, logs and decisions.
        model: Triton model that is called.
        version: Its version; absent means the one that Triton's version policy serves.
        backend: Where it runs: ``cpu``, ``gpu`` (``cuda``), ``neural_engine`` (``ane``), ``metal_mps`` (``mps``).
        variant: How it was compiled, for people.
        instances: Calls that the model serves at once: the count of its instance group. Absent, nobody knows, and its
            requests are not merged unless ``merge.calls_in_flight`` says how many calls it takes.
        batch_independent: Whether a row's answer is known not to depend on the rows beside it.
        measured_latency: Latencies measured at build time.
        device: Name of the device that it shares with the other targets that name it; absent, with those of its
            backend that name none.
        price_per_hour: What its device costs, in any currency, the same for all targets; 0 where nothing is paid.
        power_w: Watts that it draws while it works, as far as is known; 0 if unknown. What a
            meter reads counts more.
        memory_mb: Megabytes that it takes, likewise.
        max_in_flight: Requests in flight at it at most; further ones go to another target or wait in the router.
            Absent, three quarters of ``dispatch.max_concurrency`` where there are several targets, so that one that
            hangs leaves workers to the others; no bound where its calls are merged, or where there is no other.
    """

    name: Name
    model: Name
    version: Annotated[int, Field(ge=1, le=_INT64_MAX)] | None = None
    backend: BackendName = Backend.CPU
    variant: Annotated[str, Field(max_length=128)] = ""
    instances: Annotated[int, Field(ge=1, le=1024)] | None = None
    batch_independent: bool = False
    measured_latency: Annotated[tuple[MeasuredLatency, ...], Field(max_length=64, strict=False)] = ()
    device: Annotated[str, Field(max_length=128)] = ""
    price_per_hour: Bound = 0.0
    power_w: Bound = 0.0
    memory_mb: Bound = 0.0
    max_in_flight: Annotated[int, Field(ge=1, le=100_000)] | None = None


class DispatchConfig(Settings):
    """How requests travel to the targets.

    Attributes:
        max_concurrency: Most calls to targets in flight at once; further requests wait in the router.
        inline: Whether a lone request of a fast model may be served without a thread of its own.
    """

    max_concurrency: Annotated[int, Field(ge=1, le=1024)] = 64
    inline: bool = True


class MergeConfig(Settings):
    """How requests that wait for the same target go out together.

    Attributes:
        enabled: Whether they do, at targets that are ``batch_independent``.
        calls_in_flight: Calls to one such target at once; further requests wait in the router for the next call.
            Absent, as many as the target's ``instances``.
    """

    enabled: bool = True
    calls_in_flight: Annotated[int, Field(ge=1, le=1024)] | None = None


class StateConfig(Settings):
    """What becomes of what is learned, where the server was given a state directory.

    Attributes:
        keep: Whether it is written there, and read again at the next start.
        interval_s: Seconds between two snapshots; a process that is killed loses what it learned since the last.
    """

    keep: bool = True
    interval_s: Annotated[float, Field(ge=1, le=86_400)] = 30.0


class DecisionLogConfig(Settings):
    """Where decisions and their outcomes are written down.

    Attributes:
        path: The file, absolute; one for each routed model. The one before it is kept as ``path.1``.
        sample: Share of the decisions that are written.
        max_mb: Size in megabytes from which on a new file is begun.
    """

    path: Annotated[str, Field(pattern=r"^/[^\x00]*[^/\x00]$", max_length=4096)]
    sample: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_mb: Annotated[float, Field(ge=1, le=1_000_000)] = 64.0


class RouterConfig(RoutingSettings):
    """The settings of one routed model.

    Attributes:
        targets: The siblings to choose from.
        policy: How one is chosen; the short form of ``default_policy``.
        router_config: What the router does besides choosing; absent, nothing is bounded.
        mirror: Time for copies of requests that are sent to other targets only to learn from, as a share of the time
            spent serving.
        streaming: Whether the routed model is decoupled (several responses per request, gRPC streaming only).
        dispatch: How requests travel.
        merge: How they go out together.
        state: What becomes of what is learned.
        decision_log: Where decisions are written down; nowhere by default.
        retry: When a failed attempt goes to another target.
        health: When a target is left out, and how it comes back.
        deadline: How long a client waits at most.
        hedge: A second target for what takes long.
        queue: What happens when there is too much to do.
        rollout: A canary, whose share of the requests grows while it does well.
        shadow: A target that gets copies only.
        parity: How answers of variants are compared with a reference's.
    """

    targets: Annotated[tuple[TargetConfig, ...], Field(min_length=1, max_length=256, strict=False)]
    policy: PolicyValue | None = None
    default_policy: PolicyValue = PolicySettings(name="latency")
    router_config: RouterSwitches = UNSWITCHED
    mirror: Annotated[Share, Field(le=MAX_MIRROR)] = 0.005
    streaming: bool = False
    dispatch: DispatchConfig = DispatchConfig()
    decision_log: DecisionLogConfig | None = None
    merge: MergeConfig = MergeConfig()
    state: StateConfig = StateConfig()
    retry: RetryConfig = RetryConfig()
    health: HealthConfig = HealthConfig()
    deadline: DeadlineConfig = DeadlineConfig()
    hedge: HedgeConfig = HedgeConfig()
    queue: QueueConfig = QueueConfig()
    rollout: RolloutConfig | None = None
    shadow: ShadowConfig | None = None
    parity: ParityConfig = ParityConfig()

    @property
    def policy_in_force(self) -> PolicySettings:
        """How to choose where no rule says otherwise."""
        return self.policy or self.default_policy

    @property
    def mirror_share(self) -> float:
        """Time for copies of requests, sent to learn from, as a share of serving time; streams are not copied."""
        return 0.0 if self.streaming else self.mirror

    def calls_in_flight_at(self, target: TargetConfig) -> int:
        """Return how many merged calls a target takes at once; 0 if its requests are not merged.

        Where nobody has said how many, they are not: fewer than it could take would keep its instances idle.
        """
        if not self.merge.enabled or self.streaming or not target.batch_independent:
            return 0
        return self.merge.calls_in_flight or target.instances or 0

    @model_validator(mode="after")
    def _one_policy(self) -> Self:
        if self.policy and "default_policy" in self.model_fields_set:
            raise ValueError("policy and default_policy say the same thing; write one of them")
        return self

    @model_validator(mode="after")
    def _streams_are_not_copied(self) -> Self:
        # What has been streamed already cannot be taken back: only one target may answer.
        asks = {
            "mirror": "mirror" in self.model_fields_set and self.mirror > 0.0,
            "hedge.share": self.hedge.share > 0.0,
            "merge": self.merge.enabled and bool(self.merge.model_fields_set),
        }
        idle = [key for key, is_asked in asks.items() if is_asked]
        if self.streaming and idle:
            raise ValueError(f"{idle[0]} does nothing where streaming is true: a stream is neither copied nor merged")
        return self

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [target.name for target in self.targets]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"target name {twice[0]!r} stands twice; every target needs a name of its own")
        return self

    @model_validator(mode="after")
    def _roles_are_of_targets(self) -> Self:
        names = {target.name for target in self.targets}
        canary = set(self.rollout.canary) if self.rollout else set[str]()
        shadow = {self.shadow.target} if self.shadow else set[str]()
        guarded = {*(self.parity.targets or ()), *([self.parity.reference] if self.parity.reference else ())}
        for role, named in (("rollout.canary", canary), ("shadow.target", shadow), ("parity", guarded)):
            if named - names:
                raise ValueError(f"{role} names {min(named - names)!r}, which is no target of this file")
        if canary & shadow:
            raise ValueError(f"{min(canary & shadow)!r} cannot be both the canary and the shadow")
        if names <= canary | shadow:
            raise ValueError("no target is left that is neither canary nor shadow: who serves the others?")
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
