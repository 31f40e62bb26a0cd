"""Changes of speed: found within a handful of answers, and seldom where there are none."""

from __future__ import annotations

import random
from statistics import median

import pytest

from triton_router.profiling.load_law import Load
from triton_router.profiling.profile import TargetProfile


def serve(profile: TargetProfile, rng: random.Random, count: int, factor: float = 1.0, noise: float = 0.05) -> None:
    for _ in range(count):
        work = float(rng.choice([16, 64, 256]))
        expected = profile.predict_latency(work)
        profile.record_latency(factor * (2 + 0.05 * work) * rng.lognormvariate(0, noise), work, expected, alone=True)


@pytest.mark.parametrize(("factor", "direction"), [(3.0, "slower"), (1 / 3, "faster")])
def test_a_threefold_change_is_learned_within_six_answers(factor: float, direction: str) -> None:
    """In nine runs of ten the prediction of every size is within 20% six answers after the change."""
    good = 0
    for seed in range(100):
        rng = random.Random(seed)
        profile = TargetProfile()
        serve(profile, rng, 100)
        serve(profile, rng, 6, factor)
        errors = [abs(profile.predict_latency(w) / (factor * (2 + 0.05 * w)) - 1.0) for w in (16, 64, 256)]
        good += max(errors) < 0.2
        assert profile.last_drift is None or profile.last_drift.direction == direction
    assert good >= 90


def test_a_change_is_an_event_with_its_factor() -> None:
    """The event says slower, about three times, and when; the recovery is a second event."""
    rng = random.Random(1)
    profile = TargetProfile()
    serve(profile, rng, 100)
    assert profile.drifts == 0
    serve(profile, rng, 10, 3.0)
    event = profile.last_drift
    assert event is not None
    assert (profile.drifts, event.direction) == (1, "slower")
    assert event.factor == pytest.approx(3.0, rel=0.15)
    assert 101 < event.observation <= 106
    serve(profile, rng, 20, 3.0)
    serve(profile, rng, 10)
    assert profile.drifts == 2
    assert profile.last_drift is not None
    assert profile.last_drift.direction == "faster"


@pytest.mark.parametrize("outlier", [0.01, 20.0, 1000.0])
def test_one_outlier_is_no_change(outlier: float) -> None:
    """A single cold start or garbage collection raises no alarm and moves no prediction by more than 5%."""
    rng = random.Random(2)
    profile = TargetProfile()
    serve(profile, rng, 100)
    before = [profile.predict_latency(w) for w in (16, 64, 256)]
    profile.record_latency(outlier * 5.2, 64.0, before[1], alone=True)
    assert profile.drifts == 0
    for w, value in zip((16, 64, 256), before, strict=True):
        assert profile.predict_latency(w) == pytest.approx(value, rel=0.05)


def test_heavy_tailed_noise_seldom_raises_an_alarm() -> None:
    """In 200 runs of 500 answers, of which one in twenty takes up to ten times as long, alarms are under 1 in 5,000."""
    alarms = 0
    for seed in range(200):
        rng = random.Random(seed)
        profile = TargetProfile()
        for _ in range(500):
            work = float(rng.choice([16, 64, 256]))
            latency = (2 + 0.05 * work) * rng.lognormvariate(0, 0.1)
            if rng.random() < 0.05:
                latency *= rng.uniform(1, 10)
            profile.record_latency(latency, work, profile.predict_latency(work), alone=True)
        alarms += profile.drifts
    assert alarms < 20


def interrupted(
    profile: TargetProfile, rng: random.Random, count: int, factor: float = 1.0, noise: float = 0.05
) -> None:
    """Requests that begin alone, and to which company comes that makes them up to three times as long."""
    for _ in range(count):
        work = float(rng.choice([16, 64, 256]))
        took = factor * (2 + 0.05 * work) * rng.lognormvariate(0, noise) * rng.choice([1.0, 1.0, rng.uniform(1, 3)])
        profile.record_latency(took, work, profile.predict_latency(work), alone=False)


