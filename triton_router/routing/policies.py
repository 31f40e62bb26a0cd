"""Policies: named combinations of filters, weighted scorers and one picker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from triton_router.routing import filters, pickers, scorers

if TYPE_CHECKING:
    from triton_router.routing.protocols import Filter, Picker, Scorer


@dataclass(frozen=True, slots=True)
class Policy:
    """How one target is chosen.

    Attributes:
        scorers: Each with its weight; weights are positive, and the total score is their weighted mean.
        learns: Whether the choice rests on learned latency, so that exploring is worth its price.
    """

    name: str
    filters: tuple[Filter, ...]
    scorers: tuple[tuple[Scorer, float], ...]
    picker: Picker
    learns: bool = False


POLICIES = {
    policy.name: policy
    for policy in (
        Policy(
            "latency",
            (filters.resting, filters.unproven_and_busy),
            ((scorers.latency, 1.0),),
            pickers.best_then_least_request,
            learns=True,
        ),
        Policy(
            "least-request",
            (filters.resting,),
            ((scorers.least_request, 1.0),),
            pickers.best_then_least_request,
        ),
        Policy("random", (filters.resting,), ((scorers.equal, 1.0),), pickers.uniform),
    )
}
"""Every policy by its name in ``router.yaml``."""
