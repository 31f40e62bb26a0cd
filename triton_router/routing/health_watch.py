"""Judges the health of all targets of one engine: who is sent out, who comes back, and who may be chosen meanwhile.

A target goes out for failing several times in a row; for failing clearly more often than its peers; for a run of
answers that each take far longer than expected while its peers do not; or because a check has found a problem. A
machine that is slow as a whole sends nobody out: there is nobody who would do better.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from triton_router.routing.health import WINDOW, Cause, Stage
from triton_router.routing.resilience import HealthRules

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from triton_router.routing.protocols import Candidate
    from triton_router.routing.types import RoutingDecision

_LEAST_VOLUME = 20
"""Outcomes from which a share of failures means anything, and answers from which "slower than usual" does."""
_PEER_VOLUME = 10
_CLEARLY = 2.0
"""A target that fails this many times as often as its peers fails by itself."""
_RECENT_S = 60.0
"""Failures of peers that are older do not excuse it."""
_SLOW_RUN = 5
"""Slow answers in a row; those under way when the first came do not count: one stall of the machine slows them all."""
_SAME_TIME_S = 10.0
"""Peers that were slow within this time are slow as well."""


class Sorted(NamedTuple):
    """Who may be chosen.

    Attributes:
        kept: Those who may.
        rejected: Those who may not, and why. In a panic where nobody was left they are all of ``kept``.
        in_panic: Whether some are among ``kept`` although they are out.
    """

    kept: list[Candidate]
    rejected: list[tuple[Candidate, str]]
    in_panic: bool


class HealthWatch:
    """Watches the targets of one engine, under its lock.

    Args:
        rng: Uniform numbers in [0, 1), for the jitter of pauses.

    Attributes:
        rules: When a target goes out, and how it comes back.
        members: The targets that can be chosen.
        all_well: Whether nothing at all is held against any of them, as last brought up to date.
    """

    __slots__ = ("_rng", "all_well", "members", "rules")

    def __init__(self, rng: Callable[[], float]) -> None:
        self._rng = rng
        self.rules = HealthRules()
        self.members: Sequence[Candidate] = ()
        self.all_well = True

    def admit(self, members: Sequence[Candidate], rules: HealthRules) -> None:
        """Watch these from now on, by these rules."""
        self.members, self.rules = members, rules
        self.all_well = all(member.health.is_well for member in members)

    def settle(self, now: float) -> None:
        """Bring everyone up to ``now`` (monotonic seconds)."""
        for member in self.members:
            if not member.health.is_well:
                member.health.settle(now, self.rules)
        self.all_well = all(member.health.is_well for member in self.members)

    def reserved(self, decision: RoutingDecision, now: float) -> None:
        """Note a decision for a target that is not simply well: perhaps it is a try."""
        health = decision.candidate.health
        if health.is_out:
            decision.is_trial = True
            health.try_begins(now, self.rules)

    def answered(self, decision: RoutingDecision, latency_ms: float, now: float) -> None:
        """Note an answer and how long it took."""
        health = decision.candidate.health
        health.outcomes += 1
        health.consecutive_failures = 0
        expected, factor = decision.expected_latency_ms, self.rules.slow_factor
        is_slow = 0.0 < expected * factor < latency_ms
        if is_slow:
            self._answered_slowly(decision, latency_ms, now)
        elif health.slow_answers:
            health.slow_answers = 0
        if decision.is_trial:
            if is_slow and health.cause is Cause.SLOW:
                health.try_failed(now, self.rules, self._rng)
            else:
                health.come_back(now, self.rules)
                self.settle(now)

    def failed(self, decision: RoutingDecision, now: float) -> None:
        """Note a failure that was the target's."""
        candidate = decision.candidate
        health, limit = candidate.health, self.rules.consecutive_failures
        health.failed(now)
        if decision.is_trial:
            health.try_failed(now, self.rules, self._rng)
        if health.is_out:
            return
        if limit and health.consecutive_failures >= limit:
            self._send_out(candidate, Cause.FAILURES, "after consecutive failures", now)
        elif self._fails_alone(candidate, now):
            share = health.failures_since() / min(health.outcomes, WINDOW)
            self._send_out(candidate, Cause.FAILURE_RATE, f"after {share:.0%} of its recent requests failed", now)

    def passed_over(self, decision: RoutingDecision) -> None:
        """Note an outcome that says nothing of the target's health."""
        if decision.is_trial:
            decision.candidate.health.try_ends()

    def mark(self, candidate: Candidate, problem: str, now: float, valid_s: float) -> None:
        """Note what a check has found about a target; "" for nothing."""
        candidate.health.mark(problem, now, valid_s, self.rules)
        candidate.health.settle(now, self.rules)
        self.all_well = all(member.health.is_well for member in self.members)

    def sort(self, able: Sequence[Candidate], now: float, tries: Callable[[], float]) -> Sorted:
        """Say who of the ``able`` may be chosen.

        Where most are out, those that are merely slow are considered again, and those that fail are tried without
        waiting for the end of their pause, one request each, as long as a retry would save it. Where nobody is left,
        whoever is returning takes more than its part, else everybody is considered who was not found unable to serve,
        else everybody.

        Args:
            able: At least one.
            now: Monotonic seconds.
            tries: Returns how many requests may be risked now.
        """
        self.settle(now)
        kept: list[Candidate] = []
        ramping: list[tuple[Candidate, str]] = []
        out: list[tuple[Candidate, str]] = []
        marked: list[tuple[Candidate, str]] = []
        for candidate in able:
            health = candidate.health
            stage = Stage.WELL if health.is_well else health.stage(now)
            if health.is_marked(now):
                marked.append((candidate, health.problem))
            elif stage is Stage.OUT:
                out.append((candidate, f"resting {health.why}"))
            elif stage is Stage.TRIAL and health.is_tried(now):
                out.append((candidate, "on probation, and being tried"))
            elif stage is Stage.RETURNING and candidate.in_flight >= self._part(health.ramp(now)):
                ramping.append((candidate, "returning, and carrying its part already"))
            else:
                kept.append(candidate)
        if not kept:
            return _whoever_is_left(ramping, out, marked)
        risked = {id(candidate) for candidate in self._risked(out, now, tries)}
        return Sorted(
            [c for c in able if id(c) in risked or c in kept] if risked else kept,
            [*ramping, *(one for one in out if id(one[0]) not in risked), *marked],
            in_panic=bool(risked),
        )

    def _risked(self, out: Sequence[tuple[Candidate, str]], now: float, tries: Callable[[], float]) -> list[Candidate]:
        """Return who of those out is considered all the same because most are out, although somebody is well."""
        unmarked = [member for member in self.members if not member.health.is_marked(now)]
        if not out or sum(member.health.is_out for member in unmarked) <= self.rules.panic_share * len(unmarked):
            return []
        left = tries() - sum(candidate.in_flight for candidate, _ in out)
        risked: list[Candidate] = []
        for candidate, _ in out:
            if candidate.health.cause is Cause.SLOW:
                risked.append(candidate)
            elif left >= 1.0 and not candidate.health.is_tried(now):
                left -= 1.0
                risked.append(candidate)
        return risked

    def _part(self, ramp: float) -> float:
        """Return how much may be in flight at a target that is returning: at least one, at last as much as it gets."""
        return 1.0 + ramp * sum(member.in_flight for member in self.members)

    def _send_out(self, candidate: Candidate, cause: Cause, why: str, now: float) -> None:
        candidate.health.send_out(cause, why, now, self.rules, self._rng)
        self.settle(now)

    def _fails_alone(self, candidate: Candidate, now: float) -> bool:
        """Whether it fails too often, and clearly more often than its peers."""
        health, most = candidate.health, self.rules.failure_rate
        if most >= 1.0 or health.outcomes < _LEAST_VOLUME:
            return False
        share = health.failures_since() / min(health.outcomes, WINDOW)
        if share < most:
            return False
        peers = [m.health for m in self.members if m is not candidate and m.health.outcomes >= _PEER_VOLUME]
        volume = sum(min(peer.outcomes, WINDOW) for peer in peers)
        failures = sum(peer.failures_since(now - _RECENT_S) for peer in peers)
        return share >= _CLEARLY * failures / volume if volume else len(self.members) > 1

    def _answered_slowly(self, decision: RoutingDecision, latency_ms: float, now: float) -> None:
        candidate = decision.candidate
        health = candidate.health
        health.slow_at = now
        if not health.slow_answers:
            health.slow_answers, health.slow_since = 1, now
        elif now - latency_ms / 1e3 >= health.slow_since:
            health.slow_answers += 1
        if health.slow_answers < _SLOW_RUN or health.is_out or candidate.profile.observations < _LEAST_VOLUME:
            return
        if self._is_slow_alone(decision, latency_ms, now):
            times = latency_ms / decision.expected_latency_ms
            self._send_out(
                candidate, Cause.SLOW, f"after a run of answers up to {times:.0f} times as slow as usual", now
            )

    def _is_slow_alone(self, decision: RoutingDecision, latency_ms: float, now: float) -> bool:
        """Whether another target would have answered sooner, and those that answered lately were not slow as well."""
        peers = [m for m in self.members if m is not decision.candidate and m.health.is_well]
        recent = [peer for peer in peers if now - peer.measured_at < _SAME_TIME_S]
        slow = sum(now - peer.health.slow_at < _SAME_TIME_S for peer in recent)
        if recent and 2 * slow >= len(recent):
            return False
        work, rows = decision.work, decision.context.batch_size
        return any(0.0 < peer.profile.predict_alone(work, rows) < latency_ms for peer in peers)


def _whoever_is_left(
    ramping: list[tuple[Candidate, str]], out: list[tuple[Candidate, str]], marked: list[tuple[Candidate, str]]
) -> Sorted:
    if ramping:
        return Sorted([candidate for candidate, _ in ramping], [*out, *marked], in_panic=False)
    considered = out or marked
    return Sorted([candidate for candidate, _ in considered], [*out, *marked], in_panic=True)
