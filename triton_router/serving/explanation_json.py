"""An explanation in JSON's types: what ``explain --json`` prints, and what a response parameter carries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from triton_router.profiling.figures import Figure, Source

if TYPE_CHECKING:
    from triton_router.routing.explanation import Explanation, TargetExplanation

_HOUR_MS = 3_600_000.0


def as_json(explanation: Explanation) -> dict[str, Any]:
    """Return the explanation; ``chosen`` is the likeliest target."""
    return {
        "policy": explanation.policy,
        "weights": explanation.weights,
        "chosen": explanation.chosen.name if explanation.chosen else None,
        "reason": explanation.reason,
        "arms": list(explanation.arms),
        "fallbacks": [target.name for target in explanation.fallbacks],
        "targets": [_target(target) for target in explanation.targets],
    }


def price_per_request(target: TargetExplanation) -> Figure:
    """Return what the request costs, in the currency of ``price_per_hour``."""
    if not target.target.price_per_hour or not target.alone_ms:
        return Figure(0.0, Source.UNKNOWN)
    return Figure(target.target.price_per_hour * target.alone_ms / _HOUR_MS, Source.ESTIMATED)


def _target(target: TargetExplanation) -> dict[str, Any]:
    return {
        "target": target.target.name,
        "model": target.target.model,
        "backend": target.target.backend.value,
        "variant": target.target.variant,
        "rejected": target.rejected or None,
        "score": target.score,
        "scores": target.scores,
        "probability": target.probability,
        "expected_latency_ms": target.expected_latency_ms,
        "p90_latency_ms": target.p90_latency_ms,
        "confidence": target.confidence,
        "in_flight": target.in_flight,
        "energy_j": target.energy_j.as_json(),
        "memory_mb": target.memory_mb.as_json(),
        "price_per_request": price_per_request(target).as_json(),
    }
