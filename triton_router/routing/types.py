"""The words of the engine: what is asked, what is chosen among, what is decided, and what happened."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, StrEnum
from math import prod
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from triton_router.profiling.figures import Figure
    from triton_router.profiling.load_law import Load
    from triton_router.routing.policies import Policy
    from triton_router.routing.protocols import Candidate


class Backend(StrEnum):
    """Where a target runs."""

    CPU = "cpu"
    GPU = "gpu"
    NEURAL_ENGINE = "neural_engine"
    METAL_MPS = "metal_mps"


_ALIASES = {"cuda": Backend.GPU, "ane": Backend.NEURAL_ENGINE, "mps": Backend.METAL_MPS}


def backend_named(name: str) -> Backend:
    """Return the backend called ``name`` (or by its alias ``cuda``, ``ane``, ``mps``).

    Raises:
        ValueError: The name is unknown.
    """
    if name in _ALIASES:
        return _ALIASES[name]
    try:
        return Backend(name)
    except ValueError:
        known = ", ".join([*Backend, *_ALIASES])
        raise ValueError(f"unknown backend {name!r}; use one of {known}") from None


class OptimizationGoal(StrEnum):
    """What one request wants most. Each but ``BALANCED`` names the policy that serves it."""

    MINIMIZE_LATENCY = "latency"
    MAXIMIZE_THROUGHPUT = "throughput"
    MINIMIZE_POWER = "power"
    BALANCED = "balanced"
    """No wish of its own: the policy in force decides."""


@dataclass(frozen=True, slots=True)
class Target:
    """One sibling that can answer for the routed model.

    Attributes:
        name: Unique within the routed model.
        model: Triton model that is called.
        version: Its version, or None for the one Triton's version policy serves.
        backend: Where it runs.
        variant: How it was compiled.
        price_per_hour: What its device costs, in any currency, the same for all targets; 0 where nothing is paid.
        device: Name of the device that it shares with others: a second GPU, another machine. Targets without one
            share their backend's.
    """

    name: str
    model: str
    version: int | None = None
    backend: Backend = Backend.CPU
    variant: str = ""
    price_per_hour: float = 0.0
    device: str = ""

    def may_hold_what(self, earlier: Target) -> bool:
        """Whether it calls the same model as an earlier target, whose state it then has.

        No version is whichever is served: to write that one down moves nothing.
        """
        return self.model == earlier.model and (
            self.version == earlier.version or self.version is None or earlier.version is None
        )


@dataclass(slots=True, eq=False)
class RoutingContext:
    """What the engine knows of one request. A bound of 0 is none.

    Attributes:
        batch_size: Rows in the request; 1 where the model does not batch.
        work: Elements of its largest input tensor, or bytes of its strings; 0 to have them counted from
            ``actual_input_shapes``, else ``batch_size``. For fixed shapes it is proportional to ``batch_size``; with
            dynamic ones it carries the sequence length or image size too.
        pinned: Name of the target that must serve it (a sequence stays where it began), or "".
        may_explore: Whether it may go to a target other than the favourite, to keep that one's profile true.
        max_latency_ms: Time within which the answer is wanted.
        min_throughput: Rows per second that the target must reach with requests such as this.
        max_memory_mb: Most memory that the target may take.
        max_power_w: Most power that the target may draw.
        optimization_goal: Its own wish, which replaces the policy in force.
        allowed_backends: Backends that may serve it; None for any.
        actual_input_shapes: Shapes of its inputs by name, batch dimension included; None if unknown.
        experiment_id: Experiment that it belongs to, or "".
        key: What keeps a caller in one arm of an experiment, or "".
        holder: The target ``pinned`` as it was when the sequence began: that name may be another model's by now. None
            for whoever has the name.
    """

    batch_size: int = 1
    work: float = 0.0
    pinned: str = ""
    may_explore: bool = True
    max_latency_ms: float = 0.0
    min_throughput: float = 0.0
    max_memory_mb: float = 0.0
    max_power_w: float = 0.0
    optimization_goal: OptimizationGoal = OptimizationGoal.BALANCED
    allowed_backends: frozenset[Backend] | None = None
    actual_input_shapes: Mapping[str, Sequence[int]] | None = None
    experiment_id: str = ""
    key: str = ""
    holder: Target | None = None

    @property
    def is_constrained(self) -> bool:
        """Whether it demands something that a target may not have."""
        return bool(self.allowed_backends is not None or self.max_memory_mb or self.max_power_w or self.min_throughput)

    def counted_work(self) -> float:
        """Return ``work``, counted from the shapes where it was not given."""
        if self.work:
            return self.work
        if self.actual_input_shapes:
            return float(max(prod(shape) for shape in self.actual_input_shapes.values()))
        return float(self.batch_size)


class Rejection(NamedTuple):
    """Why a target was not considered."""

    target: Target
    reason: str


class Score(NamedTuple):
    """How a considered target did: its total in [0, 1] and the latency predicted for it, in milliseconds."""

    target: Target
    score: float
    expected_latency_ms: float


class Witness(Protocol):
    """What a decision has to report to: the tally of an experiment's arm. It is told under the engine's lock.

    Attributes:
        label: Which arm of which experiment, as ``experiment-id/arm``.
    """

    @property
    def label(self) -> str:
        """See the class."""
        ...

    def note(self, verdict: Verdict, latency_ms: float, log_ratio: float) -> None:
        """Count one outcome of a request that was assigned to the arm at random.

        Args:
            verdict: How it ended.
            latency_ms: From decision to answer.
            log_ratio: Logarithm of that by the latency that one and the same target, whichever the arm, is expected to
                need for the request, with the wait that the load it found explains; NaN while nothing is known of that
                target, and of a failure.
        """
        ...


COPIES = frozenset({"mirror", "shadow"})
"""Reasons of decisions for copies of requests, which no client sent and none waits for."""
_JUDGED = frozenset({"policy", "explore"})
"""Reasons of decisions among targets that were all found to meet the request's latency bound."""


