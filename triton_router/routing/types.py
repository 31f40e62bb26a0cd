"""The words of the engine: what is asked, what is chosen among, what is decided, and what happened."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


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


@dataclass(frozen=True, slots=True)
class Target:
    """One sibling that can answer for the routed model.

    Attributes:
        name: Unique within the routed model.
        model: Triton model that is called.
        version: Its version, or None for the one Triton's version policy serves.
        backend: Where it runs; targets of one backend share its device.
        variant: How it was compiled.
    """

    name: str
    model: str
    version: int | None = None
    backend: Backend = Backend.CPU
    variant: str = ""


class RoutingContext(NamedTuple):
    """What the engine knows of one request.

    Attributes:
        batch_size: Rows in the request; 1 where the model does not batch.
        work: Elements of its largest input tensor. For fixed shapes it is proportional to ``batch_size``;
            with dynamic ones it carries the sequence length or image size too.
        pinned: Name of the target that must serve it (a sequence stays where it began), or "".
        may_explore: Whether it may go to a target other than the favourite, to keep that one's profile true.
    """

    batch_size: int = 1
    work: float = 1.0
    pinned: str = ""
    may_explore: bool = True


class Rejection(NamedTuple):
    """Why a target was not considered."""

    target: Target
    reason: str


class Score(NamedTuple):
    """How a considered target did: its total in [0, 1] and the latency predicted for it, in milliseconds."""

    target: Target
    score: float
    expected_latency_ms: float


@dataclass(slots=True, eq=False)
class RoutingDecision:
    """The answer of the engine for one request; its slot at the target is reserved until it is finished.

    Not frozen, because a frozen dataclass takes 3 us to make; nothing changes it all the same.

    Attributes:
        target: The chosen target.
        reason: Why, in a word: ``policy``, ``explore``, ``sequence``, ``only`` (nothing to choose) or
            ``panic`` (every target was rejected, so all were considered).
        expected_latency_ms: Predicted time from decision to answer; 0 when nothing is known yet.
        confidence_score: 0 (no evidence) to 1.
        context: What was asked.
        ahead: Work in flight at the target when it was chosen, this request excluded.
        device_ahead: Work in flight at the other targets of the same backend.
        considered: Every target that was considered, with its score, in the order of the configuration.
        rejections: Every target that was not.
    """

    target: Target
    reason: str
    expected_latency_ms: float
    confidence_score: float
    context: RoutingContext
    ahead: float
    device_ahead: float
    considered: Sequence[Score]
    rejections: Sequence[Rejection]

    @property
    def fallbacks(self) -> tuple[Target, ...]:
        """The other considered targets, best first."""
        others = [score for score in self.considered if score.target is not self.target]
        return tuple(score.target for score in sorted(others, key=lambda score: -score.score))


class Verdict(Enum):
    """How an attempt ended."""

    SUCCESS = "success"
    CLIENT_ERROR = "client_error"
    """The request was at fault: says nothing about the target's health."""
    TARGET_ERROR = "target_error"
    CANCELLED = "cancelled"
    """The client left: says nothing about the target, and its time is not learned."""


class Outcome(NamedTuple):
    """What happened to a decision. Each decision gets exactly one.

    Attributes:
        verdict: How it ended.
        latency_ms: From decision to answer.
    """

    verdict: Verdict
    latency_ms: float
