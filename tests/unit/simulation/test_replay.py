"""Replay: estimates of what another policy would have measured come true, and say so when they cannot."""

from __future__ import annotations

import json
import random
from math import sqrt
from statistics import fmean
from typing import TYPE_CHECKING

import pytest

from tests.unit.simulation.fleets import scenario
from triton_router.errors import InvalidInputError
from triton_router.routing.policies import policy_named
from triton_router.simulation.estimators import (
    Point,
    doubly_robust,
    inverse_propensity,
    overlap,
    plain_mean,
    self_normalised,
)
from triton_router.simulation.replay import ask, replay
from triton_router.simulation.run import Simulation
from triton_router.simulation.traffic import Luck, Request
from triton_router.telemetry.decision_format import Record, ScoreEntry, TargetEntry, decision_line
from triton_router.telemetry.decision_reading import DecisionTrace

if TYPE_CHECKING:
    from triton_router.routing.types import Outcome, RoutingDecision
    from triton_router.simulation.estimators import Estimate
    from triton_router.simulation.scenario import Scenario

AVERAGE = Luck(0.0, 1.0, 1.0)


def record_trace(
    fleet: Scenario, policy: str, *, seed: int = 1, requests: int = 500
) -> tuple[Simulation, DecisionTrace]:
    """Simulate a policy and return what its log would hold."""
    records: list[Record] = []

    def observe(decision: RoutingDecision, outcome: Outcome, now: float) -> None:
        line = decision_line("m", decision, outcome, monotonic=now, time=now)
        records.append(Record.model_validate(json.loads(line)))

    simulation = Simulation(fleet, seed, requests, observe)
    simulation.run(policy)
    entries = tuple(target.entry() for target in simulation.fleet.targets)
    ordered = sorted(records, key=lambda record: record.decided_at)
    return simulation, DecisionTrace("m", policy, entries, ordered)


def holds(estimate: Estimate | None, truth: float) -> bool:
    return estimate is not None and estimate.low <= truth <= estimate.high


def test_estimates_hold_the_truth_as_often_as_they_promise() -> None:
    """Of forty logs made by random choice, each estimator's 95% interval holds the true mean of `latency` in 36.

    The truth is what the simulated targets take on average where the replayed policy would have sent each request.
    """
    kept = {"ips": 0, "snips": 0, "dr": 0}
    widths: dict[str, list[float]] = {name: [] for name in kept}
    for seed in range(40):
        simulation, trace = record_trace(scenario(), "random", seed=seed, requests=400)
        asked, _ = ask(trace, policy_named("latency"))
        means = {target.target.name: target for target in simulation.fleet.targets}
        truth = fmean(
            sum(
                share * means[name].mean_ms(Request(0, 0.0, one.record.rows, one.record.work, 0.0, AVERAGE), 0.0)
                for name, share in one.shares.items()
            )
            for one in asked
        )
        found = replay(trace, policy_named("latency"))
        assert found.complaints == []
        for name in kept:
            estimate: Estimate = getattr(found, name)
            kept[name] += holds(estimate, truth)
            widths[name].append(estimate.high - estimate.low)
    print("kept of 40:", kept, "mean widths:", {name: round(fmean(each), 3) for name, each in widths.items()})
    assert min(kept.values()) >= 36
    assert fmean(widths["dr"]) < fmean(widths["snips"]) < fmean(widths["ips"])


def test_estimates_come_near_what_the_policy_measures_when_it_is_at_work() -> None:
    """Estimated from random choices, the mean latency of a policy is within 3% of that of its own simulated run."""
    for name in ("latency", "least-latency", "throughput"):
        simulation, trace = record_trace(scenario(), "random", requests=4000)
        served = [one.expected_ms for one in simulation.run(name).served if not one.mirrored]
        assert replay(trace, policy_named(name)).dr.mean == pytest.approx(fmean(served), rel=0.03)


def test_a_policy_replayed_on_its_own_log_measures_what_was_logged() -> None:
    """The engine re-run over its own log agrees with it: same probabilities, so all weights are 1."""
    _, trace = record_trace(scenario(rules={"explore": 0.0, "mirror": 0.0}), "latency", requests=800)
    found = replay(trace, policy_named("latency"))
    assert found.overlap.mean_weight == pytest.approx(1.0, abs=0.01)
    assert found.agreement > 0.95
    assert found.dr.mean == pytest.approx(found.logged.mean, rel=0.01)


def test_what_was_never_tried_is_said() -> None:
    """A log that always did something else is called poor, and why."""
    _, trace = record_trace(scenario(rules={"explore": 0.0, "mirror": 0.0}), "latency", requests=400)
    for record in trace.records:
        assert record.propensity > 0.0
    dear = DecisionTrace(
        "m",
        "latency",
        tuple(entry.model_copy(update={"price_per_hour": 9.0 * (entry.name == "small")}) for entry in trace.targets),
        trace.records,
    )
    complaints = replay(dear, policy_named("cost")).complaints
    assert any("tried too rarely" in complaint for complaint in complaints)


def test_mirrored_and_failed_requests_teach_and_are_not_asked_about() -> None:
    """Copies, failures and decisions without a propensity are counted apart; the rest is asked about."""
    episodes = [{"target": "small", "from_s": 0.0, "to_s": 9.0, "fail": 0.2}]
    _, trace = record_trace(scenario(rules={"mirror": 0.2}, episodes=episodes), "latency")
    trace.records[:10] = [record.model_copy(update={"propensity": 0.0}) for record in trace.records[:10]]
    found = replay(trace, policy_named("latency"))
    left = found.left
    assert left.no_choice == sum(record.mirrored for record in trace.records) > 0
    assert left.not_answered > 0
    assert 0 < left.no_propensity <= 10
    others = left.no_choice + left.not_answered + left.no_propensity + left.unknown_latency
    assert found.decisions + others == len(trace.records)


