"""Each policy prefers what its name says, on what is measured, declared or unknown."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from tests.unit.routing.fleet import ANE, CPU, GPU, REQUEST, Spec, chosen, engine, served
from triton_router.errors import ConfigError
from triton_router.profiling.figures import Figure, Source
from triton_router.routing.policies import policy_named
from triton_router.routing.types import OptimizationGoal, Outcome, Verdict

FAST_AND_DEAR = Spec("gpu", 2.0, GPU, price=4.0, power_w=Figure(250.0, Source.MEASURED))
FRUGAL = Spec("ane", 6.0, ANE, price=1.5, power_w=Figure(8.0, Source.ESTIMATED))
CHEAP = Spec("cpu", 9.0, CPU, price=0.3, power_w=Figure(65.0, Source.ESTIMATED))
FLEET = (FAST_AND_DEAR, FRUGAL, CHEAP)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("latency", "gpu"), ("least-latency", "gpu"), ("throughput", "gpu"), ("power", "ane"), ("cost", "cpu")],
)
def test_an_idle_fleet(policy: str, expected: str) -> None:
    """With nothing in flight: fastest, most frugal (joules, not watts), cheapest (price times time)."""
    assert chosen(engine(*FLEET, policy=policy)) == expected


def test_throughput_keeps_every_device_busy_in_proportion_to_its_speed() -> None:
    """Of 33 requests at once, devices that need 2, 6 and 9 ms get shares that end at about the same time."""
    subject = engine(*FLEET, policy="throughput")
    shares = Counter(subject.decide(REQUEST, 0.0).target.name for _ in range(33))
    ends = [shares["gpu"] * 2.0, shares["ane"] * 6.0, shares["cpu"] * 9.0]
    assert max(ends) - min(ends) <= 12.0


def test_an_unknown_energy_is_neither_best_nor_worst() -> None:
    """A target that declares no power is chosen before one known to be wasteful and after one known to be frugal."""
    unknown = Spec("unknown", 2.0, CPU)
    frugal, wasteful = FRUGAL, Spec("wasteful", 9.0, GPU, power_w=Figure(400.0, Source.ESTIMATED))
    order = [
        score.target.name
        for score in sorted(
            engine(unknown, frugal, wasteful, policy="power").decide(REQUEST, 0.0).considered, key=lambda s: -s.score
        )
    ]
    assert order == ["ane", "unknown", "wasteful"]


def test_where_no_power_is_known_least_energy_is_least_time() -> None:
    """Variants on one machine that nobody has metered: the one that keeps it busy longest is not drawn as often."""
    subject = engine(Spec("slow", 90.0), Spec("fast", 5.0), Spec("middling", 9.0), policy="power")
    assert {served(subject, 5.0, float(second)).target.name for second in range(20)} == {"fast"}


def test_adaptive_weighs_its_three_terms() -> None:
    """Each weight alone decides as its term says; the latency term is not computed in vain."""
    only_latency = {"complexity_weight": 0.0, "latency_weight": 1.0, "resource_weight": 0.0}
    subject = engine(*FLEET, policy="adaptive", parameters=only_latency)
    assert chosen(subject) == "gpu"
    only_resources = {"complexity_weight": 0.0, "latency_weight": 0.0, "resource_weight": 1.0}
    subject = engine(*FLEET, policy="adaptive", parameters=only_resources)
    first = subject.decide(REQUEST, 0.0)
    assert chosen(subject) != first.target.name


@pytest.mark.parametrize(
    ("bound", "weights", "expected"),
    [
        (20.0, {"cost_weight": 1.0, "power_weight": 0.0}, "cpu"),
        (20.0, {"cost_weight": 0.0, "power_weight": 1.0}, "ane"),
        (4.0, {"cost_weight": 1.0, "power_weight": 0.0}, "gpu"),
    ],
)
def test_slo_takes_the_cheapest_or_most_frugal_that_is_in_time(
    bound: float, weights: dict[str, float], expected: str
) -> None:
    """Of those expected to meet the bound with the asked probability, once it is known how much they vary."""
    subject = engine(*FLEET, policy="slo", parameters=weights)
    for step in range(40):
        for spec in FLEET:
            served(subject, spec.ms or 0.0, float(step), replace(REQUEST, pinned=spec.name))
    decision = subject.decide(replace(REQUEST, max_latency_ms=bound), 0.0)
    assert (decision.target.name, decision.meets_latency_bound) == (expected, True)


@pytest.mark.parametrize("fleet", [FLEET, FLEET[::-1]])
def test_slo_that_nobody_meets_goes_to_the_fastest_and_says_so(fleet: tuple[Spec, ...]) -> None:
    """In whatever order they stand. The decision is flagged, and the rejections name the bound."""
    decision = engine(*fleet, policy="slo").decide(replace(REQUEST, max_latency_ms=0.5), 0.0)
    assert (decision.target.name, decision.reason, decision.meets_latency_bound) == ("gpu", "late", False)
    assert {rejection.reason for rejection in decision.rejections} == {"not expected to answer within 0.5 ms"}


@pytest.mark.parametrize("believed_ms", [None, 30.0])
def test_what_will_be_late_anyway_tries_who_was_long_not_measured(believed_ms: float | None) -> None:
    """A target never heard of, or believed slow, gets one bounded request each half minute; and, if fast again, all.

    With neither copies nor exploring: else requests that all have bounds would never find out.
    """
    subject = engine(Spec("slow", 20.0), Spec("other", believed_ms))
    bounded = replace(REQUEST, max_latency_ms=10.0)
    speeds = {"slow": 20.0, "other": 40.0}

    def tries(seconds: range) -> list[int]:
        """Serve one request a second; return when the other target was tried."""
        found: list[int] = []
        for second in seconds:
            decision = subject.decide(bounded, float(second))
            subject.finish(decision, Outcome(Verdict.SUCCESS, speeds[decision.target.name]), float(second))
            if decision.target.name == "other":
                found.append(second)
                assert decision.reason == "late" or speeds["other"] < bounded.max_latency_ms
        return found

    first, *further = tries(range(100))
    assert first <= 2
    assert further == [first + 31, first + 62, first + 93]
    speeds["other"] = 2.0
    tries(range(100, 300))
    assert len(tries(range(300, 320))) == 20


def test_slo_counts_how_much_a_target_varies() -> None:
    """A target that is in time on average but not with the asked probability is passed over."""
    subject = engine(Spec("steady", 8.0, CPU, price=3.0), Spec("erratic", 8.0, GPU, price=1.0), policy="slo")
    for step in range(120):
        for name, latency in (("steady", 8.0), ("erratic", 4.0 if step % 3 else 16.0)):
            served(subject, latency, float(step), replace(REQUEST, pinned=name))
    assert chosen(subject, replace(REQUEST, max_latency_ms=12.0), 200.0) == "steady"
    assert chosen(subject, replace(REQUEST, max_latency_ms=60.0), 200.0) == "erratic"


def test_a_goal_replaces_the_policy_for_its_request_only() -> None:
    """Each goal names the policy that serves it; balanced leaves the choice to the one in force."""
    subject = engine(*FLEET, policy="cost")
    wishes = {
        OptimizationGoal.MINIMIZE_LATENCY: "gpu",
        OptimizationGoal.MAXIMIZE_THROUGHPUT: "gpu",
        OptimizationGoal.MINIMIZE_POWER: "ane",
        OptimizationGoal.BALANCED: "cpu",
    }
    for goal, expected in wishes.items():
        assert chosen(subject, replace(REQUEST, optimization_goal=goal)) == expected


def test_least_request_and_power_of_two_follow_the_load() -> None:
    """A burst is shared out whatever the speeds; by two choices nearly as evenly as by all."""
    for policy, unevenness in (("least-request", 1), ("power-of-two", 12)):
        subject = engine(*FLEET, policy=policy)
        shares = Counter(subject.decide(REQUEST, 0.0).target.name for _ in range(90))
        assert max(shares.values()) - min(shares.values()) <= unevenness


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("fastest", {}, "there is no policy 'fastest'"),
        ("latency", {"weight": 1.0}, "policy 'latency' has no parameter 'weight'"),
        ("slo", {"probability": 1.0}, "parameter 'probability' of policy 'slo' cannot be 1"),
        ("adaptive", {"latency_weight": -1.0}, "cannot be -1"),
        ("adaptive", {"latency_weight": float("nan")}, "cannot be nan"),
        (
            "adaptive",
            {"complexity_weight": 0.0, "latency_weight": 0.0, "resource_weight": 0.0},
            "weights of policy 'adaptive' are negative or all 0",
        ),
    ],
)
def test_what_is_no_policy_is_refused(name: str, parameters: dict[str, float], message: str) -> None:
    """Unknown names, unknown parameters and impossible values, each with what to do."""
    with pytest.raises(ConfigError, match=message) as caught:
        policy_named(name, parameters)
    assert caught.value.hint


def test_balanced_is_adaptive() -> None:
    """The goal's word and the policy's word mean the same policy."""
    assert policy_named("balanced").name == "adaptive"


def test_of_two_equal_predictions_the_confirmed_one_counts() -> None:
    """A latency that live answers have confirmed is preferred to the same one promised by a build."""
    subject = engine(Spec("promised", 10.0, CPU), Spec("confirmed", 10.0, GPU))
    for step in range(50):
        served(subject, 10.0, float(step), replace(REQUEST, pinned="confirmed"))
    assert Counter(chosen(subject, now=60.0) for _ in range(20)) == {"confirmed": 20}


@pytest.mark.parametrize("policy", ["cost", "slo"])
def test_where_nothing_is_paid_the_fastest_is_chosen(policy: str) -> None:
    """Prices that are all 0 do not leave the choice to chance."""
    assert chosen(engine(Spec("a", 7.0), Spec("b", 5.0), Spec("c", 9.0), policy=policy)) == "b"
