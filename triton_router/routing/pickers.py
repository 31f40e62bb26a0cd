"""Pickers: each takes one of the rated candidates, and knows how probable each was."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from triton_router.routing.protocols import Candidate

TIE = 0.05
"""Scores within this share of the best count as equal: predictions are not better than that."""


class BestThenLeastRequest:
    """Takes the best score; among ties the one with fewest requests in flight; among those, any.

    That ties are broken by chance keeps many routers with the same stale picture from choosing the same target.
    """

    def pick(self, candidates: Sequence[Candidate], rng: Callable[[], float]) -> int:
        """See `Picker`."""
        scores = [candidate.score for candidate in candidates]
        best = max(scores)
        threshold = best * (1.0 - TIE)
        tied = [index for index, score in enumerate(scores) if score >= threshold]
        if len(tied) == 1:
            return tied[0]
        idlest = _idlest(candidates, tied)
        return idlest[int(rng() * len(idlest))] if len(idlest) > 1 else idlest[0]

    def probabilities(self, candidates: Sequence[Candidate]) -> list[float]:
        """See `Picker`."""
        threshold = max(candidate.score for candidate in candidates) * (1.0 - TIE)
        idlest = _idlest(candidates, [i for i, candidate in enumerate(candidates) if candidate.score >= threshold])
        return [1.0 / len(idlest) if index in idlest else 0.0 for index in range(len(candidates))]


class PowerOfTwo:
    """Takes the better of two drawn at random, the same one twice being allowed.

    Nearly as even as always taking the best, and without its herds (Mitzenmacher, *The Power of Two Choices in
    Randomized Load Balancing*, 2001).
    """

    def pick(self, candidates: Sequence[Candidate], rng: Callable[[], float]) -> int:
        """See `Picker`."""
        first, second = int(rng() * len(candidates)), int(rng() * len(candidates))
        return first if candidates[first].score >= candidates[second].score else second

    def probabilities(self, candidates: Sequence[Candidate]) -> list[float]:
        """See `Picker`."""
        scores = [candidate.score for candidate in candidates]
        pairs = len(scores) ** 2
        # Wins as the first draw against an equal or worse second, as the second only against a worse first.
        return [sum((score >= other) + (score > other) for other in scores) / pairs for score in scores]


class Proportional:
    """Takes any, each with a probability in proportion to its score."""

    def pick(self, candidates: Sequence[Candidate], rng: Callable[[], float]) -> int:
        """See `Picker`."""
        left = rng() * sum(candidate.score for candidate in candidates)
        for index, candidate in enumerate(candidates):
            left -= candidate.score
            if left < 0.0:
                return index
        # No score at all, or the last one by a rounding: whichever is best.
        return max(range(len(candidates)), key=lambda index: candidates[index].score)

    def probabilities(self, candidates: Sequence[Candidate]) -> list[float]:
        """See `Picker`."""
        total = sum(candidate.score for candidate in candidates)
        if total <= 0.0:
            return [1.0] + [0.0] * (len(candidates) - 1)
        return [candidate.score / total for candidate in candidates]


def _idlest(candidates: Sequence[Candidate], tied: list[int]) -> list[int]:
    in_flight = [candidates[index].in_flight + candidates[index].peers_in_flight for index in tied]
    fewest = min(in_flight)
    return [index for index, count in zip(tied, in_flight, strict=True) if count == fewest]
