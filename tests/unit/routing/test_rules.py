"""Rules and constraints: weights, preferred and excluded backends, bounds, utilization."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from tests.unit.routing.fleet import ANE, CPU, GPU, MPS, REQUEST, Spec, chosen, engine, served
from triton_router.errors import RequestError
from triton_router.profiling.figures import Figure, Source
from triton_router.routing.rules import RoutingRules
from triton_router.routing.types import Outcome, RoutingDecision, Verdict

_CANCELLED = Outcome(Verdict.CANCELLED, 0.0)
FLEET = (
    Spec("cpu", 10.0, CPU, memory_mb=Figure(100.0, Source.ESTIMATED), power_w=Figure(15.0, Source.ESTIMATED)),
    Spec("gpu", 9.0, GPU, memory_mb=Figure(900.0, Source.MEASURED), power_w=Figure(200.0, Source.MEASURED)),
    Spec("ane", 11.0, ANE),
)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [({}, "gpu"), ({ANE: 2.0, GPU: 1.2, CPU: 0.8}, "ane"), ({GPU: 0.5}, "cpu"), ({GPU: 0.5, CPU: 0.5}, "ane")],
)
def test_backend_weights_multiply_scores(weights: dict[str, float], expected: str) -> None:
    """A backend that weighs more is chosen although a little slower; only ratios count."""
    assert chosen(engine(*FLEET, rules=RoutingRules(backend_weights=weights))) == expected
    tenfold = {backend: 10 * weight for backend, weight in weights.items()}
    if set(weights) == {CPU, GPU, ANE}:
        assert chosen(engine(*FLEET, rules=RoutingRules(backend_weights=tenfold))) == expected


def test_scores_stay_in_bounds_whatever_the_weights() -> None:
    """A weight of 100 makes no score larger than 1."""
    decision = engine(*FLEET, rules=RoutingRules(backend_weights={ANE: 100.0})).decide(REQUEST, 0.0)
    assert all(0.0 <= score.score <= 1.0 for score in decision.considered)


def test_excluded_backends_are_never_chosen_and_preferred_ones_first() -> None:
    """Preference gives way when none of the preferred is well; exclusion never does."""
    assert chosen(engine(*FLEET, rules=RoutingRules(excluded_backends=(GPU,)))) == "cpu"
    subject = engine(*FLEET, rules=RoutingRules(preferred_backends=(ANE, MPS)))
    assert chosen(subject) == "ane"
    subject = engine(*FLEET, rules=RoutingRules(preferred_backends=(MPS,)))
    assert chosen(subject) == "gpu"


def test_nothing_left_is_an_error_that_says_why() -> None:
    """With every backend excluded or not allowed, the request is refused, and no slot is kept."""
    subject = engine(*FLEET, rules=RoutingRules(excluded_backends=(GPU,)))
    with pytest.raises(RequestError, match=r"gpu: backend excluded; cpu: backend not allowed by the request"):
        subject.decide(replace(REQUEST, allowed_backends=frozenset({GPU, MPS})), 0.0)
    assert [target.in_flight for target in subject.snapshot(0.0)] == [0, 0, 0]


def test_a_lone_target_too_must_meet_the_constraints() -> None:
    """Having nothing to choose is no excuse."""
    with pytest.raises(RequestError, match="cpu: takes more than 50 MB"):
        engine(FLEET[0]).decide(replace(REQUEST, max_memory_mb=50.0), 0.0)


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"allowed_backends": frozenset({CPU, ANE})}, "cpu"),
        ({"max_memory_mb": 500.0}, "cpu"),
        ({"max_power_w": 100.0}, "cpu"),
        ({"max_power_w": 10.0}, "ane"),
        ({"min_throughput": 105.0}, "gpu"),
    ],
)
def test_bounds_of_a_request(bounds: dict[str, object], expected: str) -> None:
    """Memory, power and throughput bounds reject what is known to break them; the unknown passes."""
    assert chosen(engine(*FLEET), replace(REQUEST, **bounds)) == expected


def test_a_rule_binds_requests_that_ask_for_nothing_and_no_others() -> None:
    """The rule's latency bound is the default; a request's own replaces it."""
    subject = engine(*FLEET, policy="random", rules=RoutingRules(max_latency_ms=9.5))
    assert {chosen(subject) for _ in range(20)} == {"gpu"}
    assert {chosen(subject, replace(REQUEST, max_latency_ms=60.0)) for _ in range(60)} == {"cpu", "gpu", "ane"}


def test_a_device_busy_beyond_the_bound_gets_no_more_while_another_is_not() -> None:
    """After seconds of uninterrupted work the favourite's device is left to recover; then it is chosen again."""
    subject = engine(*FLEET, rules=RoutingRules(max_backend_utilization=0.8))
    assert chosen(subject) == "gpu"
    busy = subject.decide(REQUEST, 1.0)
    assert busy.target.name == "gpu"
    assert chosen(subject, now=20.0) == "cpu"
    assert chosen(subject, replace(REQUEST, allowed_backends=frozenset({GPU})), 20.0) == "gpu"


