"""Learning from outcomes, a few at a time.

Between two requests everything has left the processor's caches, and learning outcomes one by one takes ten times as
long as learning sixteen together. Slots, counts and health never wait; what is learned of speed may, for a moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from triton_router.routing.peers import LoadBoard
    from triton_router.routing.protocols import Candidate
    from triton_router.routing.types import RoutingDecision

_TOGETHER = 16
"""Most latencies that wait to be learned."""
_WITHIN_S = 0.02
"""Longest that one waits for another; slower requests are learned one by one, at once."""


class Learner:
    """Collects the latencies of one routed model and feeds them to the profiles of its targets.

    Args:
        slowed: Is told of a target that has become slower.

    Attributes:
        warmup: Answers that a target must have given before its predictions are trusted.
        learned_at: When that was done last, in monotonic seconds.
        board: Where peers are told of each answer, if there are any.
    """

    __slots__ = ("_slowed", "_waiting", "board", "learned_at", "warmup")

    def __init__(self, slowed: Callable[[Candidate], None]) -> None:
        self._slowed = slowed
        self.warmup = 0
        self._waiting: list[tuple[RoutingDecision, float, bool]] = []
        self.learned_at = 0.0
        self.board: LoadBoard | None = None

    def add(self, decision: RoutingDecision, latency_ms: float, now: float, *, alone: bool) -> None:
        """Learn a served request's latency, now or soon.

        Args:
            decision: What was decided for it.
            latency_ms: From decision to answer.
            now: Monotonic seconds.
            alone: Whether it had its device to itself.
        """
        self._waiting.append((decision, latency_ms, alone))
        if now - self.learned_at > _WITHIN_S or len(self._waiting) >= _TOGETHER or not decision.candidate.is_proven:
            self.learn(now)

    def learn(self, now: float) -> None:
        """Learn everything that waits."""
        for decision, latency_ms, alone in self._waiting:
            candidate = decision.candidate
            profile = candidate.profile
            drifts = profile.drifts
            profile.record_latency(
                latency_ms,
                decision.work,
                decision.expected_latency_ms,
                alone=alone,
                rows=decision.context.batch_size,
                load=decision.load,
            )
            if self.board is not None:
                self.board.tell(decision, latency_ms, alone=alone)
            candidate.is_proven = profile.is_proven
            candidate.confidence = self.confidence(candidate)
            candidate.learn_of_load()
            candidate.measured_at = now
            if profile.drifts != drifts and profile.last_drift and profile.last_drift.direction == "slower":
                self._slowed(candidate)
        self._waiting.clear()
        self.learned_at = now

    def confidence(self, candidate: Candidate) -> float:
        """Return the trust in a target's predictions, 0 to 1."""
        profile = candidate.profile
        return profile.confidence if profile.observations >= self.warmup else 0.0
