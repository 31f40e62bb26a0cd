"""The engine: reserves and releases exactly once, learns, and says why."""

from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from triton_router.profiling.profile import TargetProfile
from triton_router.routing.engine import RoutingEngine
from triton_router.routing.policies import policy_named
from triton_router.routing.rules import RoutingRules
from triton_router.routing.types import (
    Backend,
    Outcome,
    RoutingContext,
    RoutingDecision,
    Target,
    Verdict,
    backend_named,
)

SUCCESS = Outcome(Verdict.SUCCESS, 2.0)
FAILURE = Outcome(Verdict.TARGET_ERROR, 0.1)


def make(
    *speeds: float | None, policy: str = "latency", explore: float = 0.0, backend: Backend = Backend.CPU
) -> RoutingEngine:
    """Targets t0, t1, ... with the given latency in ms at any work; None for an unproven one."""
    return RoutingEngine(
        [
            (
                Target(f"t{index}", f"m{index}", backend=backend),
                TargetProfile([] if speed is None else [(1, speed), (100, speed)]),
            )
            for index, speed in enumerate(speeds)
        ],
        policy_named(policy),
        rules=RoutingRules(explore=explore),
        rng=random.Random(5).random,
    )


def in_flight(engine: RoutingEngine) -> list[int]:
    return [target.in_flight for target in engine.snapshot(0.0)]


def test_the_fastest_target_is_chosen_and_the_others_fall_back_in_order() -> None:
    """Latency policy: lowest prediction first; fallbacks are the rest, best first."""
    decision = make(9.0, 1.0, 4.0).decide(RoutingContext(1, 10), 0.0)
    assert decision.target.name == "t1"
    assert [target.name for target in decision.fallbacks] == ["t2", "t0"]
    assert decision.reason == "policy"
    assert decision.expected_latency_ms == pytest.approx(1.0, rel=0.05)


def test_each_decision_is_released_once_whatever_its_outcome() -> None:
    """In-flight counts rise with decisions and are back at zero after their outcomes, of every kind."""
    engine = make(1.0, 1.0)
    decisions = [engine.decide(RoutingContext(1, 10), 0.0) for _ in range(40)]
    assert sum(in_flight(engine)) == 40
    for number, decision in enumerate(decisions):
        engine.finish(decision, Outcome(list(Verdict)[number % len(Verdict)], 1.0), 0.0)
    assert in_flight(engine) == [0, 0]
    snapshot = engine.snapshot(0.0)
    for count in ("succeeded", "failed", "refused", "cancelled"):
        assert sum(getattr(target, count) for target in snapshot) == 10


def test_counts_are_exact_under_threads() -> None:
    """Eight threads deciding and finishing at once lose no count."""
    engine = make(1.0, 1.1, 1.2)

    def work(_: int) -> None:
        for _ in range(500):
            engine.finish(engine.decide(RoutingContext(1, 10), 0.0), SUCCESS, 0.0)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert in_flight(engine) == [0, 0, 0]
    assert sum(target.succeeded for target in engine.snapshot(0.0)) == 4000


def test_load_diverts_traffic() -> None:
    """With load counted in the prediction, a burst does not all go to the one fastest target."""
    engine = make(1.0, 1.5)
    for now in range(200):  # load doubles each one's latency per request ahead
        decision = engine.decide(RoutingContext(1, 10), now)
        latency = (1.0 if decision.target.name == "t0" else 1.5) * (1 + decision.load.here)
        engine.finish(decision, Outcome(Verdict.SUCCESS, latency), now)
    for now in range(200, 260):  # teach what load costs
        burst = [engine.decide(RoutingContext(1, 10), now) for _ in range(6)]
        for decision in burst:
            latency = (1.0 if decision.target.name == "t0" else 1.5) * (1 + decision.load.here)
            engine.finish(decision, Outcome(Verdict.SUCCESS, latency), now)
    burst = Counter(engine.decide(RoutingContext(1, 10), 300.0).target.name for _ in range(10))
    assert burst["t0"] > 0
    assert burst["t1"] > 0


