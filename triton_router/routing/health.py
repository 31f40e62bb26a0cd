"""One target's state of health: well -> out -> on trial -> returning -> well.

A target that is out gets no requests until its pause is over. Then it is on trial: one request at a time finds out. An
answer brings it back, and for a while it carries no more than a growing part of its share; a failure doubles the pause.
A pause is forgotten once the target has stayed well for as long as it lasted. Nothing latches: every pause ends, and so
does what a check found, when no newer check confirms it.

The machine follows Envoy's outlier detection (pauses that grow with each ejection, forgotten while a host stays well)
and slow start, and Nygard's circuit breaker (*Release It!*, 2007: half-open trials).
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from triton_router.routing.resilience import HealthRules

WINDOW = 50
"""Outcomes over which failures are counted as a share."""
_JITTER = 0.25
"""Most that chance takes from a pause: targets that went out together should not come back together."""


class Stage(StrEnum):
    """Where a target is on its way out and back."""

    WELL = "well"
    OUT = "out"
    TRIAL = "trial"
    RETURNING = "returning"


class Cause(StrEnum):
    """What sent a target out."""

    FAILURES = "failures"
    FAILURE_RATE = "failure_rate"
    SLOW = "slow"
    CHECK = "check"


class Health:
    """The health of one target. Times are monotonic seconds.

    Attributes:
        is_well: Whether nothing at all is held against it; brought up to date by `settle`.
        consecutive_failures: Failures since the last answer.
        outcomes: Answers and failures so far.
        failures: When failures happened, for those of the last `WINDOW` outcomes: number of the outcome, time.
        slow_answers: Slow answers in a row, as `HealthWatch` counts them.
        slow_since: When the first of them came.
        slow_at: When the last slow answer came.
        cause: Why it went out the last time.
        why: The same in words.
        problem: What a check has found, or "".
        takes_copies: Whether copies of requests go on while that lasts, which only its answers can show to be over.
        most_pause_s: Bound of its pauses, whatever the rules.
        ejections: How often it went out, by cause.
        returns: How often it came back.
    """

    __slots__ = (
        "_forget_at",
        "_full_at",
        "_is_out",
        "_is_ramping",
        "_out_since",
        "_out_until",
        "_pause",
        "_problem_until",
        "_ramp_s",
        "_rests_since",
        "_seconds_out",
        "_try_until",
        "cause",
        "consecutive_failures",
        "ejections",
        "failures",
        "is_well",
        "most_pause_s",
        "outcomes",
        "problem",
        "returns",
        "slow_answers",
        "slow_at",
        "slow_since",
        "takes_copies",
        "why",
    )

    def __init__(self) -> None:
        self.is_well = True
        self.consecutive_failures = 0
        self.outcomes = 0
        self.failures: list[tuple[int, float]] = []
        self.slow_answers = 0
        self.slow_since = self.slow_at = float("-inf")
        self.cause = Cause.FAILURES
        self.why = ""
        self.problem = ""
        self.takes_copies = False
        self.most_pause_s = float("inf")
        self.ejections: dict[Cause, int] = {}
        self.returns = 0
        self._is_out = False
        self._out_since = self._out_until = self._forget_at = 0.0
        self._pause = 0.0
        self._rests_since = 0.0
        self._problem_until = 0.0
        self._try_until = 0.0
        self._is_ramping = False
        self._full_at = 0.0
        self._ramp_s = 0.0
        self._seconds_out = 0.0

    @property
    def is_out(self) -> bool:
        """Whether it went out for what it did and has not come back; on trial it has not."""
        return self._is_out

    def stage(self, now: float) -> Stage:
        """Return where it is at ``now``, what a check found included."""
        return Stage.OUT if self.is_marked(now) else self._stage_unmarked(now)

    def stage_for_copies(self, now: float) -> Stage:
        """Return the same as far as it concerns copies of requests."""
        return self._stage_unmarked(now) if self.takes_copies else self.stage(now)

    def _stage_unmarked(self, now: float) -> Stage:
        if self._is_out:
            return Stage.OUT if now < self._out_until else Stage.TRIAL
        return Stage.RETURNING if self._is_ramping and now < self._full_at else Stage.WELL

    def is_marked(self, now: float) -> bool:
        """Whether a check that is still valid has found a problem."""
        return bool(self.problem) and now < self._problem_until

    def reason(self, now: float) -> str:
        """Return what it is out for, in words; "" if it is not."""
        if self.is_marked(now):
            return self.problem
        return self.why if self._is_out else ""

    def has_rested(self, now: float, seconds: float) -> bool:
        """Whether it has been left alone for so long since it last failed."""
        return now - self._rests_since >= seconds

    def is_tried(self, now: float) -> bool:
        """Whether a request is finding out how it is."""
        return now < self._try_until

    def ramp(self, now: float) -> float:
        """Return what part of its share it may carry, above 0; 1 for all of it."""
        if not self._is_ramping or now >= self._full_at:
            return 1.0
        return 1.0 - (self._full_at - now) / self._ramp_s

    def seconds_out(self, now: float) -> float:
        """Return for how long it has been out so far, all in all."""
        return self._seconds_out + (now - self._out_since if self._is_out or self.problem else 0.0)

    def settle(self, now: float, rules: HealthRules) -> None:
        """Let go of what is over: a check that was not confirmed, a slow start."""
        if self.problem and now >= self._problem_until:
            self.mark("", now, 0.0, rules)
        if self._is_ramping and now >= self._full_at:
            self._is_ramping = False
        self.is_well = not (self.problem or self._is_out or self._is_ramping)

    def answered(self) -> None:
        """Note an answer."""
        self.outcomes += 1
        self.consecutive_failures = 0

    def failed(self, now: float) -> None:
        """Note a failure that was the target's."""
        self.consecutive_failures += 1
        self.outcomes += 1
        oldest = self.outcomes - WINDOW
        self.failures = [failure for failure in self.failures if failure[0] > oldest]
        self.failures.append((self.outcomes, now))

    def failures_since(self, since: float = float("-inf")) -> int:
        """Return how many of the last `WINDOW` outcomes were failures, and not before ``since``."""
        oldest = self.outcomes - WINDOW
        return sum(number > oldest and at >= since for number, at in self.failures)

    def send_out(self, cause: Cause, why: str, now: float, rules: HealthRules, rng: Callable[[], float]) -> None:
        """Leave it out for a pause: twice the last one if that is not forgotten yet, jittered by ``rng``."""
        if self._is_out:
            return
        if not self.problem:
            self._goes(cause, now)
        self.cause, self.why = cause, why
        self._is_out = True
        self._is_ramping = False
        self.slow_answers = 0
        if now >= self._forget_at:
            self._pause = 0.0
        self._rest(now, rules, rng)

    def try_begins(self, now: float, rules: HealthRules) -> None:
        """Note that a request finds out how it is. One that is never heard of again is waited for, but not for ever."""
        self._try_until = now + rules.longest_pause_s

    def try_ends(self) -> None:
        """Note that this request says nothing: its client left, or it was wrong."""
        self._try_until = 0.0

    def try_failed(self, now: float, rules: HealthRules, rng: Callable[[], float]) -> None:
        """Leave it out again, for twice as long; for the rest of its pause if it was tried before that was over."""
        self._try_until = 0.0
        self._rests_since = now
        if self._is_out and now >= self._out_until:
            self._rest(now, rules, rng)

    def come_back(self, now: float, rules: HealthRules) -> None:
        """Let it in again, with a slow start."""
        self._try_until = 0.0
        if not self._is_out:
            return
        self._is_out = False
        self._forget_at = now + max(self._pause, rules.slow_start_s)
        if not self.problem:
            self._returns(now, rules)

    def mark(self, problem: str, now: float, valid_s: float, rules: HealthRules) -> None:
        """Note what a check has found; "" for nothing. A problem counts for ``valid_s`` seconds."""
        had, self.problem = self.problem, problem
        if problem:
            self._problem_until = now + valid_s
            if not had and not self._is_out:
                self._goes(Cause.CHECK, now)
            return
        if not had:
            return
        if self._is_out:
            self._out_until = min(self._out_until, now)  # what sent it out may be over as well: try it now
        else:
            self._returns(now, rules)

    def _goes(self, cause: Cause, now: float) -> None:
        self.is_well = False
        self.ejections[cause] = self.ejections.get(cause, 0) + 1
        self._out_since = now

    def _returns(self, now: float, rules: HealthRules) -> None:
        self.returns += 1
        self._seconds_out += max(0.0, now - self._out_since)
        self._ramp_s = rules.slow_start_s
        self._is_ramping = self._ramp_s > 0.0
        self._full_at = now + self._ramp_s

    def _rest(self, now: float, rules: HealthRules, rng: Callable[[], float]) -> None:
        self._pause = min(max(2.0 * self._pause, rules.first_pause_s), max(rules.longest_pause_s, rules.first_pause_s))
        self._pause = min(self._pause, self.most_pause_s)
        self._rests_since = now
        self._out_until = now + self._pause * (1.0 - _JITTER * rng())
