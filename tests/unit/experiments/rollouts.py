"""Rollouts with a clock and traffic of their own."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, NamedTuple

from triton_router.experiments.rollout import Gate, Rollout, RolloutPlan, Transition
from triton_router.routing.types import Verdict

if TYPE_CHECKING:
    from triton_router.experiments.tally import Tally

STEPS = (0.01, 0.05, 0.25, 0.5, 1.0)
SHARES = (0.01, 0.05, 0.25, 0.5, 0.98)
"""What the canary gets at these steps."""


class Behaviour(NamedTuple):
    """How an arm answers: its share of failures, and its latency as a log ratio more than the other's."""

    failures: float = 0.002
    slower: float = 0.0


GOOD = Behaviour()


class Traffic:
    """Requests of as many callers, a given number each second: log-normal latencies, now and then an outlier."""

    def __init__(self, rollout: Rollout, seed: int, *, per_second: int = 20) -> None:
        self.rollout = rollout
        self.now = 1_000_000.0
        self.canary_requests = 0
        self.canary_failures = 0
        self.changes: list[Transition] = rollout.step(self.now)
        self._rng = random.Random(seed)
        self._per_second = per_second

    def second(self, canary: Behaviour = GOOD, stable: Behaviour = GOOD, mismatches: float | None = None) -> None:
        """Have a second of requests answered, then let the rollout judge."""
        rng, rollout = self._rng, self.rollout
        share = rollout.share
        for _ in range(self._per_second):
            if rng.random() < share:
                self.canary_requests += 1
                self.canary_failures += self._answer(rollout.canary, canary)
                if mismatches is not None:
                    rollout.note_parity(rng.random() >= mismatches)
            else:
                self._answer(rollout.stable, stable)
        self.now += 1.0
        self.changes += rollout.step(self.now)

    def until_it_ends(self, *args: Any, most: int = 5000, **kwargs: Any) -> str:
        """Go on until the rollout has ended, or for so many seconds; return its phase."""
        for _ in range(most):
            if self.rollout.phase != "running":
                break
            self.second(*args, **kwargs)
        return self.rollout.phase

    def _answer(self, tally: Tally, behaviour: Behaviour) -> bool:
        rng = self._rng
        if rng.random() < behaviour.failures:
            tally.note(Verdict.TARGET_ERROR, 5.0, 0.0)
            return True
        ratio = rng.gauss(behaviour.slower, 0.3)
        if rng.random() < 0.005:
            ratio += rng.uniform(0.0, 5.0)
        tally.note(Verdict.SUCCESS, 5.0, ratio)
        return False


def plan(**changes: Any) -> RolloutPlan:
    """Return a plan of five quick steps."""
    given: dict[str, Any] = {"id": "r", "canary": frozenset({"new"}), "steps": STEPS, "hold_s": 10.0, "by": "ann"}
    return RolloutPlan(**(given | changes))


def gate(**changes: Any) -> Gate:
    """Return a gate that lets a step go soon."""
    return Gate(**({"min_requests": 5} | changes))


def events(changes: list[Transition]) -> list[str]:
    """Return what happened, in a word each."""
    return [change.event for change in changes]
