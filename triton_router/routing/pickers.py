"""Pickers: each takes one of the rated candidates."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from triton_router.routing.protocols import Candidate

TIE = 0.05
"""Scores within this share of the best count as equal: predictions are not better than that."""


def best_then_least_request(candidates: Sequence[Candidate], rng: Callable[[], float]) -> int:
    """Take the best score; among ties the one with fewest requests in flight; among those, any."""
    threshold = max(candidate.score for candidate in candidates) * (1.0 - TIE)
    tied = [index for index, candidate in enumerate(candidates) if candidate.score >= threshold]
    if len(tied) == 1:
        return tied[0]
    fewest = min(candidates[index].state.in_flight for index in tied)
    idlest = [index for index in tied if candidates[index].state.in_flight == fewest]
    return idlest[int(rng() * len(idlest))] if len(idlest) > 1 else idlest[0]


def uniform(candidates: Sequence[Candidate], rng: Callable[[], float]) -> int:
    """Take any, each with the same probability."""
    return int(rng() * len(candidates))