def test_load_on_every_device_leaves_all_of_them() -> None:
    """A bound that all devices exceed keeps nobody out."""
    subject = engine(*FLEET, rules=RoutingRules(max_backend_utilization=0.5))
    for name in ("cpu", "gpu", "ane"):
        subject.decide(replace(REQUEST, pinned=name), 0.0)
    assert subject.decide(REQUEST, 30.0).reason == "policy"


def test_a_mirrored_request_learns_about_a_target_that_no_client_would_be_sent_to() -> None:
    """A target that became fast again is found by copies alone, within the budget of time."""
    subject = engine(Spec("a", 10.0), Spec("b", 30.0), rules=RoutingRules(mirror=0.02))
    spent = total = 0.0
    moved = None
    for step in range(4000):
        now = step * 0.1
        decision = served(subject, 10.0, now, replace(REQUEST, may_explore=True))
        total += 10.0
        if decision.target.name == "b":
            moved = step
            break
        copy = subject.mirror(decision)
        if copy:
            assert (copy.target.name, copy.reason) == ("b", "mirror")
            assert subject.mirror(decision) is None, "one copy at a time"
            subject.finish(copy, Outcome(Verdict.SUCCESS, 3.0), now)
            spent += 3.0
    assert moved is not None
    assert 0.0 < spent <= 0.02 * total + 30.0


def test_unproven_targets_are_left_to_mirrored_requests() -> None:
    """Where copies are sent, no client waits for a target of unknown speed while another is known."""
    subject = engine(Spec("known", 10.0), Spec("unknown", None), rules=RoutingRules(mirror=0.01))
    decision = served(subject, 10.0, 0.0, replace(REQUEST, may_explore=True))
    assert decision.target.name == "known"
    assert decision.rejections[0].reason == "unproven, and left to mirrored requests"
    copy = subject.mirror(decision)
    assert copy is not None
    assert copy.target.name == "unknown"


def test_no_copies_where_they_are_not_wanted() -> None:
    """Not without a budget, nor by a policy that does not learn, nor of a constrained or bound request."""
    free = replace(REQUEST, may_explore=True)
    for policy, mirror, request in (
        ("latency", 0.0, free),
        ("random", 0.01, free),
        ("latency", 0.01, REQUEST),
        ("latency", 0.01, replace(free, allowed_backends=frozenset({CPU}))),
    ):
        subject = engine(Spec("a", 10.0), Spec("b", 30.0), policy=policy, rules=RoutingRules(mirror=mirror))
        copies = [subject.mirror(served(subject, 10.0, float(step), request)) for step in range(50)]
        assert not any(copies)


@pytest.mark.parametrize("policy", ["latency", "random", "power-of-two", "least-request", "adaptive"])
def test_logged_propensities_are_true(policy: str) -> None:
    """Over 30,000 decisions in one state, each target is chosen as often as its propensity says, explored or not."""
    subject = engine(
        Spec("a", 10.0),
        Spec("b", 10.2),
        Spec("c", 20.0, GPU),
        policy=policy,
        rules=RoutingRules(explore=0.2),
        log_propensities=True,
    )
    context = replace(REQUEST, may_explore=True)
    counts, claimed = Counter[str](), dict[str, float]()
    for _ in range(30_000):
        decision = subject.decide(context, 0.0)
        claimed[decision.target.name] = decision.propensity
        counts[decision.target.name] += 1
        subject.finish(decision, _CANCELLED, 0.0)
    assert sum(claimed.values()) == pytest.approx(1.0)
    for name, p in claimed.items():
        assert abs(counts[name] - 30_000 * p) <= 4.5 * (30_000 * p * (1 - p)) ** 0.5 + 1e-9


