"""Whatever happens in whatever order: slots are exact, the budget holds, and nothing latches."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triton_router.errors import AllFullError
from triton_router.profiling.profile import TargetProfile
from triton_router.routing.engine import RoutingEngine
from triton_router.routing.policies import POLICIES, policy_named
from triton_router.routing.resilience import HealthRules, Resilience
from triton_router.routing.rules import RoutingRules
from triton_router.routing.types import Outcome, RoutingContext, RoutingDecision, Target, Verdict

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["decide", "again", "hedge", "give_up", "finish", "mark", "mirror", "wait"]),
        st.integers(0, 1000),
        st.sampled_from([*Verdict]),
        st.floats(0.0, 5.0),
    ),
    max_size=60,
)
RESILIENCE = st.builds(
    Resilience,
    idempotent=st.sampled_from([True, True, False]),
    attempts=st.integers(1, 4),
    retry_share=st.sampled_from([0.0, 0.2, 1.0]),
    retry_burst=st.sampled_from([0, 1, 10]),
    hedge_share=st.sampled_from([0.0, 0.5]),
    health=st.builds(
        HealthRules,
        consecutive_failures=st.integers(0, 3),
        failure_rate=st.sampled_from([0.1, 0.5, 1.0]),
        slow_factor=st.sampled_from([0.0, 2.0]),
        longest_pause_s=st.sampled_from([0.5, 30.0]),
        slow_start_s=st.sampled_from([0.0, 5.0]),
        panic_share=st.sampled_from([0.0, 0.5, 1.0]),
    ),
    caps=st.sampled_from([{}, {"t0": 1}, {"t0": 2, "t1": 1, "t2": 3}]),
)


@dataclass
class Story:
    """An engine and everything that was decided, as an observer keeps account."""

    engine: RoutingEngine
    now: float = 0.0
    requests: int = 0
    retries: int = 0
    hedges: int = 0
    under_way: list[list[RoutingDecision]] = field(default_factory=list[list[RoutingDecision]])

    def step(self, what: str, number: int, verdict: Verdict, seconds: float) -> None:
        if what == "decide":
            self._decide(RoutingContext(1, 10.0, pinned="t0" if number % 10 == 0 else ""))
        elif what == "wait":
            self.now += seconds * 10.0
        elif what == "mark":
            self.engine.mark(f"t{number % 4}", "broken" if number % 3 else "", self.now, seconds)
        elif self.under_way:
            self._go_on(what, self.under_way[number % len(self.under_way)], number, Outcome(verdict, seconds * 1e3))

    def _decide(self, context: RoutingContext) -> None:
        try:
            self.under_way.append([self.engine.decide(context, self.now)])
        except AllFullError:
            return
        self.requests += 1

    def _go_on(self, what: str, attempts: list[RoutingDecision], number: int, outcome: Outcome) -> None:
        decision = attempts[number % len(attempts)]
        if what in {"again", "hedge"}:
            another = self.engine.again(attempts, self.now, hedge=what == "hedge")
            if another is not None:
                assert another.target not in [earlier.target for earlier in attempts]
                attempts.append(another)
                self.retries += what == "again"
                self.hedges += what == "hedge"
        elif what == "give_up":
            self.engine.give_up(decision, self.now)
        elif what == "mirror":
            copy = self.engine.mirror(decision)
            if copy is not None:
                self.under_way.append([copy])
        else:
            self._finish(attempts, decision, outcome)

    def _finish(self, attempts: list[RoutingDecision], decision: RoutingDecision, outcome: Outcome) -> None:
        self.engine.finish(decision, outcome, self.now)
        attempts.remove(decision)
        if not attempts:
            self.under_way.remove(attempts)

    def finish_all(self) -> None:
        while self.under_way:
            self._finish(self.under_way[0], self.under_way[0][0], Outcome(Verdict.SUCCESS, 1.0))

    def in_flight(self) -> dict[str, int]:
        return {target.target.name: target.in_flight for target in self.engine.snapshot(self.now)}

    def held(self) -> dict[str, int]:
        names = [decision.target.name for attempts in self.under_way for decision in attempts]
        return {name: names.count(name) for name in self.in_flight()}


def story(resilience: Resilience, policy: str, targets: int) -> Story:
    return Story(
        RoutingEngine(
            [(Target(f"t{i}", "m", device=f"d{i}"), TargetProfile([(10, 1.0 + i)])) for i in range(targets)],
            policy_named(policy),
            rules=RoutingRules(explore=0.05, mirror=0.3, resilience=resilience),
            rng=random.Random(3).random,
        )
    )


@settings(deadline=None)
@given(resilience=RESILIENCE, policy=st.sampled_from([*POLICIES]), targets=st.integers(1, 4), steps=STEPS)
def test_slots_and_budget_are_exact(
    resilience: Resilience, policy: str, targets: int, steps: list[tuple[str, int, Verdict, float]]
) -> None:
    """In any order of deciding, retrying, hedging, giving up and finishing, each slot is held until it is finished."""
    told = story(resilience, policy, targets)
    for step in steps:
        told.step(*step)
        assert told.in_flight() == told.held()
        tried_again = told.retries + told.hedges
        burst = resilience.retry_burst * (1.0 + told.now / 10.0)
        assert tried_again <= resilience.retry_share * told.requests + burst + 1e-6
        assert told.hedges <= resilience.hedge_share * told.requests + 1e-6
    told.finish_all()
    assert not any(told.in_flight().values())
    for target in told.engine.snapshot(told.now):
        went, came = sum(target.ejections.values()), target.returns
        assert went - came == (target.stage in {"out", "trial"})


@given(resilience=RESILIENCE, targets=st.integers(1, 4), steps=STEPS)
@settings(max_examples=60, deadline=None)
def test_nothing_latches(resilience: Resilience, targets: int, steps: list[tuple[str, int, Verdict, float]]) -> None:
    """From any state, even with attempts that never end: once everything answers well, every target serves again."""
    told = story(resilience, "random", targets)
    for step in steps:
        told.step(*step)
    told.now += 200.0
    for _ in range(60 * targets):
        told.now += 0.5
        try:
            decision = told.engine.decide(RoutingContext(1, 10.0), told.now)
        except AllFullError:
            break  # slots that are never released are the caller's
        told.engine.finish(decision, Outcome(Verdict.SUCCESS, 1.0), told.now)
    else:
        full = {name for name, cap in resilience.caps.items() if told.held().get(name, 0) >= cap}
        left = {t.target.name: t.stage for t in told.engine.snapshot(told.now) if t.target.name not in full}
        assert set(left.values()) <= {"well"}


@pytest.mark.parametrize("targets", [2, 3, 5])
@given(dead=st.sets(st.integers(0, 4), max_size=3), marked=st.sets(st.integers(0, 4), max_size=4))
@settings(max_examples=20, deadline=None)
def test_a_client_hears_of_no_failure_while_another_target_can_serve(
    targets: int, dead: set[int], marked: set[int]
) -> None:
    """With three failing and any unloaded, as long as one serves, every request is served within its attempts.

    Each takes three failures to be sent out: with more than three, the ten retries at hand are spent before.
    """
    bad = {f"t{i}" for i in dead | marked}
    told = story(Resilience(attempts=targets, hedge_share=0.0), "random", targets)
    if len(bad & {f"t{i}" for i in range(targets)}) == targets:
        return
    for step in range(400):
        told.now = step * 0.05
        if step % 10 == 0:
            for i in marked:
                told.engine.mark(f"t{i}", "not loaded", told.now, 5.0)
        attempts = [told.engine.decide(RoutingContext(1, 10.0), told.now)]
        while attempts[-1].target.name in bad:
            told.engine.finish(attempts[-1], Outcome(Verdict.TARGET_ERROR, 1.0), told.now)
            another = told.engine.again(attempts, told.now)
            assert another is not None
            attempts.append(another)
        told.engine.finish(attempts[-1], Outcome(Verdict.SUCCESS, 1.0), told.now)