def test_a_loaded_device_is_not_shared_out_to_its_slower_targets() -> None:
    """On one saturated processor a variant that needs three times the work is left alone, however long the queue."""
    engine = make(10.0, 30.0)
    need = {"t0": 10.0, "t1": 30.0}
    burst: list[RoutingDecision] = []
    for now in range(0, 3000, 10):  # thirty in flight, served one after another by the one processor
        burst = [engine.decide(RoutingContext(1, 10), now) for _ in range(30)]
        busy = 0.0
        for decision in burst:
            busy += need[decision.target.name]
            engine.finish(decision, Outcome(Verdict.SUCCESS, busy), now + 1)
    last = Counter(decision.target.name for decision in burst)
    assert last["t0"] >= 27


def test_steady_load_does_not_hide_what_a_request_costs() -> None:
    """After an hour without one idle moment, the variant that needs three times the work is still left alone."""
    engine = make(10.0, 30.0)
    rng = random.Random(11)
    waiting = [engine.decide(RoutingContext(1, 10), 0.0) for _ in range(8)]
    chosen = Counter[str]()
    for step in range(3000):
        decision = waiting.pop(0)
        latency = (80.0 if decision.target.name == "t0" else 110.0) * rng.lognormvariate(0, 0.3)
        engine.finish(decision, Outcome(Verdict.SUCCESS, latency), step * 0.03)
        waiting.append(engine.decide(RoutingContext(1, 10), step * 0.03))
        chosen[waiting[-1].target.name] += 1
    assert chosen["t1"] < 60


def test_another_device_takes_what_a_loaded_one_cannot() -> None:
    """The same slower target on a device of its own does get its share of a burst."""
    engine = RoutingEngine(
        [
            (Target("gpu", "a", backend=Backend.GPU), TargetProfile([(10, 10.0)])),
            (Target("cpu", "b", backend=Backend.CPU), TargetProfile([(10, 30.0)])),
        ],
        policy_named("latency"),
        rules=RoutingRules(explore=0.0),
        rng=random.Random(10).random,
    )
    burst: list[RoutingDecision] = []
    for now in range(0, 1000, 10):
        burst = [engine.decide(RoutingContext(1, 10), now) for _ in range(12)]
        busy = {"gpu": 0.0, "cpu": 0.0}
        for decision in burst:
            busy[decision.target.name] += 10.0 if decision.target.name == "gpu" else 30.0
            engine.finish(decision, Outcome(Verdict.SUCCESS, busy[decision.target.name]), now + 1)
    last = Counter(decision.target.name for decision in burst)
    assert 7 <= last["gpu"] <= 11


def test_ties_go_to_the_target_with_fewest_requests() -> None:
    """Targets of equal prediction share a burst evenly."""
    engine = make(2.0, 2.0, 2.0, 2.0)
    chosen = Counter(engine.decide(RoutingContext(1, 10), 0.0).target.name for _ in range(40))
    assert set(chosen.values()) == {10}


def test_an_unproven_target_is_tried_by_one_request_at_a_time() -> None:
    """A target of unknown speed gets the first request; while that runs, the others go where speed is known."""
    engine = make(1.0, None)
    first = engine.decide(RoutingContext(1, 10), 0.0)
    assert first.target.name == "t1"
    rest = [engine.decide(RoutingContext(1, 10), 0.0) for _ in range(10)]
    assert {decision.target.name for decision in rest} == {"t0"}
    assert rest[0].rejections[0].reason == "unproven, and being tried"
    engine.finish(first, Outcome(Verdict.SUCCESS, 50.0), 0.0)
    assert engine.decide(RoutingContext(1, 10), 0.0).target.name == "t0"