@dataclass(slots=True, eq=False)
class RoutingDecision:
    """The answer of the engine for one request; its slot at the target is reserved until it is finished.

    Not frozen, because a frozen dataclass takes 3 us to make; nothing but the engine changes it all the same.

    Attributes:
        target: The chosen target.
        reason: Why, in a word: ``policy``, ``explore``, ``mirror`` (a copy, to learn from), ``shadow`` (a copy for a
            target that was named), ``sequence``, ``only`` (nothing to choose), ``late`` (none is expected to meet the
            request's latency bound: the fastest), ``panic`` (most targets are out, so some of those were considered
            all the same), ``retry`` (an attempt elsewhere failed) or ``hedge`` (one elsewhere takes long).
        chooser: The policy that chose; None where there was nothing to choose.
        expected_latency_ms: Predicted time from decision to answer; 0 when nothing is known yet.
        alone_ms: Predicted time if nothing else were in flight; 0 when nothing is known yet.
        confidence_score: 0 (no evidence) to 1.
        propensity: Probability with which the policy chooses this target for this request in this state; 0 where
            the engine was not asked to compute it.
        context: What was asked.
        work: Elements of the request's largest input, counted.
        load: What was in flight at the target and on its device when it was chosen, this request excluded.
        rejections: Every target that was not considered.
        candidate: The chosen target as the engine holds it.
        rated: What was considered: candidate, score, predicted latency.
        attempt: How many decisions there were for the request, this one included.
        is_trial: Whether it finds out how a target is that was out.
        is_given_up: Whether it counted as a failure already, being overdue or lost.
        is_released: Whether its slot was given back.
        witnesses: Who is told how it ended, besides what learns of the target: the arms of experiments, to which what
            their requests wait belongs.
        judges: Likewise the arms of a rollout, to which it does not: whoever gets more requests has longer queues.
    """

    target: Target
    reason: str
    chooser: Policy | None
    expected_latency_ms: float
    alone_ms: float
    confidence_score: float
    propensity: float
    context: RoutingContext
    work: float
    load: Load
    rejections: Sequence[Rejection]
    candidate: Candidate = field(repr=False)
    rated: Sequence[tuple[Candidate, float, float]] = field(repr=False)
    attempt: int = 1
    is_trial: bool = False
    is_given_up: bool = False
    is_released: bool = False
    witnesses: tuple[Witness, ...] = ()
    judges: tuple[Witness, ...] = ()

    @property
    def arms(self) -> list[str]:
        """Labels of the arms that the request belongs to."""
        return sorted({told.label for told in (*self.witnesses, *self.judges) if told.label})

    @property
    def policy(self) -> str:
        """Name of the policy that chose, or ""."""
        return self.chooser.name if self.chooser is not None else ""

    @property
    def considered(self) -> list[Score]:
        """Every target that was considered, with its score, in the order of the configuration."""
        return [Score(candidate.target, score, expected) for candidate, score, expected in self.rated]

    @property
    def fallbacks(self) -> tuple[Target, ...]:
        """The other considered targets, best first."""
        others = [(score, candidate.target) for candidate, score, _ in self.rated if candidate is not self.candidate]
        return tuple(target for _, target in sorted(others, key=lambda other: -other[0]))

    @property
    def meets_latency_bound(self) -> bool:
        """Whether the request has no latency bound, or was expected to meet it."""
        bound = self.context.max_latency_ms
        if not bound or self.reason in _JUDGED:
            return True
        # Where there was no choice nobody asked how probable it is.
        return self.reason != "late" and 0.0 < self.expected_latency_ms <= bound

    @property
    def primary_backend(self) -> Backend:
        """Backend of the chosen target."""
        return self.target.backend

    @property
    def secondary_backends(self) -> tuple[Backend, ...]:
        """Backends of the fallbacks, each once, best first."""
        return tuple(dict.fromkeys(target.backend for target in self.fallbacks))

    @property
    def expected_throughput(self) -> float:
        """Rows per second, were such requests sent one after another; 0 when nothing is known yet."""
        latency = self.expected_latency_ms
        return self.context.batch_size * 1e3 / latency if latency > 0.0 else 0.0

    @property
    def expected_memory_usage_mb(self) -> Figure:
        """Memory of the chosen target, in megabytes, and where the figure comes from."""
        return self.candidate.profile.memory_mb

    @property
    def expected_power_usage_w(self) -> Figure:
        """Power that the chosen target draws, in watts, and where the figure comes from."""
        return self.candidate.profile.power_w


class Verdict(Enum):
    """How an attempt ended."""

    SUCCESS = "success"
    CLIENT_ERROR = "client_error"
    """The request was at fault: says nothing about the target's health."""
    TARGET_ERROR = "target_error"
    CANCELLED = "cancelled"
    """The client left, or its time was over in the target's queue: says nothing about the target, nor of its speed."""


class Outcome(NamedTuple):
    """What happened to a decision. Each decision gets exactly one.

    Attributes:
        verdict: How it ended.
        latency_ms: From decision to answer.
        memory_mb: Memory that the target was measured to take; 0 if it was not measured.
        power_w: Power that it was measured to draw; 0 if it was not measured.
    """

    verdict: Verdict
    latency_ms: float
    memory_mb: float = 0.0
    power_w: float = 0.0