@pytest.mark.parametrize("rules", [RoutingRules(), RoutingRules(explore=0.01), RoutingRules(excluded_backends=(GPU,))])
def test_an_explanation_says_what_a_decision_does_and_changes_nothing(rules: RoutingRules) -> None:
    """Same choice, scores and rejections as the decision that follows; nothing reserved; every target listed."""
    subject = engine(*FLEET, policy="adaptive", rules=rules)
    context = replace(REQUEST, max_latency_ms=10.5, may_explore=True)
    explanation = subject.explain(context, 0.0)
    assert all(target.in_flight == target.chosen == 0 for target in subject.snapshot(0.0))
    decision = subject.decide(context, 0.0)
    told = {target.target.name: target for target in explanation.targets}
    assert explanation.chosen is not None
    assert told[decision.target.name].probability > 0.0
    assert told[explanation.chosen.name].probability == max(target.probability for target in told.values())
    assert explanation.policy == "adaptive"
    assert sum(explanation.weights.values()) == pytest.approx(1.0)
    assert set(told) == {"cpu", "gpu", "ane"}
    assert {name for name, target in told.items() if target.rejected} == {r.target.name for r in decision.rejections}
    for score in decision.considered:
        target = told[score.target.name]
        assert target.score == score.score
        assert sum(explanation.weights[name] * value for name, value in target.scores.items()) == pytest.approx(
            score.score
        )
    assert sum(target.probability for target in explanation.targets) == pytest.approx(1.0)


def test_an_explanation_of_an_impossible_request_says_so() -> None:
    """No target is named, each has its reason."""
    explanation = engine(*FLEET).explain(replace(REQUEST, allowed_backends=frozenset({MPS})), 0.0)
    assert (explanation.chosen, explanation.reason) == (None, "refused")
    assert all(target.rejected for target in explanation.targets)


def test_where_nobody_can_be_chosen_a_latency_bound_changes_nothing() -> None:
    """With every target excluded, a request is refused and explained the same way whether or not it has a bound."""
    subject = engine(*FLEET, rules=RoutingRules(excluded_backends=(CPU, GPU, ANE)))
    for context in (REQUEST, replace(REQUEST, max_latency_ms=10.0)):
        with pytest.raises(RequestError, match="cpu: backend excluded"):
            subject.decide(context, 0.0)
        explanation = subject.explain(context, 0.0)
        assert (explanation.chosen, explanation.reason) == (None, "refused")


def test_a_resting_target_stays_out_while_another_is_being_tried() -> None:
    """With one target resting and the other of unknown speed and busy, requests go to the one that has not failed."""
    subject = engine(Spec("failing", 5.0), Spec("unknown", None))
    for _ in range(3):
        decision = subject.decide(replace(REQUEST, pinned="failing"), 0.0)
        subject.finish(decision, Outcome(Verdict.TARGET_ERROR, 0.1), 0.0)
    decisions = [subject.decide(REQUEST, 0.5) for _ in range(20)]
    assert {(decision.target.name, decision.reason) for decision in decisions} == {("unknown", "policy")}


def test_a_cold_burst_goes_to_the_preferred_backend() -> None:
    """That a preferred target of unknown speed is being tried is no reason to leave the preferred backends."""
    subject = engine(Spec("gpu", None, GPU), Spec("cpu", None), rules=RoutingRules(preferred_backends=(GPU,)))
    assert {subject.decide(REQUEST, 0.0).target.name for _ in range(6)} == {"gpu"}


def test_no_request_is_spent_on_exploring_past_its_bound() -> None:
    """A target that is in time on average, but not surely, is not explored with a request that has a latency bound."""
    subject = engine(Spec("fast", 2.0), Spec("slow", 8.0), rules=RoutingRules(explore=1.0), log_propensities=True)
    for step in range(60):
        pinned = replace(REQUEST, pinned="slow")
        subject.finish(subject.decide(pinned, float(step)), Outcome(Verdict.SUCCESS, 6.0 + step % 5), float(step))
    bounded = replace(REQUEST, may_explore=True, max_latency_ms=9.0)
    decisions: list[RoutingDecision] = []
    for _ in range(50):
        decisions.append(subject.decide(bounded, 100.0))
        subject.finish(decisions[-1], _CANCELLED, 100.0)
    assert {decision.target.name for decision in decisions} == {"fast"}
    assert {decision.propensity for decision in decisions} == {1.0}
    free = {subject.decide(replace(bounded, max_latency_ms=0.0), 100.0).target.name for _ in range(50)}
    assert free == {"fast", "slow"}


def test_random_choices_heed_the_weights() -> None:
    """A backend that weighs four times as much gets four times the requests."""
    subject = engine(
        Spec("cpu", 5.0), Spec("gpu", 5.0, GPU), policy="random", rules=RoutingRules(backend_weights={GPU: 4.0})
    )
    shares = Counter(chosen(subject) for _ in range(5000))
    assert 3700 <= shares["gpu"] <= 4300
