"""Asks of a recorded trace what another policy would have done.

The engine is run over the trace with what the log says was chosen, so that it learns what the router had learned by
then and holds the same requests in flight. Before each decision it says how probable each target would be under the
policy in question, and what it expects of each; estimators.py makes estimates of that.

What cannot be had from a log: how the queues would have looked, and what would have been learned, had the other policy
been at work all along. The estimates say what it would have measured deciding one request at a time, in the states that
the log went through, with what the log taught.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from triton_router.errors import InvalidInputError
from triton_router.profiling.figures import UNKNOWN_FIGURE, Figure, Source
from triton_router.profiling.profile import TargetProfile
from triton_router.routing.engine import RoutingEngine
from triton_router.routing.rules import RoutingRules
from triton_router.routing.types import Outcome, Target, Verdict
from triton_router.simulation.estimators import (
    Estimate,
    Overlap,
    Point,
    doubly_robust,
    inverse_propensity,
    overlap,
    plain_mean,
    self_normalised,
)
from triton_router.simulation.presence import WITHOUT_CHOICE, Presence

if TYPE_CHECKING:
    from triton_router.routing.explanation import Explanation
    from triton_router.routing.policies import Policy
    from triton_router.routing.types import RoutingDecision
    from triton_router.telemetry.decision_format import Record, TargetEntry
    from triton_router.telemetry.decision_reading import DecisionTrace

_INSTANT_S = 1e-7
"""What times may be off by, written as decimal numbers: what ended when the next began ended before it."""


@dataclass(slots=True)
class Left:
    """Decisions that taught and were not asked about, by why."""

    no_choice: int = 0
    not_answered: int = 0
    no_propensity: int = 0
    unknown_latency: int = 0


@dataclass(slots=True)
class Replay:
    """What a policy would have done, estimated.

    Attributes:
        policy: The policy in question.
        decisions: Those that were asked about.
        left: Those that were not.
        agreement: Share of them for which it would have chosen the same target: its probability of the logged one, on
            average.
        shares: What it would have chosen, by target, on average.
        logged: Mean latency that was measured, in milliseconds.
        ips, snips, dr: Mean latency that it would have measured.
        overlap: How well the log covers it.
        complaints: Why the estimates should not be believed.
    """

    policy: str
    decisions: int
    left: Left
    agreement: float
    shares: dict[str, float]
    logged: Estimate
    ips: Estimate
    snips: Estimate | None
    dr: Estimate
    overlap: Overlap
    complaints: list[str] = field(default_factory=list[str])


class Asked(NamedTuple):
    """What one decision of the log says about the policy in question.

    Attributes:
        record: The decision.
        point: What the estimators see of it.
        shares: Probability of each target under that policy, where it is above 0.
    """

    record: Record
    point: Point
    shares: dict[str, float]


def replay(trace: DecisionTrace, policy: Policy, *, explore: float = 0.0) -> Replay:
    """Run the engine over a trace and estimate what ``policy`` would have measured. Arguments and errors as `ask`."""
    asked, left = ask(trace, policy, explore=explore)
    points = [one.point for one in asked]
    shares: Counter[str] = Counter()
    for one in asked:
        shares.update(one.shares)
    covered = overlap(points)
    return Replay(
        policy=policy.name,
        decisions=len(asked),
        left=left,
        agreement=sum(one.shares.get(one.record.target, 0.0) for one in asked) / len(asked),
        shares={name: share / len(asked) for name, share in sorted(shares.items(), key=lambda s: (-s[1], s[0]))},
        logged=plain_mean([point.value for point in points]),
        ips=inverse_propensity(points),
        snips=self_normalised(points),
        dr=doubly_robust(points),
        overlap=covered,
        complaints=covered.complaints(len(asked)),
    )


def ask(trace: DecisionTrace, policy: Policy, *, explore: float = 0.0) -> tuple[list[Asked], Left]:
    """Return what each decision of a trace says about a policy, and how many say nothing.

    Args:
        trace: The log.
        policy: The policy in question; it chooses for every request that had no wish of its own.
        explore: Share of requests that it would explore with.

    Raises:
        InvalidInputError: None says anything.
    """
    asked, left = _Rerun(trace, policy, explore).run()
    if not asked:
        raise InvalidInputError(
            f"the log says nothing about a policy: of {len(trace.records)} decisions {left.no_choice} left no choice, "
            f"{left.not_answered} were not answered, {left.no_propensity} have no propensity, and of "
            f"{left.unknown_latency} a target's latency was not known yet",
            hint="record a longer trace, with a choice between targets",
        )
    return asked, left


class _Rerun:
    """The engine on its way through a trace."""

    def __init__(self, trace: DecisionTrace, policy: Policy, explore: float) -> None:
        self._records = trace.records
        self._policy = policy
        self._entries = trace.targets
        self._presence = Presence(trace)
        self._rules = RoutingRules(explore=explore)
        # Every choice is the log's; none is drawn.
        self._engine = RoutingEngine(self._present(), policy, rng=Random(0).random, rules=self._rules)  # noqa: S311
        self._under_way: list[tuple[float, int, RoutingDecision, Record]] = []
        self._order = count()
        self.left = Left()

    def run(self) -> tuple[list[Asked], Left]:
        """Return what each decision that can be asked about says, and how many cannot."""
        asked: list[Asked] = []
        for record in self._records:
            self._finish_until(record.decided_at + _INSTANT_S)
            if self._presence.see(record):
                names = self._presence.names
                # Whoever comes back is known still.
                self._engine.reconfigure(self._policy, self._rules, self._present(), kept=names)
            answer = self._ask(record)
            if answer is not None:
                asked.append(answer)
            self._follow(record)
        return asked, self.left

    def _present(self) -> list[tuple[Target, TargetProfile]]:
        return [(_target(entry), _profile(entry)) for entry in self._entries if entry.name in self._presence.names]

    def _ask(self, record: Record) -> Asked | None:
        if record.mirrored or record.reason in WITHOUT_CHOICE:
            self.left.no_choice += 1
        elif record.verdict is not Verdict.SUCCESS:
            self.left.not_answered += 1
        elif not record.propensity:
            self.left.no_propensity += 1
        else:
            explanation = self._engine.explain(record.context(), record.decided_at)
            answer = _answer(record, explanation)
            if answer is not None:
                return answer
            self.left.unknown_latency += 1
        return None

    def _follow(self, record: Record) -> None:
        """Reserve what the log says was chosen."""
        context = record.context()
        context.pinned = record.target
        decision = self._engine.decide(context, record.decided_at)
        heappush(self._under_way, (record.monotonic, next(self._order), decision, record))

    def _finish_until(self, now: float) -> None:
        while self._under_way and self._under_way[0][0] <= now:
            at, _, decision, record = heappop(self._under_way)
            self._engine.finish(decision, Outcome(record.verdict, record.latency_ms), at)


def _answer(record: Record, explanation: Explanation) -> Asked | None:
    """Return what one decision says; None where a target that matters has no known latency."""
    wanted = {one.target.name: one.probability for one in explanation.targets if one.probability > 0.0}
    expected = {one.target.name: one.expected_latency_ms for one in explanation.targets}
    if not wanted or any(not expected[name] for name in (*wanted, record.target)):
        return None
    probability = wanted.get(record.target, 0.0)
    model = sum(share * expected[name] for name, share in wanted.items())
    point = Point(probability / record.propensity, record.latency_ms, model, expected[record.target])
    return Asked(record, point, wanted)


def _target(entry: TargetEntry) -> Target:
    return Target(
        entry.name,
        entry.name,
        backend=entry.backend,
        variant=entry.variant,
        price_per_hour=entry.price_per_hour,
        device=entry.device,
    )


def _profile(entry: TargetEntry) -> TargetProfile:
    known = entry.power_w > 0.0 and entry.power_source is not Source.UNKNOWN
    power = Figure(entry.power_w, entry.power_source) if known else UNKNOWN_FIGURE
    return TargetProfile(entry.measured, power_w=power)
