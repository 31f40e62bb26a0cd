"""The routing engine of one routed model: decides, reserves, and learns from what happened.

Pure: the caller passes the time and a source of random numbers. Safe to call from several threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

from triton_router.routing.health import Health
from triton_router.routing.protocols import Candidate, TargetState
from triton_router.routing.types import (
    Outcome,
    Rejection,
    RoutingContext,
    RoutingDecision,
    Score,
    Target,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from triton_router.profiling.profile import LatencySummary, TargetProfile
    from triton_router.routing.policies import Policy

_LEARN_TOGETHER = 16
"""Most latencies that wait to be learned."""
_LEARN_WITHIN_S = 0.02
"""Longest that one waits for another; slower requests are learned one by one, at once."""


@dataclass(frozen=True, slots=True)
class TargetSnapshot:
    """One target as people and metrics see it. Counts are since the routed model was loaded.

    Attributes:
        chosen: Decisions for it.
        succeeded: Answers it gave.
        failed: Failures that were its own.
        refused: Requests it refused because they were wrong.
        cancelled: Requests whose client left first.
        resting: Whether it is out after consecutive failures.
        consecutive_failures: Failures since its last answer, those that a pause has followed included.
    """

    target: Target
    in_flight: int
    chosen: int
    succeeded: int
    failed: int
    refused: int
    cancelled: int
    resting: bool
    confidence: float
    latency: LatencySummary
    consecutive_failures: int


class RoutingEngine:
    """Chooses among the targets of one routed model.

    Args:
        targets: Each with its profile, seeded or fresh. At least one; names are unique.
        policy: How to choose.
        explore: Probability that a learning policy considers a target other than its favourite; it then goes there
            with a probability of that target's score.
        rng: Uniform numbers in [0, 1).
    """

    def __init__(
        self,
        targets: Iterable[tuple[Target, TargetProfile]],
        policy: Policy,
        *,
        explore: float,
        rng: Callable[[], float],
    ) -> None:
        self._states = [TargetState(target, profile, Health()) for target, profile in targets]
        self._by_name = {state.target.name: state for state in self._states}
        self._policy = policy
        total = sum(weight for _, weight in policy.scorers)
        self._scorers = [(scorer, weight / total) for scorer, weight in policy.scorers]
        self._explore = explore if policy.learns else 0.0
        self._rng = rng
        self._lock = Lock()
        self._unlearned: list[tuple[TargetState, RoutingDecision, float, bool]] = []
        self._learned_at = 0.0

    def decide(self, context: RoutingContext, now: float) -> RoutingDecision:
        """Choose a target for a request and reserve its slot there, in one step.

        Args:
            context: What is asked.
            now: Monotonic seconds.
        """
        with self._lock:
            return self._decide(context, now)

    def finish(self, decision: RoutingDecision, outcome: Outcome, now: float) -> None:
        """Release the slot and learn. To be called exactly once for each decision, however the request ended.

        Slots, counts and health are exact at once. Latencies are learned a few at a time where requests follow
        each other quickly: between two requests everything has left the processor's caches, and learning one by
        one takes ten times as long as learning sixteen together.
        """
        with self._lock:
            state = self._by_name[decision.target.name]
            state.in_flight -= 1
            state.work_in_flight -= decision.context.work
            match outcome.verdict:
                case Verdict.SUCCESS:
                    state.succeeded += 1
                    state.health.succeeded()
                    self._unlearned.append((state, decision, outcome.latency_ms, self._was_alone(state, decision)))
                    if self._is_due(state, now):
                        self._learn(now)
                case Verdict.TARGET_ERROR:
                    state.failed += 1
                    state.health.failed(now)
                case Verdict.CLIENT_ERROR:
                    state.refused += 1
                    # A target that has never answered and refuses everything is not what its configuration says.
                    if not state.profile.is_proven:
                        state.health.failed(now)
                case Verdict.CANCELLED:
                    state.cancelled += 1

    def _was_alone(self, state: TargetState, decision: RoutingDecision) -> bool:
        if decision.ahead or decision.device_ahead:
            return False
        backend = state.target.backend
        return not any(other.in_flight for other in self._states if other.target.backend is backend)

    def _is_due(self, state: TargetState, now: float) -> bool:
        return (
            now - self._learned_at > _LEARN_WITHIN_S
            or len(self._unlearned) >= _LEARN_TOGETHER
            or not state.profile.is_proven
        )

    def _learn(self, now: float) -> None:
        for state, decision, latency_ms, alone in self._unlearned:
            state.profile.record_latency(
                latency_ms,
                decision.context.work,
                decision.ahead,
                decision.device_ahead,
                decision.expected_latency_ms,
                alone,
            )
        self._unlearned.clear()
        self._learned_at = now

    def snapshot(self, now: float) -> list[TargetSnapshot]:
        """Return every target as it stands."""
        with self._lock:
            self._learn(now)
            return [
                TargetSnapshot(
                    target=state.target,
                    in_flight=state.in_flight,
                    chosen=state.chosen,
                    succeeded=state.succeeded,
                    failed=state.failed,
                    refused=state.refused,
                    cancelled=state.cancelled,
                    resting=state.health.is_out(now),
                    confidence=state.profile.confidence,
                    latency=state.profile.summary(),
                    consecutive_failures=state.health.consecutive_failures,
                )
                for state in self._states
            ]

    def _decide(self, context: RoutingContext, now: float) -> RoutingDecision:
        if context.pinned:
            return self._reserve(context, [self._candidate(context, self._by_name[context.pinned])], 0, "sequence", [])
        if len(self._states) == 1:
            return self._reserve(context, [self._candidate(context, self._states[0])], 0, "only", [])
        candidates, rejections = self._consider(context, now)
        if not candidates:
            everyone = [self._candidate(context, state) for state in self._states]
            return self._reserve(context, everyone, self._pick(context, everyone), "panic", rejections)
        index = self._pick(context, candidates)
        if self._explore and context.may_explore and len(candidates) > 1 and self._rng() < self._explore:
            other = (index + 1 + int(self._rng() * (len(candidates) - 1))) % len(candidates)
            # A target ten times as slow is tried a tenth as often: exploring costs the same whatever it tries.
            if self._rng() < candidates[other].score:
                return self._reserve(context, candidates, other, "explore", rejections)
        return self._reserve(context, candidates, index, "policy", rejections)

    def _consider(self, context: RoutingContext, now: float) -> tuple[list[Candidate], list[Rejection]]:
        candidates: list[Candidate] = []
        rejections: list[Rejection] = []
        filters = self._policy.filters
        for state in self._states:
            for rejects in filters:
                reason = rejects(context, state, now)
                if reason:
                    rejections.append(Rejection(state.target, reason))
                    break
            else:
                candidates.append(self._candidate(context, state))
        return candidates, rejections

    def _candidate(self, context: RoutingContext, state: TargetState) -> Candidate:
        backend = state.target.backend
        device_ahead, device_in_flight = 0.0, state.in_flight
        for other in self._states:
            if other is not state and other.in_flight and other.target.backend is backend:
                device_ahead += other.work_in_flight
                device_in_flight += other.in_flight
        profile = state.profile
        if not device_in_flight:
            return Candidate(state, profile.predict_latency(context.work), 0.0)
        alone = profile.predict_alone(context.work)
        expected = profile.predict_latency(context.work, state.work_in_flight, device_ahead)
        return Candidate(state, expected, device_ahead, alone, device_in_flight)

    def _pick(self, context: RoutingContext, candidates: Sequence[Candidate]) -> int:
        for scorer, share in self._scorers:
            for candidate, score in zip(candidates, scorer(context, candidates), strict=True):
                candidate.score += share * score
        return self._policy.picker(candidates, self._rng)

    def _reserve(
        self,
        context: RoutingContext,
        candidates: list[Candidate],
        index: int,
        reason: str,
        rejections: list[Rejection],
    ) -> RoutingDecision:
        chosen = candidates[index]
        state = chosen.state
        ahead = state.work_in_flight
        state.in_flight += 1
        state.work_in_flight += context.work
        state.chosen += 1
        return RoutingDecision(
            state.target,
            reason,
            chosen.expected_latency_ms,
            state.profile.confidence,
            context,
            ahead,
            chosen.device_ahead,
            [Score(c.state.target, c.score, c.expected_latency_ms) for c in candidates],
            rejections,
        )