def test_attempts_after_the_first_teach_and_are_not_asked_about() -> None:
    """Of the targets a policy would choose among, some were taken away from a retry: it says nothing of the policy."""
    _, trace = record_trace(scenario(), "latency")
    before = replay(trace, policy_named("latency"))
    for index in (3, 30):
        trace.records[index] = trace.records[index].model_copy(update={"reason": "retry", "attempts": 2})
    after = replay(trace, policy_named("latency"))
    assert after.left.no_choice == before.left.no_choice + 2
    assert after.decisions < before.decisions


def test_a_log_that_says_nothing_is_refused() -> None:
    """Without a single propensity there is no estimate, and the error says why."""
    _, trace = record_trace(scenario(), "latency", requests=20)
    trace.records[:] = [record.model_copy(update={"propensity": 0.0}) for record in trace.records]
    with pytest.raises(InvalidInputError, match="have no propensity"):
        replay(trace, policy_named("latency"))


def test_estimators_by_hand() -> None:
    """Two points, computed by hand."""
    points = [Point(2.0, 3.0, 5.0, 4.0), Point(0.0, 7.0, 1.0, 6.0)]
    assert inverse_propensity(points).mean == pytest.approx(3.0)
    assert self_normalised(points) == pytest.approx((3.0, 3.0, 3.0))
    assert doubly_robust(points).mean == pytest.approx(((5.0 + 2.0 * (3.0 - 4.0)) + 1.0) / 2.0)
    assert overlap(points)[:1] == (1.0,)
    assert overlap(points).effective == pytest.approx(1.0)
    assert plain_mean([1.0, 3.0]) == pytest.approx((2.0, 2.0 - 1.96, 2.0 + 1.96), abs=0.001)


def test_no_weight_at_all_is_no_self_normalised_estimate() -> None:
    """Where nothing that the policy wants was logged, SNIPS has no value and the overlap says so."""
    points = [Point(0.0, 1.0, 1.0, 1.0)] * 200
    assert self_normalised(points) is None
    assert len(overlap(points).complaints(200)) >= 2


def test_doubly_robust_forgives_a_wrong_model_and_wrong_propensities_but_not_both() -> None:
    """With true propensities any model gives the truth; with a true model any propensities do."""
    rng = random.Random(8)
    true = (1.0, 3.0)
    wanted = (0.8, 0.2)
    truth = sum(share * value for share, value in zip(wanted, true, strict=True))

    def points(model: tuple[float, float], claimed: float) -> list[Point]:
        found: list[Point] = []
        for _ in range(20_000):
            arm = int(rng.random() < 0.5)
            expected = sum(share * value for share, value in zip(wanted, model, strict=True))
            found.append(Point(wanted[arm] / claimed, true[arm] + rng.gauss(0.0, 0.3), expected, model[arm]))
        return found

    error = 4.0 / sqrt(20_000)
    assert doubly_robust(points((9.0, 9.0), 0.5)).mean == pytest.approx(truth, abs=9 * error)
    assert doubly_robust(points(true, 0.25)).mean == pytest.approx(truth, abs=error)
    assert abs(doubly_robust(points((9.0, 9.0), 0.25)).mean - truth) > 1.0


def with_newcomer(trace: DecisionTrace, share: float) -> DecisionTrace:
    """Return a log whose last decisions were made among one more target, which was never chosen."""
    added = ScoreEntry(target="added", score=0.0, expected_ms=0.0)
    since = int(len(trace.records) * (1.0 - share))
    records = [
        record if at < since else record.model_copy(update={"considered": (*record.considered, added)})
        for at, record in enumerate(trace.records)
    ]
    first = frozenset(entry.name for entry in trace.targets)
    return DecisionTrace("m", trace.policy, (*trace.targets, TargetEntry(name="added")), records, at_first=first)


@pytest.mark.parametrize("policy", ["latency", "random", "cost"])
def test_a_target_that_came_late_does_not_spoil_what_was_before(policy: str) -> None:
    """Of whom nothing is known nothing is estimated; decisions from before it was there say what they said."""
    _, trace = record_trace(scenario(rules={"mirror": 0.0}), "random", requests=400)
    before, after = replay(trace, policy_named(policy)), replay(with_newcomer(trace, 0.1), policy_named(policy))
    assert before.decisions > 350
    assert after.decisions >= 0.85 * before.decisions
    assert after.dr.mean == pytest.approx(before.dr.mean, rel=0.1)


def test_a_target_that_left_gets_nothing_any_more() -> None:
    """No policy would have chosen a target that was not there, until it comes back with what was known of it."""
    _, trace = record_trace(scenario(rules={"mirror": 0.0}), "random", requests=300)
    third = ScoreEntry(target="third", score=0.0, expected_ms=9.0)
    records: list[Record] = []
    for at, record in enumerate(trace.records):
        is_away = 100 <= at < 200
        if is_away and record.target == "small":
            continue
        considered = tuple(one for one in record.considered if not is_away or one.target != "small")
        records.append(record.model_copy(update={"considered": (*considered, third)}))
    targets = (*trace.targets, TargetEntry(name="third", measured=((16.0, 9.0),)))
    asked, _ = ask(DecisionTrace("m", "random", targets, records), policy_named("random"))
    away = [one for one in asked if all(score.target != "small" for score in one.record.considered)]
    assert len(away) > 20
    assert all(set(one.shares) == {"large", "third"} for one in away)
    assert set(asked[-1].shares) == {"small", "large", "third"}
