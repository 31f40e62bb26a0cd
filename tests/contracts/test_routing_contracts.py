"""One suite for every filter, scorer, picker and policy: what each plugin of the engine must hold to."""

from __future__ import annotations

import random
from collections import Counter
from inspect import getmembers, isfunction
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from triton_router.profiling.figures import UNKNOWN_FIGURE, Figure, Source
from triton_router.profiling.profile import TargetProfile
from triton_router.routing import filters, scorers
from triton_router.routing.engine import RoutingEngine
from triton_router.routing.health import Health
from triton_router.routing.pickers import BestThenLeastRequest, PowerOfTwo, Proportional
from triton_router.routing.policies import POLICIES, policy_named
from triton_router.routing.protocols import Candidate, Device
from triton_router.routing.rules import RoutingRules
from triton_router.routing.selection import predict
from triton_router.routing.types import Backend, Outcome, RoutingContext, Target, Verdict

if TYPE_CHECKING:
    from triton_router.routing.protocols import Filter, Picker, Scorer

FILTERS = [
    *(pytest.param(f, id=name) for name, f in getmembers(filters, isfunction) if f.__module__ == filters.__name__),
    pytest.param(filters.Late(0.9), id="Late"),
    pytest.param(filters.Overloaded(0.5), id="Overloaded"),
    pytest.param(filters.Slow(5.0), id="Slow"),
    pytest.param(filters.Sluggish(50.0), id="Sluggish"),
]
FILTERS = [plugin for plugin in FILTERS if plugin.id[0] != "_"]
SCORERS = [
    pytest.param(f, id=name)
    for name, f in getmembers(scorers, isfunction)
    if f.__module__ == scorers.__name__ and name[0] != "_"
]
PICKERS = [pytest.param(p(), id=p.__name__) for p in (BestThenLeastRequest, PowerOfTwo, Proportional)]


@st.composite
def candidates(draw: st.DrawFn, *, rated: bool = False) -> list[Candidate]:
    """Any state in which a plugin may meet targets: unproven or learned, idle or loaded, priced or free."""
    devices = {backend: Device(utilization=draw(st.floats(0.0, 1.0))) for backend in Backend}
    made = []
    for index in range(draw(st.integers(1, 6))):
        backend = draw(st.sampled_from(list(Backend)))
        profile = TargetProfile(
            [(16.0, value) for value in draw(st.lists(st.floats(0.01, 1e5), max_size=3))],
            power_w=draw(
                st.sampled_from([UNKNOWN_FIGURE, Figure(20.0, Source.ESTIMATED), Figure(90.0, Source.MEASURED)])
            ),
            memory_mb=draw(st.sampled_from([UNKNOWN_FIGURE, Figure(80.0, Source.ESTIMATED)])),
        )
        target = Target(f"t{index}", "m", backend=backend, price_per_hour=draw(st.sampled_from([0.0, 0.5, 3.0])))
        candidate = Candidate(target, profile, Health(), devices[backend])
        candidate.in_flight = draw(st.integers(0, 1000))
        candidate.ms_in_flight = 3.0 * candidate.in_flight
        candidate.count_in()
        candidate.is_preferred = draw(st.booleans())
        candidate.complexity_ms = draw(st.sampled_from([0.0, 1.0, 7.5]))
        for _ in range(draw(st.integers(0, 4))):
            candidate.health.failed(1.0)
        candidate.score = draw(st.floats(0.0, 1.0)) if rated else 0.0
        made.append(candidate)
    predict(made, 64.0, 4)
    return made


CONTEXTS = st.builds(
    RoutingContext,
    batch_size=st.just(4),
    work=st.just(64.0),
    max_latency_ms=st.sampled_from([0.0, 0.5, 100.0]),
    min_throughput=st.sampled_from([0.0, 10.0, 1e9]),
    max_memory_mb=st.sampled_from([0.0, 50.0]),
    max_power_w=st.sampled_from([0.0, 30.0]),
    allowed_backends=st.sampled_from([None, frozenset({Backend.CPU}), frozenset[Backend]()]),
)


def seen(candidates: list[Candidate]) -> list[object]:
    """Return everything that a plugin could change."""
    return [
        (c.expected_latency_ms, c.alone_ms, c.in_flight, c.score, c.device.in_flight, c.health.consecutive_failures)
        for c in candidates
    ]


