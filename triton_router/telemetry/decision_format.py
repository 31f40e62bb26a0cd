"""What stands in a decision log: one JSON object per line; docs/decision-log.md describes every key.

A file begins with a line of kind ``start``, which says what there is to choose from, and has another one where that
changes; each further line is a decision and its outcome.
"""

from __future__ import annotations

from json import dumps
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from triton_router.profiling.figures import Source
from triton_router.routing.types import COPIES, Backend, OptimizationGoal, RoutingContext, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triton_router.routing.types import Outcome, RoutingDecision

SCHEMA = 1
"""Raised when a key changes its meaning. A reader refuses what is newer than itself; new keys need no new number."""

_Name = Annotated[str, Field(min_length=1, max_length=255)]
_LARGEST = 1e60
"""Nothing that is ever logged is larger; whoever reads a log squares and adds up."""
_Count = Annotated[float, Field(ge=0, le=_LARGEST)]
_Time = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST)]


class _Line(BaseModel):
    """A line; keys that a later version adds are passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class TargetEntry(_Line):
    """A target as a log's first line describes it.

    Attributes:
        measured: ``(work, latency_ms)`` pairs that were known before the first request.
        power_w: Declared power while it works, or 0.
        price_per_hour: What its device costs, or 0.
        device: Name of the device that it shares, if that is not its backend's only one.
    """

    name: _Name
    backend: Backend = Backend.CPU
    variant: str = ""
    measured: Annotated[tuple[tuple[_Count, _Count], ...], Field(max_length=64)] = ()
    power_w: _Count = 0.0
    power_source: Source = Source.UNKNOWN
    price_per_hour: _Count = 0.0
    device: str = ""


class Start(_Line):
    """The first line of a file, and of what was decided among other targets."""

    kind: Literal["start"] = "start"
    model: str
    policy: str
    targets: Annotated[tuple[TargetEntry, ...], Field(min_length=1, max_length=65536)]


class ScoreEntry(_Line):
    """One target that was considered, with its total score and predicted latency."""

    target: _Name
    score: _Count
    expected_ms: _Count


class RejectionEntry(_Line):
    """One target that was not considered, and why."""

    target: _Name
    reason: str


class Record(_Line):
    """One decision and its outcome; docs/decision-log.md says what each attribute means."""

    kind: Literal["decision"] = "decision"
    time: _Time
    monotonic: _Time
    model: str
    rows: Annotated[int, Field(ge=0, le=1 << 63)]
    work: _Count
    may_explore: bool = True
    goal: OptimizationGoal = OptimizationGoal.BALANCED
    max_latency_ms: _Count = 0.0
    min_throughput: _Count = 0.0
    max_memory_mb: _Count = 0.0
    max_power_w: _Count = 0.0
    allowed_backends: tuple[Backend, ...] | None = None
    policy: str
    reason: str
    target: _Name
    propensity: Annotated[float, Field(ge=0, le=1)]
    ahead_ms: _Count = 0.0
    device_ahead_ms: _Count = 0.0
    considered: tuple[ScoreEntry, ...] = ()
    rejected: tuple[RejectionEntry, ...] = ()
    verdict: Verdict
    latency_ms: _Count
    attempts: Annotated[int, Field(ge=1, le=1 << 63)] = 1
    mirrored: bool = False
    arms: tuple[str, ...] = ()

    @property
    def decided_at(self) -> float:
        """When it was decided, in monotonic seconds."""
        return self.monotonic - self.latency_ms / 1e3

    @property
    def named(self) -> tuple[str, ...]:
        """Names of all targets that it says something of."""
        considered, rejected = self.considered, self.rejected
        return (self.target, *(one.target for one in considered), *(one.target for one in rejected))

    def context(self) -> RoutingContext:
        """Return what was asked."""
        allowed = self.allowed_backends
        return RoutingContext(
            batch_size=self.rows,
            work=self.work,
            may_explore=self.may_explore,
            max_latency_ms=self.max_latency_ms,
            min_throughput=self.min_throughput,
            max_memory_mb=self.max_memory_mb,
            max_power_w=self.max_power_w,
            optimization_goal=self.goal,
            allowed_backends=None if allowed is None else frozenset(allowed),
        )


def start_line(model: str, policy: str, targets: Sequence[TargetEntry]) -> str:
    """Return the first line of a file, its end included."""
    start = Start(model=model, policy=policy, targets=tuple(targets))
    return dumps({"schema": SCHEMA, **start.model_dump(mode="json", exclude_defaults=True), "kind": "start"}) + "\n"


def decision_line(model: str, decision: RoutingDecision, outcome: Outcome, *, monotonic: float, time: float) -> str:
    """Return the line of one decision, its end included.

    Args:
        model: Name of the routed model.
        decision: What was decided.
        outcome: How it ended.
        monotonic: When it ended, in monotonic seconds.
        time: The same, in seconds since 1970.
    """
    context = decision.context
    line: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": "decision",
        "time": round(time, 6),
        "monotonic": round(monotonic, 9),
        "model": model,
        "rows": context.batch_size,
        "work": decision.work,
        **_bounds(context),
        "policy": decision.policy,
        "reason": decision.reason,
        "target": decision.target.name,
        "propensity": decision.propensity,
        "ahead_ms": _short(decision.load.ahead_ms),
        "device_ahead_ms": _short(decision.load.elsewhere_ms),
        "considered": [
            {"target": candidate.target.name, "score": _short(score), "expected_ms": _short(expected)}
            for candidate, score, expected in decision.rated
        ],
        "rejected": [{"target": target.name, "reason": reason} for target, reason in decision.rejections],
        "verdict": outcome.verdict.value,
        "latency_ms": round(outcome.latency_ms, 6),
        "attempts": decision.attempt,
        "mirrored": decision.reason in COPIES,
    }
    if decision.witnesses or decision.judges:
        line["arms"] = decision.arms
    return dumps(line) + "\n"


def _bounds(context: RoutingContext) -> dict[str, Any]:
    """Return what the request asks for, as far as it asks for anything."""
    asked: dict[str, Any] = {}
    if not context.may_explore:
        asked["may_explore"] = False
    if context.optimization_goal is not OptimizationGoal.BALANCED:
        asked["goal"] = context.optimization_goal.value
    for name in ("max_latency_ms", "min_throughput", "max_memory_mb", "max_power_w"):
        if value := cast("float", getattr(context, name)):
            asked[name] = value
    if context.allowed_backends is not None:
        asked["allowed_backends"] = sorted(context.allowed_backends)
    return asked


def _short(value: float) -> float:
    """Round to what a prediction is good for: a line is a third shorter for it."""
    return float(f"{value:.6g}")
