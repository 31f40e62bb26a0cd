"""The 90th percentile is one."""

from __future__ import annotations

import random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triton_router.profiling.profile import TargetProfile
from triton_router.profiling.residuals import Residuals


def law(work: float) -> float:
    return 2 + 0.05 * work


@pytest.mark.parametrize("noise", ["narrow", "wide", "skewed"])
def test_nine_in_ten_held_out_answers_are_within_the_90th_percentile(noise: str) -> None:
    """After 50 executions, 87 to 93% of the next are within it, over 60 runs, whatever the noise looks like."""
    shares: list[float] = []
    for seed in range(60):
        rng = random.Random(seed)
        draw = {
            "narrow": lambda rng=rng: rng.lognormvariate(0, 0.03),
            "wide": lambda rng=rng: rng.lognormvariate(0, 0.5),
            "skewed": lambda rng=rng: 1.0 + rng.expovariate(5.0),
        }[noise]
        profile = TargetProfile()
        for _ in range(50):
            work = float(rng.choice([16, 32, 64, 128, 256]))
            profile.record_latency(law(work) * draw(), work, profile.predict_latency(work), alone=True)
        held = [float(rng.choice([16, 32, 64, 128, 256])) for _ in range(200)]
        within = [law(w) * draw() <= profile.latency_quantile(profile.predict_latency(w), 0.9) for w in held]
        shares.append(fmean(within))
    assert 0.87 <= fmean(shares) <= 0.93


def test_the_summary_counts_its_own_coverage() -> None:
    """The share of answers within the 90th percentile that was predicted for them is reported, and is near 90%."""
    rng = random.Random(5)
    profile = TargetProfile()
    assert profile.summary().p90_coverage == 0.0
    for _ in range(1000):
        work = float(rng.choice([16, 64, 256]))
        profile.record_latency(law(work) * rng.lognormvariate(0, 0.2), work, profile.predict_latency(work), alone=True)
    summary = profile.summary()
    assert summary.p90_judged > 900
    assert 0.86 < summary.p90_coverage < 0.94
    assert summary.p50_ms < summary.p90_ms < summary.p99_ms


@given(st.lists(st.floats(-5, 5), max_size=100), st.floats(0, 1), st.floats(0, 1))
def test_quantiles_and_probabilities_are_monotone(misses: list[float], p: float, q: float) -> None:
    """A higher probability never asks for a lower bound, and a higher bound is never kept to less probably."""
    residuals = Residuals()
    for miss in misses:
        residuals.add(miss)
    low, high = sorted((p, q))
    assert residuals.miss_at(low) <= residuals.miss_at(high)
    assert 0.0 <= residuals.probability_below(low) <= residuals.probability_below(high) <= 1.0


def test_probability_and_quantile_agree() -> None:
    """An answer keeps to the p-quantile with a probability of about p."""
    rng = random.Random(6)
    profile = TargetProfile()
    for _ in range(200):
        profile.record_latency(law(64) * rng.lognormvariate(0, 0.3), 64.0, profile.predict_latency(64), alone=True)
    for p in (0.1, 0.5, 0.9):
        assert profile.probability_within(5.0, profile.latency_quantile(5.0, p)) == pytest.approx(p, abs=0.03)
    assert profile.probability_within(5.0, 0.0) == 0.0


@pytest.mark.parametrize("probability", [0.95, 0.99, 0.999, 0.99999])
def test_every_probability_is_reached_by_a_bound_that_is_wide_enough(probability: float) -> None:
    """However few answers it is known from: else a strict target would be called late whatever the bound."""
    for count in (9, 64, 100):
        residuals = Residuals(kept=100)
        for index in range(count):
            residuals.add(0.001 * index)
        assert residuals.probability_below(0.2) < residuals.probability_below(0.4) < 1.0
        assert residuals.probability_below(16.0) >= probability