def test_a_target_that_fails_fast_does_not_attract_traffic() -> None:
    """Three failures in a row send a target out; the pause ends; one success clears it."""
    engine = make(1.0, 5.0)
    for _ in range(3):
        engine.finish(engine.decide(RoutingContext(1, 10), 0.0), FAILURE, 0.0)
    resting = engine.decide(RoutingContext(1, 10), 0.5)
    assert resting.target.name == "t1"
    assert resting.rejections[0].reason == "resting after consecutive failures"
    assert engine.snapshot(0.5)[0].resting
    back = engine.decide(RoutingContext(1, 10), 1.5)
    assert back.target.name == "t0"
    engine.finish(back, SUCCESS, 1.5)
    assert not engine.snapshot(1.5)[0].resting


def test_a_target_that_only_fails_is_seen_to_fail_when_its_pause_is_over() -> None:
    """Failures in a row are counted through pauses; one answer ends the count."""
    engine = make(1.0, 5.0)
    for now in (0.0, 0.0, 0.0, 1.5):
        engine.finish(engine.decide(RoutingContext(1, 10), now), FAILURE, now)
    after_pause = engine.snapshot(4.0)[0]
    assert (after_pause.resting, after_pause.consecutive_failures) == (False, 4)
    engine.finish(engine.decide(RoutingContext(1, 10), 4.0), SUCCESS, 4.0)
    assert engine.snapshot(4.0)[0].consecutive_failures == 0


def test_pauses_grow_and_are_bounded() -> None:
    """A target that never recovers is tried again ever less often, but at least every thirty seconds."""
    engine = make(1.0, 5.0)
    now, tries = 0.0, []
    while now < 300:
        decision = engine.decide(RoutingContext(1, 10), now)
        failed = decision.target.name == "t0"
        if failed:
            tries.append(now)
        engine.finish(decision, FAILURE if failed else Outcome(Verdict.SUCCESS, 5.0), now)
        now += 0.5
    gaps = [later - earlier for earlier, later in pairwise(tries[3:])]
    assert 5 < len(tries) < 25
    assert max(gaps) <= 31


def test_after_a_pause_one_request_at_a_time_finds_out() -> None:
    """A target on probation gets a single request; the rest stay away until it has answered."""
    engine = make(1.0, 5.0)
    for _ in range(3):
        engine.finish(engine.decide(RoutingContext(1, 10), 0.0), FAILURE, 0.0)
    probe = engine.decide(RoutingContext(1, 10), 1.5)
    assert probe.target.name == "t0"
    others = [engine.decide(RoutingContext(1, 10), 1.5) for _ in range(5)]
    assert {decision.target.name for decision in others} == {"t1"}
    assert others[0].rejections[0].reason == "on probation, and being tried"
    engine.finish(probe, SUCCESS, 1.6)
    assert engine.decide(RoutingContext(1, 10), 1.6).target.name == "t0"


def test_an_unproven_target_that_refuses_everything_is_left_alone() -> None:
    """A target that never answered and calls every request wrong does not keep attracting traffic."""
    engine = make(1.0, None)
    chosen = Counter[str]()
    for now in range(400):
        decision = engine.decide(RoutingContext(1, 10), now / 10)
        chosen[decision.target.name] += 1
        verdict = Verdict.CLIENT_ERROR if decision.target.name == "t1" else Verdict.SUCCESS
        engine.finish(decision, Outcome(verdict, 1.0), now / 10)
    assert chosen["t1"] < 20


def test_client_errors_and_cancellations_are_not_held_against_a_target() -> None:
    """However many wrong requests and leaving clients, the target stays in and its profile unchanged."""
    engine = make(1.0, 5.0)
    for verdict in (Verdict.CLIENT_ERROR, Verdict.CANCELLED) * 20:
        engine.finish(engine.decide(RoutingContext(1, 10), 0.0), Outcome(verdict, 0.01), 0.0)
    decision = engine.decide(RoutingContext(1, 10), 0.0)
    assert decision.target.name == "t0"
    assert decision.expected_latency_ms == pytest.approx(1.0, rel=0.05)


def test_when_every_target_rests_all_are_considered() -> None:
    """With all targets out the router tries one all the same, and says that it is panicking."""
    engine = make(1.0)
    engine = make(1.0, 1.0)
    for _ in range(6):
        engine.finish(engine.decide(RoutingContext(1, 10), 0.0), FAILURE, 0.0)
    decision = engine.decide(RoutingContext(1, 10), 0.1)
    assert decision.reason == "panic"
    assert len(decision.rejections) == 2


