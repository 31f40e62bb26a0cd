"""Judges the health of all targets of one engine: who is sent out, who comes back, and who may be chosen meanwhile.

A target goes out for failing several times in a row; for failing clearly more often than its peers; for a run of
answers that each take far longer than expected while its peers do not; or because a check has found a problem. A
machine that is slow as a whole sends nobody out: there is nobody who would do better.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, NamedTuple

from triton_router.routing.health import WINDOW, Cause, Stage
from triton_router.routing.resilience import HealthRules

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from triton_router.routing.health import Health
    from triton_router.routing.protocols import Candidate
    from triton_router.routing.types import RoutingDecision

_LEAST_VOLUME = 20
"""Outcomes from which a share of failures means anything, and answers from which "slower than usual" does."""
_PEER_VOLUME = 10
_CLEARLY = 2.0
"""A target that fails this many times as often as its peers fails by itself."""
_RECENT_S = 60.0
"""Failures of peers that are older do not excuse it."""
_SLOW_RUN = 4
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


class _Lists(NamedTuple):
    """Who may be chosen; and with the reason who carries its part, who is out, and in whom a check found a problem."""

    kept: list[Candidate]
    ramping: list[tuple[Candidate, str]]
    out: list[tuple[Candidate, str]]
    marked: list[tuple[Candidate, str]]


class HealthWatch:
    """Watches the targets of one engine, under its lock.

    Args:
        rng: Uniform numbers in [0, 1), for the jitter of pauses.

    Attributes:
        rules: When a target goes out, and how it comes back.
        members: The targets that can be chosen.
        all_well: Whether nothing at all is held against any of them, as last brought up to date.
        now: When that was, in monotonic seconds.
    """

    __slots__ = ("_rng", "all_well", "members", "now", "rules")

    def __init__(self, rng: Callable[[], float]) -> None:
        self._rng = rng
        self.rules = HealthRules()
        self.members: Sequence[Candidate] = ()
        self.all_well = True
        self.now = 0.0

    def admit(self, members: Sequence[Candidate], rules: HealthRules) -> None:
        """Watch these from now on, by these rules."""
        self.members, self.rules = members, rules
        self.all_well = all(member.health.is_well for member in members)

    def settle(self, now: float) -> None:
        """Bring everyone up to ``now`` (monotonic seconds)."""
        self.now = now
        for member in self.members:
            if not member.health.is_well:
                member.health.settle(now, self.rules)
        self.all_well = all(member.health.is_well for member in self.members)

    def can_be_tried(self, candidate: Candidate) -> bool:
        """Whether a copy may find out how a target is: it is well, or it has rested and nobody is finding out."""
        health = candidate.health
        return health.is_well or (health.stage(self.now) is Stage.TRIAL and not health.is_tried(self.now))

    def can_be_copied_to(self, candidate: Candidate, now: float) -> bool:
        """Whether a copy may go to a target, which may be none of the members: nobody else brings that up to date."""
        health = candidate.health
        self.now = now
        if not health.is_well:
            health.settle(now, self.rules)
        stage = health.stage_for_copies(now)
        return stage is not Stage.OUT and not (stage is Stage.TRIAL and health.is_tried(now))

    def reserved(self, decision: RoutingDecision) -> None:
        """Note a decision, just made, for a target that is not simply well: perhaps it is a try."""
        health = decision.candidate.health
        if health.is_out:
            decision.is_trial = True
            health.try_begins(self.now, self.rules)

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

    def mark(
        self, candidate: Candidate, problem: str, now: float, valid_s: float, *, takes_copies: bool = False
    ) -> None:
        """Note what a check has found about a target; "" for nothing."""
        candidate.health.takes_copies = takes_copies
        candidate.health.mark(problem, now, valid_s, self.rules)
        candidate.health.settle(now, self.rules)
        self.all_well = all(member.health.is_well for member in self.members)

    def sort(self, able: Sequence[Candidate], now: float, risk: float) -> Sorted:
        """Say who of the ``able`` may be chosen.

        Where most are out, those that are merely slow are considered again, and nobody else waits longer than the first
        pause to be tried. Where nobody is left, whoever is returning takes more than its part; else everybody is
        considered who was not found unable to serve; else everybody.

        Args:
            able: At least one.
            now: Monotonic seconds.
            risk: Requests that may be risked at a target that probably fails, because a retry would save them; infinite
                where nothing is tried again.
        """
        self.settle(now)
        lists = _Lists([], [], [], [])
        for candidate in able:
            if candidate.health.is_well:
                lists.kept.append(candidate)
            else:
                self._place(candidate, lists, risk)
        kept, ramping, out, marked = lists
        if not kept:
            return _whoever_is_left(lists)
        risked = self._risked(out, risk) if out else ()
        if not risked:
            return Sorted(kept, [*ramping, *out, *marked], in_panic=False)
        return Sorted(
            [candidate for candidate in able if candidate in kept or candidate in risked],
            [*ramping, *(one for one in out if one[0] not in risked), *marked],
            in_panic=True,
        )

    def _place(self, candidate: Candidate, lists: _Lists, risk: float) -> None:
        """Put a target that is not simply well where it belongs."""
        health, now = candidate.health, self.now
        stage = health.stage(now)
        if health.is_marked(now):
            lists.marked.append((candidate, health.problem))
        elif stage is Stage.OUT:
            lists.out.append((candidate, f"resting {health.why}"))
        elif stage is Stage.TRIAL and health.is_tried(now):
            lists.out.append((candidate, "on probation, and being tried"))
        elif stage is Stage.TRIAL and risk < 1.0 and not health.has_rested(now, 2.0 * self.rules.longest_pause_s):
            lists.out.append((candidate, "on probation, and no retry is left that would save a try"))
        elif stage is Stage.RETURNING and candidate.in_flight >= self._part(health.ramp(now)):
            lists.ramping.append((candidate, "returning, and carrying its part already"))
        else:
            lists.kept.append(candidate)

    def _risked(self, out: Sequence[tuple[Candidate, str]], risk: float) -> list[Candidate]:
        """Return who of those out is considered because most are, although somebody is well."""
        now, rules = self.now, self.rules
        unmarked = [member.health for member in self.members if not member.health.is_marked(now)]
        if sum(health.stage(now) is Stage.OUT for health in unmarked) <= rules.panic_share * len(unmarked):
            return []
        can_save = 1.0 <= risk < inf
        return [candidate for candidate, _ in out if self._is_worth_a_try(candidate.health, can_save=can_save)]

    def _is_worth_a_try(self, health: Health, *, can_save: bool) -> bool:
        """Whether a request may go to a target that is out, others being well: a slow one answers all the same."""
        if health.cause is Cause.SLOW:
            return True
        return can_save and not health.is_tried(self.now) and health.has_rested(self.now, self.rules.first_pause_s)

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
            self._send_out(candidate, Cause.SLOW, f"after answers that took {times:.0f} times as long as expected", now)

    def _is_slow_alone(self, decision: RoutingDecision, latency_ms: float, now: float) -> bool:
        """Whether another target would have answered sooner, and those that answered lately were not slow as well."""
        peers = [m for m in self.members if m is not decision.candidate and m.health.is_well]
        recent = [peer for peer in peers if now - peer.measured_at < _SAME_TIME_S]
        slow = sum(now - peer.health.slow_at < _SAME_TIME_S for peer in recent)
        if recent and 2 * slow >= len(recent):
            return False
        work, rows = decision.work, decision.context.batch_size
        return any(0.0 < peer.profile.predict_alone(work, rows) < latency_ms for peer in peers)


def _whoever_is_left(lists: _Lists) -> Sorted:
    _, ramping, out, marked = lists
    if ramping:
        return Sorted([candidate for candidate, _ in ramping], [*out, *marked], in_panic=False)
    return Sorted([candidate for candidate, _ in out or marked], [*out, *marked], in_panic=True)