def test_a_recovery_is_seen_though_company_always_comes() -> None:
    """A target that is thrice as fast again is known to be, 20 answers later of which each had company in the end.

    In the median of 50 runs to a quarter, in the worst to half: what company adds cannot be told.
    """
    errors: list[float] = []
    for seed in range(50):
        rng = random.Random(seed)
        profile = TargetProfile()
        serve(profile, rng, 100, 3.0)
        interrupted(profile, rng, 20)
        assert profile.last_drift is not None
        assert profile.last_drift.direction == "faster"
        errors.append(profile.predict_latency(64) / (2 + 0.05 * 64))
    assert median(errors) < 1.25
    assert max(errors) < 2.0


def test_company_that_comes_later_is_no_change_of_the_target() -> None:
    """However much it slows requests down, and however much these vary: under one false alarm in 10,000 answers."""
    alarms = 0
    for noise in (0.05, 0.15, 0.3):
        for seed in range(20):
            rng = random.Random(seed)
            profile = TargetProfile()
            serve(profile, rng, 100, noise=noise)
            interrupted(profile, rng, 1000, noise=noise)
            alarms += profile.drifts
    assert alarms <= 60 * 1100 / 10_000


def test_confidence_grows_with_evidence_and_shrinks_with_error_and_change() -> None:
    """More answers: more trust; noisier ones: less; a change: less than before, and it comes back."""
    rng = random.Random(3)
    profile = TargetProfile()
    seen = [profile.confidence]
    for _ in range(3):
        serve(profile, rng, 20)
        seen.append(profile.confidence)
    assert seen == sorted(seen)
    assert seen[0] == 0.0
    noisy = TargetProfile()
    serve(noisy, rng, 60, noise=0.6)
    assert noisy.confidence < profile.confidence
    serve(profile, rng, 6, 3.0)
    assert profile.confidence < 0.6 * seen[-1]
    serve(profile, rng, 60, 3.0)
    assert profile.confidence > 0.9 * seen[-1]


@pytest.mark.parametrize("clients", [4, 8, 32])
@pytest.mark.parametrize("discipline", ["shared cores", "a queue", "batched"])
def test_bursts_are_no_change_of_the_target(discipline: str, clients: int) -> None:
    """After quiet traffic, bursts of requests at once raise no alarm and leave what a lone request takes as it was.

    What company costs is not known at first, and never as well as what a request takes alone.
    """
    drifts = 0
    for seed in range(5):
        rng = random.Random(seed)
        profile = TargetProfile()
        for _ in range(150):
            profile.record_latency(10 * rng.lognormvariate(0, 0.05), 10.0, profile.predict_latency(10.0), alone=True)
        for _ in range(20):
            for ahead in range(clients):
                took = {"shared cores": clients, "a queue": ahead + 1.0, "batched": 1.0 + 0.05 * clients}[discipline]
                load = Load(profile.predict_alone(10.0) * ahead, ahead)
                expected = profile.predict_latency(10.0, load=load)
                latency = 10 * took * rng.lognormvariate(0, 0.05)
                profile.record_latency(latency, 10.0, expected, alone=False, load=load)
            for _ in range(3):
                latency = 10 * rng.lognormvariate(0, 0.05)
                profile.record_latency(latency, 10.0, profile.predict_latency(10.0), alone=True)
        drifts += profile.drifts
        assert profile.predict_alone(10.0) == pytest.approx(10.0, rel=0.1)
    assert drifts == 0


def test_a_shape_unlike_all_before_is_no_change_of_the_target() -> None:
    """After large requests alone come small ones: what they take is learned, and the large ones stay as they were."""
    for seed in range(20):
        rng = random.Random(seed)
        profile = TargetProfile()
        for work in [3200.0] * 100 + [50.0] * 30:
            latency = (1 + 0.02 * work) * rng.lognormvariate(0, 0.05)
            profile.record_latency(latency, work, profile.predict_latency(work), alone=True)
        assert profile.drifts == 0
        assert profile.predict_latency(50.0) == pytest.approx(2.0, rel=0.15)
        assert profile.predict_latency(3200.0) == pytest.approx(65.0, rel=0.15)