def test_a_sequence_stays_where_it_is_pinned() -> None:
    """A pinned request goes to its target even if another is faster; the slot is counted there."""
    engine = make(1.0, 9.0)
    decision = engine.decide(RoutingContext(1, 10, pinned="t1"), 0.0)
    assert (decision.target.name, decision.reason) == ("t1", "sequence")
    assert in_flight(engine) == [0, 1]


@pytest.mark.parametrize(("slow", "least", "most"), [(1.25, 100, 230), (10.0, 5, 45)])
def test_exploring_takes_its_share_and_no_more(slow: float, least: int, most: int) -> None:
    """At 5%, a target a little slower is tried about as often; one ten times as slow a tenth as often."""
    engine = make(1.0, slow, explore=0.05)
    reasons = Counter[str]()
    for now in range(4000):
        decision = engine.decide(RoutingContext(1, 10), now)
        reasons[decision.reason] += 1
        engine.finish(decision, Outcome(Verdict.SUCCESS, 1.0 if decision.target.name == "t0" else slow), now)
    assert least < reasons["explore"] < most


def test_only_learning_policies_and_free_requests_explore() -> None:
    """Policies that do not learn never explore, nor does a request that may not, such as a sequence's first."""
    fixed = make(1.0, 5.0, policy="least-request", explore=0.1)
    assert all(fixed.decide(RoutingContext(1, 10), 0.0).reason == "policy" for _ in range(200))
    engine = make(1.0, 1.2, explore=0.1)
    bound = RoutingContext(1, 10, may_explore=False)
    assert all(engine.decide(bound, 0.0).reason == "policy" for _ in range(200))


def test_a_single_target_needs_no_policy() -> None:
    """With nothing to choose, the decision says so, even while the target rests."""
    engine = make(1.0)
    for _ in range(5):
        decision: RoutingDecision = engine.decide(RoutingContext(1, 10), 0.0)
        assert decision.reason == "only"
        engine.finish(decision, FAILURE, 0.0)


def test_random_policy_is_uniform() -> None:
    """Over 6,000 requests each of three targets gets a third, within 4 standard deviations."""
    engine = make(1.0, 5.0, 50.0, policy="random")
    chosen = Counter(engine.decide(RoutingContext(1, 10), 0.0).target.name for _ in range(6000))
    assert all(abs(count - 2000) < 4 * (6000 * 2 / 9) ** 0.5 for count in chosen.values())


def test_load_at_other_targets_counts_on_the_same_backend_only() -> None:
    """Time in flight elsewhere is device load if it shares the backend."""
    for backend, expected in ((Backend.CPU, 9.0), (Backend.GPU, 0.0)):
        engine = RoutingEngine(
            [
                (Target("a", "a", backend=Backend.CPU), TargetProfile([(10, 1.0)])),
                (Target("b", "b", backend=backend), TargetProfile([(10, 9.0)])),
            ],
            policy_named("latency"),
            rules=RoutingRules(explore=0.0),
            rng=random.Random(6).random,
        )
        engine.decide(RoutingContext(1, 10, pinned="b"), 0.0)
        assert engine.decide(RoutingContext(1, 10), 0.0).load.elsewhere_ms == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "backend"),
    [("cpu", "cpu"), ("cuda", "gpu"), ("ane", "neural_engine"), ("mps", "metal_mps"), ("metal_mps", "metal_mps")],
)
def test_backend_names_and_aliases(name: str, backend: str) -> None:
    """Every documented name and alias is known."""
    assert backend_named(name) == Backend(backend)


def test_an_unknown_backend_is_an_error_that_lists_the_known() -> None:
    """No silent fallback to the CPU."""
    with pytest.raises(ValueError, match="unknown backend 'npu'; use one of cpu, gpu"):
        backend_named("npu")
