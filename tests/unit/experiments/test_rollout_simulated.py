"""The gate on simulated traffic: how often it is wrong about a good canary, and how soon it finds a bad one.

    pytest -s tests/unit/experiments/test_rollout_simulated.py

prints the figures.
"""

from __future__ import annotations

import random
from collections import Counter
from math import log, log1p
from statistics import median
from typing import TYPE_CHECKING

import pytest

from tests.unit.experiments.rollouts import GOOD, SHARES, Behaviour, Traffic, gate, plan
from triton_router.experiments.rollout import Rollout
from triton_router.routing.types import Verdict

if TYPE_CHECKING:
    from triton_router.experiments.tally import Tally

RUNS = 500


def test_the_gate_keeps_its_share_of_false_alarms() -> None:
    """Of 500 rollouts of a canary as good as stable, with 0.1 to 1% errors and outliers, under 5% are rolled back."""
    wrong: Counter[str] = Counter()
    for seed in range(RUNS):
        traffic = Traffic(Rollout(plan(id=f"r{seed}", gate=gate(min_requests=3))), seed, per_second=8)
        same = Behaviour(failures=random.Random(seed).uniform(0.001, 0.01))
        if traffic.until_it_ends(same, same, mismatches=0.005) == "rolled_back":
            wrong.update([traffic.changes[-1].reason])
    print(f"A/A: {wrong.total()} of {RUNS} rolled back", dict(wrong))
    assert wrong.total() < 0.05 * RUNS


@pytest.mark.parametrize(
    ("slower", "thirds"), [(0.4, (True, True, False)), (0.4, (False, True, False)), (-0.3, (True, True, True))]
)
def test_what_makes_everybody_slower_counts_against_nobody(slower: float, thirds: tuple[bool, ...]) -> None:
    """A machine that is slower, or faster, for a while of the last step: of 100 good canaries all but a few pass."""
    runs = 100
    wrong: Counter[str] = Counter()
    for seed in range(runs):
        traffic = Traffic(Rollout(plan(id=f"r{seed}", steps=(0.5, 1.0), hold_s=60.0)), seed, per_second=50)
        same = Behaviour(failures=0.002)
        while traffic.rollout.share < SHARES[-1] and traffic.rollout.phase == "running":
            traffic.second(same, same)
        for is_loaded in thirds:
            now = same._replace(slower=log1p(slower) if is_loaded else 0.0)
            traffic.until_it_ends(now, now, most=20)
        if traffic.until_it_ends(same, same) == "rolled_back":
            wrong.update([traffic.changes[-1].reason])
    print(
        f"A/A, {slower:+.0%} for {sum(thirds)}/3 of the last step: {wrong.total()} of {runs} rolled back", dict(wrong)
    )
    assert wrong.total() < 0.05 * runs


@pytest.mark.parametrize(
    ("what", "canary", "mismatches", "bound"),
    [
        ("5% errors against 0.1%", Behaviour(failures=0.05), None, 150),
        ("50% errors against 0.1%", Behaviour(failures=0.5), None, 15),
        ("30% slower", Behaviour(failures=0.001, slower=log(1.3)), None, 150),
        ("10% wrong outputs", Behaviour(failures=0.001), 0.1, 150),
    ],
)
def test_a_bad_canary_is_found_soon(what: str, canary: Behaviour, mismatches: float | None, bound: int) -> None:
    """Every one of 20 is rolled back, half of them within the given number of the canary's requests."""
    requests: list[int] = []
    touched: list[int] = []
    seconds: list[float] = []
    for seed in range(20):
        traffic = Traffic(Rollout(plan(hold_s=600.0)), seed, per_second=50)
        assert traffic.until_it_ends(canary, Behaviour(failures=0.001), mismatches) == "rolled_back"
        requests.append(traffic.canary_requests)
        touched.append(traffic.canary_failures)
        seconds.append(traffic.now - 1_000_000.0)
    print(
        f"{what}: median of {median(requests):.0f} canary requests (at most {max(requests)}), "
        f"{median(touched):.0f} of them failed, {median(seconds):.0f} s at 50 requests a second"
    )
    assert median(requests) <= bound


def test_pauses_of_a_target_are_not_taken_for_slowness() -> None:
    """Arms that are as fast, each with bad moments of its own that last seconds: few are rolled back.

    Were each answer of a bad moment counted as evidence of its own, more than half of them would be.
    """
    wrong = 0
    for seed in range(40):
        rng = random.Random(seed)
        rollout = Rollout(plan(steps=(0.5,), hold_s=1e9))
        rollout.step(0.0)
        moods = [0.0, 0.0]
        for second in range(1, 121):
            for at, arm in enumerate((rollout.canary, rollout.stable)):
                moods[at] = 0.8 * moods[at] + rng.gauss(0.0, 0.1)
                answer(arm, rng, moods[at])
            rollout.step(float(second))
        wrong += rollout.phase == "rolled_back"
    assert wrong <= 6


def answer(arm: Tally, rng: random.Random, mood: float) -> None:
    for _ in range(20):
        arm.note(Verdict.SUCCESS, 5.0, rng.gauss(mood, 0.3))


def test_a_fault_after_long_good_service_is_found_within_the_hour() -> None:
    """A canary held at 10% that was well for forty minutes and then fails a tenth: rolled back in minutes."""
    traffic = Traffic(Rollout(plan(weight=0.1, gate=gate())), seed=3, per_second=10)
    for _ in range(2400):
        traffic.second(GOOD, GOOD)
    before = traffic.now
    assert traffic.until_it_ends(Behaviour(failures=0.1)) == "rolled_back"
    print(f"after forty good minutes: {traffic.now - before:.0f} s")
    assert traffic.now - before < 900.0
