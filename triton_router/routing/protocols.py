"""Filter -> score -> pick: the three signatures that every routing policy is made of.

A filter rejects one target and says why. A scorer rates all that are left, each in [0, 1], and knows no weight. A
picker takes one of the rated. All are plain callables without side effects; a policy names and weighs them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from triton_router.profiling.profile import TargetProfile
    from triton_router.routing.health import Health
    from triton_router.routing.types import RoutingContext, Target


@dataclass(slots=True, eq=False)
class TargetState:
    """What the engine holds of one target. Filters and scorers read it; only the engine changes it.

    Attributes:
        in_flight: Requests reserved at the target and not yet finished.
        work_in_flight: The sum of their work.
    """

    target: Target
    profile: TargetProfile
    health: Health
    in_flight: int = 0
    work_in_flight: float = 0.0
    chosen: int = 0
    succeeded: int = 0
    failed: int = 0
    refused: int = 0
    cancelled: int = 0


@dataclass(slots=True, eq=False)
class Candidate:
    """A target considered for one request.

    Attributes:
        expected_latency_ms: Predicted time to the answer, what is already in flight included; 0 if unknown.
        alone_ms: Predicted time if nothing else were in flight; 0 if unknown.
        device_in_flight: Requests in flight at all targets of the same backend, this one's among them.
        score: Filled by the policy: the weighted mean of its scorers.
    """

    state: TargetState
    expected_latency_ms: float
    device_ahead: float
    alone_ms: float = 0.0
    device_in_flight: int = 0
    score: float = 0.0


class Filter(Protocol):
    """Returns why the target cannot serve the request now, or "" if it can. ``now`` is in seconds."""

    def __call__(self, context: RoutingContext, state: TargetState, now: float, /) -> str:
        """Judge one target."""
        ...


class Scorer(Protocol):
    """Returns one score in [0, 1] for each candidate, in their order; more is better."""

    def __call__(self, context: RoutingContext, candidates: Sequence[Candidate], /) -> list[float]:
        """Rate all candidates."""
        ...


class Picker(Protocol):
    """Returns the index of the chosen candidate. ``rng`` gives uniform numbers in [0, 1)."""

    def __call__(self, candidates: Sequence[Candidate], rng: Callable[[], float], /) -> int:
        """Take one; there is at least one."""
        ...