@pytest.mark.parametrize("scorer", SCORERS)
@given(candidates=candidates(), context=CONTEXTS, seed=st.integers(0, 100))
def test_scorers(scorer: Scorer, candidates: list[Candidate], context: RoutingContext, seed: int) -> None:
    """Scores are finite and in [0, 1], one each; order does not matter; nothing is changed."""
    before = seen(candidates)
    scores = scorer(context, candidates)
    assert len(scores) == len(candidates)
    assert all(0.0 <= score <= 1.0 for score in scores)
    assert seen(candidates) == before
    order = random.Random(seed).sample(range(len(candidates)), len(candidates))
    assert scorer(context, [candidates[i] for i in order]) == [scores[i] for i in order]


@pytest.mark.parametrize(
    "scorer", [scorers.latency, scorers.least_latency, scorers.throughput, scorers.cost, scorers.power]
)
@given(candidates=candidates(), faster=st.floats(0.01, 1.0))
def test_lower_latency_never_scores_worse(scorer: Scorer, candidates: list[Candidate], faster: float) -> None:
    """A target that becomes faster, all else unchanged, never loses against any other by it."""
    known = [c for c in candidates if c.expected_latency_ms]
    assume(known)
    before = scorer(RoutingContext(4, 64.0), known)
    known[0].expected_latency_ms *= faster
    known[0].alone_ms *= faster
    after = scorer(RoutingContext(4, 64.0), known)
    for old, new in zip(before[1:], after[1:], strict=True):
        assert after[0] - new >= before[0] - old - 1e-9


@pytest.mark.parametrize("picker", PICKERS)
@given(candidates=candidates(rated=True), seed=st.integers(0, 1000))
def test_pickers(picker: Picker, candidates: list[Candidate], seed: int) -> None:
    """A picker returns a valid index of positive probability and changes nothing; probabilities sum to 1."""
    before = seen(candidates)
    index = picker.pick(candidates, random.Random(seed).random)
    chances = picker.probabilities(candidates)
    assert sum(chances) == pytest.approx(1.0)
    assert chances[index] > 0.0
    assert seen(candidates) == before


@pytest.mark.parametrize("picker", PICKERS)
def test_pickers_keep_to_their_probabilities(picker: Picker) -> None:
    """Over 20,000 picks each candidate's share is its probability, within 4 standard deviations."""
    made = [Candidate(Target(f"t{i}", "m"), TargetProfile(), Health(), Device()) for i in range(5)]
    for candidate, score, load in zip(made, (0.9, 1.0, 0.97, 0.2, 0.98), (1, 2, 1, 0, 1), strict=True):
        candidate.score, candidate.in_flight = score, load
    rng = random.Random(3).random
    picked = Counter(picker.pick(made, rng) for _ in range(20_000))
    for index, chance in enumerate(picker.probabilities(made)):
        assert abs(picked[index] - 20_000 * chance) <= 4 * (20_000 * chance * (1 - chance)) ** 0.5


@pytest.mark.parametrize("rejects", FILTERS)
@given(candidates=candidates(), context=CONTEXTS, now=st.floats(0, 1e6), seed=st.integers(0, 100))
def test_filters(rejects: Filter, candidates: list[Candidate], context: RoutingContext, now: float, seed: int) -> None:
    """A filter rejects candidates it was given, each once and with a reason, in whatever order, and changes nothing."""
    before = seen(candidates)
    rejected = rejects(context, candidates, now)
    names = [candidate.target.name for candidate, _ in rejected]
    assert len(names) == len(set(names))
    assert set(names) <= {candidate.target.name for candidate in candidates}
    assert all(reason for _, reason in rejected)
    assert seen(candidates) == before
    shuffled = random.Random(seed).sample(candidates, len(candidates))
    ties = len({c.expected_latency_ms for c in candidates}) < len(candidates)
    if not ties:  # among equally fast ones, "the fastest" is the first
        assert {c.target.name for c, _ in rejects(context, shuffled, now)} == set(names)


@pytest.mark.parametrize("policy", POLICIES)
@given(data=st.data())
def test_policies_through_the_engine(policy: str, data: st.DataObject) -> None:
    """Whatever happens: kept plus rejected is the input, one target is chosen, and counts return to zero."""
    count = data.draw(st.integers(1, 5))
    engine = RoutingEngine(
        [(Target(f"t{i}", "m"), TargetProfile()) for i in range(count)],
        policy_named(policy),
        rules=RoutingRules(explore=0.05),
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
