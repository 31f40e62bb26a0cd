"""Why a decision comes out as it does: every target's prediction, its score by scorer, or why it was rejected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triton_router.profiling.figures import Figure
    from triton_router.routing.policies import Policy
    from triton_router.routing.protocols import Candidate, Scorer
    from triton_router.routing.types import Rejection, RoutingContext, Target


@dataclass(frozen=True, slots=True)
class TargetExplanation:
    """What the engine makes of one target for one request.

    Attributes:
        rejected: Why it was not considered, or "".
        score: Its total in [0, 1], the backend's weight included; 0 if it was rejected.
        scores: What each scorer of the policy gave, before weights.
        probability: Of being chosen, exploration included.
        expected_latency_ms: Predicted time to the answer, what is in flight included; 0 if unknown.
        p90_latency_ms: Nine of ten answers are expected by then; 0 if unknown.
        alone_ms: Predicted time if nothing else were in flight; 0 if unknown.
        confidence: Trust in these predictions, 0 to 1.
        energy_j: Energy of the request, and where the figure comes from.
    """

    target: Target
    rejected: str
    score: float
    scores: dict[str, float]
    probability: float
    expected_latency_ms: float
    p90_latency_ms: float
    alone_ms: float
    confidence: float
    in_flight: int
    energy_j: Figure
    memory_mb: Figure


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision that was not made: what would be chosen, and why. Nothing is reserved.

    Attributes:
        policy: Name of the policy in force.
        weights: Its scorers and their shares, which sum to 1.
        chosen: The most probable target; None if the request's constraints leave none.
        reason: As `RoutingDecision.reason`, or ``refused``, or ``full`` (the request would wait).
        fallbacks: Where the request goes if the chosen one fails, best first.
        arms: Which arms of experiments the request is in.
    """

    policy: str
    weights: dict[str, float]
    chosen: Target | None
    reason: str
    targets: list[TargetExplanation]
    fallbacks: list[Target]
    arms: tuple[str, ...] = ()


def explained(
    everyone: Sequence[Candidate],
    kept: Sequence[Candidate],
    rejections: Sequence[Rejection],
    policy: Policy,
    reason: str,
    chances: tuple[RoutingContext, Sequence[float]],
) -> Explanation:
    """Lay out a choice among rated candidates.

    Args:
        everyone: All targets, in the order of the configuration.
        kept: Those that were considered.
        rejections: Why the others were not.
        policy: Rated them.
        reason: The decision's.
        chances: What was asked, and for each of ``kept`` how probable it is to be chosen.
    """
    context, probabilities = chances
    reasons = {rejection.target.name: rejection.reason for rejection in rejections}
    chance = {id(candidate): p for candidate, p in zip(kept, probabilities, strict=True)}
    scores: dict[int, dict[str, float]] = {id(candidate): {} for candidate in kept}
    for scorer, _ in policy.shares:
        for candidate, score in zip(kept, scorer(context, kept) if kept else (), strict=True):
            scores[id(candidate)][_name(scorer)] = score
    likeliest = max(kept, key=lambda candidate: chance[id(candidate)], default=None)
    others = sorted((c for c in kept if c is not likeliest), key=lambda candidate: -candidate.score)
    return Explanation(
        policy.name,
        {_name(scorer): share for scorer, share in policy.shares},
        likeliest.target if likeliest else None,
        reason,
        [
            _one(
                candidate, reasons.get(candidate.target.name, ""), chance.get(id(candidate)), scores.get(id(candidate))
            )
            for candidate in everyone
        ],
        [candidate.target for candidate in others],
    )


def _one(
    candidate: Candidate, rejected: str, probability: float | None, scores: dict[str, float] | None
) -> TargetExplanation:
    profile = candidate.profile
    expected = candidate.expected_latency_ms
    return TargetExplanation(
        target=candidate.target,
        rejected=rejected if scores is None else "",
        score=candidate.score if scores is not None else 0.0,
        scores=scores or {},
        probability=probability or 0.0,
        expected_latency_ms=expected,
        p90_latency_ms=profile.latency_quantile(expected, 0.9) if expected else 0.0,
        alone_ms=candidate.alone_ms,
        confidence=candidate.confidence,
        in_flight=candidate.in_flight,
        energy_j=profile.energy_j(candidate.alone_ms),
        memory_mb=profile.memory_mb,
    )


def _name(scorer: Scorer) -> str:
    return str(getattr(scorer, "__name__", scorer))
