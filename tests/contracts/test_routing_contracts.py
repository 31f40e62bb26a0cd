"""One suite for every filter, scorer, picker and policy: what each plugin of the engine must hold to."""

from __future__ import annotations

import random
from inspect import getmembers, isfunction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triton_router.profiling.profile import TargetProfile
from triton_router.routing import filters, pickers, scorers
from triton_router.routing.engine import RoutingEngine
from triton_router.routing.health import Health
from triton_router.routing.policies import POLICIES
from triton_router.routing.protocols import Candidate, TargetState
from triton_router.routing.types import Outcome, RoutingContext, Target, Verdict


def plugins(module: object) -> list[pytest.param]:
    found = [f for name, f in getmembers(module, isfunction) if f.__module__ == module.__name__ and name[0] != "_"]
    return [pytest.param(f, id=f.__name__) for f in found]


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    made = []
    for index in range(draw(st.integers(1, 6))):
        seed = draw(st.lists(st.floats(0.01, 1e5), max_size=3))
        state = TargetState(Target(f"t{index}", "m"), TargetProfile((16.0, value) for value in seed), Health())
        state.in_flight = draw(st.integers(0, 1000))
        state.work_in_flight = 16.0 * state.in_flight
        made.append(
            Candidate(
                state,
                state.profile.predict_latency(16.0, state.work_in_flight),
                0.0,
                score=draw(st.floats(0.0, 1.0)),
            )
        )
    return made


CONTEXT = RoutingContext(4, 64.0)


@pytest.mark.parametrize("scorer", plugins(scorers))
@given(candidates=candidates(), seed=st.integers(0, 100))
def test_scorers(scorer: object, candidates: list[Candidate], seed: int) -> None:
    """Scores are finite and in [0, 1], one each; order does not matter; nothing is changed."""
    before = [(c.expected_latency_ms, c.state.in_flight, c.score) for c in candidates]
    scores = scorer(CONTEXT, candidates)
    assert len(scores) == len(candidates)
    assert all(0.0 <= score <= 1.0 for score in scores)
    assert [(c.expected_latency_ms, c.state.in_flight, c.score) for c in candidates] == before
    order = random.Random(seed).sample(range(len(candidates)), len(candidates))
    assert scorer(CONTEXT, [candidates[i] for i in order]) == [scores[i] for i in order]


@given(candidates=candidates())
def test_lower_latency_never_scores_worse(candidates: list[Candidate]) -> None:
    """Among candidates of known latency and equal cost to others, the faster one's score is at least as high."""
    for candidate in candidates:
        candidate.alone_ms, candidate.device_in_flight = 1.0, 3 if candidate.expected_latency_ms else 0
    scores = scorers.latency(CONTEXT, [c for c in candidates if c.expected_latency_ms])
    candidates = [c for c in candidates if c.expected_latency_ms]
    pairs = zip(candidates, scores, strict=True)
    known = sorted((c.expected_latency_ms, -score) for c, score in pairs if c.expected_latency_ms)
    assert [-s for _, s in known] == sorted((-s for _, s in known), reverse=True)


@pytest.mark.parametrize("picker", plugins(pickers))
@given(candidates=candidates(), seed=st.integers(0, 1000))
def test_pickers(picker: object, candidates: list[Candidate], seed: int) -> None:
    """A picker returns a valid index and changes nothing."""
    before = [(c.score, c.state.in_flight) for c in candidates]
    index = picker(candidates, random.Random(seed).random)
    assert 0 <= index < len(candidates)
    assert [(c.score, c.state.in_flight) for c in candidates] == before


@pytest.mark.parametrize("rejects", plugins(filters))
@given(candidates=candidates(), now=st.floats(0, 1e6))
def test_filters(rejects: object, candidates: list[Candidate], now: float) -> None:
    """A filter answers with a reason or nothing, and changes nothing."""
    for candidate in candidates:
        before = candidate.state.in_flight
        assert isinstance(rejects(CONTEXT, candidate.state, now), str)
        assert candidate.state.in_flight == before


@pytest.mark.parametrize("policy", POLICIES)
@given(data=st.data())
def test_policies_through_the_engine(policy: str, data: st.DataObject) -> None:
    """Whatever happens: kept plus rejected is the input, one target is chosen, and counts return to zero."""
    count = data.draw(st.integers(1, 5))
    engine = RoutingEngine(
        [(Target(f"t{i}", "m"), TargetProfile()) for i in range(count)],
        POLICIES[policy],
        explore=0.05,
        rng=random.Random(7).random,
    )
    open_decisions = []
    for step, finish in enumerate(data.draw(st.lists(st.booleans(), max_size=30))):
        if finish and open_decisions:
            verdict = data.draw(st.sampled_from(list(Verdict)))
            engine.finish(open_decisions.pop(), Outcome(verdict, data.draw(st.floats(0.0, 1e6))), float(step))
            continue
        decision = engine.decide(RoutingContext(1, data.draw(st.floats(0.0, 1e9))), float(step))
        considered = {score.target.name for score in decision.considered}
        rejected = {rejection.target.name for rejection in decision.rejections}
        assert decision.target.name in considered
        if decision.reason not in {"panic", "only"}:
            assert considered.isdisjoint(rejected)
            assert len(considered) + len(rejected) == count
        open_decisions.append(decision)
    assert sum(target.in_flight for target in engine.snapshot(0.0)) == len(open_decisions)
    for decision in open_decisions:
        engine.finish(decision, Outcome(Verdict.SUCCESS, 1.0), 99.0)
    assert all(target.in_flight == 0 for target in engine.snapshot(0.0))
