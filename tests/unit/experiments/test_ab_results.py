"""Results of an A/B test: true at any time, silent where there is too little, loud where the split is wrong."""

from __future__ import annotations

import json
import random
from math import exp, log
from typing import Any

import pytest

from triton_router.experiments.ab_results import Experiment
from triton_router.experiments.split import Arm, Assignment, Split
from triton_router.routing.policies import policy_named
from triton_router.routing.types import Verdict

NOW = 1_700_000_000.0


def split(fraction: float = 0.3, *, treatment: str = "latency", assignment: Assignment = Assignment.REQUEST) -> Split:
    return Split("e", policy_named("random"), policy_named(treatment), fraction, assignment=assignment)


def served(
    experiment: Experiment,
    count: int,
    seed: int,
    *,
    factor: float = 1.0,
    failures: float = 0.002,
    lost: float = 0.0,
) -> Experiment:
    """Serve requests; treatment takes ``factor`` times as long, fails in a share, and loses a share of its own."""
    rng = random.Random(seed)
    experiment.tick(NOW)
    for number in range(count):
        arm = experiment.split.arm_of("m", f"{seed}-{number}")
        is_treated = arm is Arm.TREATMENT
        if is_treated and rng.random() < lost:
            continue
        ratio = rng.gauss(log(factor) if is_treated else 0.0, 0.3)
        failed = rng.random() < (failures if is_treated else 0.002)
        experiment.witness_of(arm).note(Verdict.TARGET_ERROR if failed else Verdict.SUCCESS, 5.0 * exp(ratio), ratio)
        if number % 100 == 99:
            experiment.tick(NOW + number / 100.0)
    return experiment


def report(experiment: Experiment) -> dict[str, Any]:
    return experiment.report(NOW + 3600.0)


def test_a_faster_policy_is_found_with_bounds_about_the_truth() -> None:
    """10% faster after 5,000 requests: said in words, the interval holds the truth, and the p-value is small."""
    result = report(served(Experiment(split()), 5000, 1, factor=0.9))
    low, high = result["latency"]["interval"]
    assert low < -0.1 < high < 0.0
    assert result["latency"]["p_value"] < 0.001
    assert result["verdict"].startswith("treatment is ")
    assert "faster" in result["verdict"]
    assert result["for_s"] == 3600.0


def test_policies_that_are_as_good_are_hardly_ever_told_apart() -> None:
    """Of 60 A/A tests, each looked at 10 times, at most 3 ever show a difference, and none a wrong split."""
    wrong = 0
    for seed in range(60):
        experiment = Experiment(split())
        is_found = False
        for look in range(10):
            result = report(served(experiment, 150, 1000 * seed + look))
            assert not result["sample_ratio"]["is_suspect"]
            words = result["verdict"]
            is_found = is_found or not ("no difference in latency" in words or "too early for latencies" in words)
        wrong += is_found
    assert wrong <= 3


def test_a_policy_that_fails_more_is_found() -> None:
    """3% against 0.2%: the verdict says so, and the interval is above 0 in time."""
    result = report(served(Experiment(split()), 6000, 2, failures=0.03))
    assert "treatment fails more often" in result["verdict"]
    assert result["failures"]["interval"][0] > 0.0
    assert result["failures"]["p_value"] < 0.01


def test_requests_that_an_arm_loses_are_found() -> None:
    """Where a tenth of treatment's requests vanish the figures are not to be trusted, whatever they say."""
    result = report(served(Experiment(split()), 20_000, 3, lost=0.1))
    assert result["sample_ratio"]["is_suspect"]
    assert result["verdict"].startswith("do not trust this")


def test_nothing_is_said_before_there_is_something_to_say() -> None:
    """Without requests, and with few, figures are None and the verdict says what is missing."""
    result = report(Experiment(split()))
    assert result["since"] is None
    assert result["latency"]["change"] is None
    assert result["failures"]["difference"] is None
    assert result["sample_ratio"]["observed"] is None
    assert "too early" in result["verdict"]
    result = report(served(Experiment(split()), 60, 4))
    assert result["latency"]["change"] is None
    assert result["arms"]["treatment"]["latency_interval_ms"] is None
    assert result["arms"]["treatment"]["failure_interval"] is not None
    assert "each arm needs 50" in result["verdict"]


def test_without_yardsticks_milliseconds_are_compared() -> None:
    """Requests that nothing is expected of are compared as they are, and the result says so."""
    experiment = Experiment(split(0.5))
    for number in range(400):
        arm = Arm.TREATMENT if number % 2 else Arm.CONTROL
        experiment.witness_of(arm).note(Verdict.SUCCESS, (4.0 if number % 2 else 5.0) + number % 3, float("nan"))
    result = report(experiment)
    assert result["latency"]["basis"] == "milliseconds as measured"
    assert result["latency"]["change"] == pytest.approx(-0.17, abs=0.02)


def test_models_that_are_assigned_as_a_whole_are_not_compared_within() -> None:
    """A routed model has one arm only: the verdict says where the other one is."""
    result = report(served(Experiment(split(assignment=Assignment.MODEL)), 200, 5))
    assert "as a whole" in result["verdict"]


def test_instances_add_up() -> None:
    """The report of one with the evidence of another has the requests of both; what is none is left out."""
    one, other = served(Experiment(split()), 1000, 6), served(Experiment(split()), 500, 7)
    peers = [json.loads(json.dumps(other.evidence())), None, {"id": "x"}]
    result = one.report(NOW, peers)
    arms = result["arms"]
    assert isinstance(arms, dict)
    assert sum(arm["answers"] for arm in arms.values()) == 1500


def test_a_copy_is_of_one_moment() -> None:
    """It says the same, and goes on doing so while the experiment goes on."""
    experiment = served(Experiment(split()), 1000, 8)
    copy = experiment.copy()
    then = report(experiment)
    assert report(copy) == then
    experiment.treatment.note(Verdict.SUCCESS, 1.0, 0.0)
    assert report(copy) == then != report(experiment)


def test_a_restart_changes_nothing() -> None:
    """Through JSON the report is the same; of other policies nothing is taken over, of another id it is refused."""
    experiment = served(Experiment(split()), 1000, 8)
    stored = json.loads(json.dumps(experiment.state()))
    again = Experiment.from_state(split(), stored)
    assert report(again) == report(experiment)
    again.treatment.note(Verdict.SUCCESS, 1.0, 0.0)
    assert report(again) != report(experiment)
    assert report(Experiment.from_state(split(treatment="cost"), stored)) == report(Experiment(split(treatment="cost")))
    with pytest.raises(ValueError, match="other than"):
        Experiment.from_state(Split("f", policy_named("random"), policy_named("cost"), 0.5), stored)


@pytest.mark.parametrize("state", [None, {}, {"id": "e"}, {"id": "e", "strata": {"forgotten": 0, "rows": [1]}}])
def test_states_that_no_experiment_has_are_refused(state: object) -> None:
    """As ValueError, by name."""
    with pytest.raises(ValueError, match=r"experiment|stratum|strata"):
        Experiment.from_state(split(), state)


def test_another_fraction_is_a_stratum_of_its_own() -> None:
    """Raising the fraction in the middle is no mismatch of the sample ratio; other policies begin anew."""
    experiment = served(Experiment(split(0.1)), 4000, 9)
    experiment.follow(split(0.6))
    served(experiment, 4000, 10)
    result = report(experiment)
    assert not result["sample_ratio"]["is_suspect"]
    assert result["sample_ratio"]["expected"] == pytest.approx(0.35, abs=0.01)
    experiment.follow(split(0.6, treatment="cost"))
    assert report(experiment)["since"] is None
