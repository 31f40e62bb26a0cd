"""Latency by batch size and work: attention, flat starts, steps."""

from __future__ import annotations

import random
from statistics import fmean
from typing import TYPE_CHECKING

import pytest

from triton_router.profiling.load_law import Load
from triton_router.profiling.profile import TargetProfile

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPES = [(batch, length) for batch in (1, 2, 4, 8) for length in (16, 32, 64, 128)]


def transformer(rows: float, work: float) -> float:
    return 1.0 + 0.2 * rows + 0.03 * work + 0.0004 * work * work / rows


def flat_then_rising(_rows: float, work: float) -> float:
    return max(4.0, 0.02 * work)


def padded(_rows: float, work: float) -> float:
    """Shapes are compiled for powers of two."""
    size = 16.0
    while size < work:
        size *= 2.0
    return 1.0 + 0.02 * size


def one_thread_for_one_row(rows: float, work: float) -> float:
    """Whatever has more than one row is given to many threads, which takes four times as long to begin with."""
    return 0.05 if rows == 1 else 0.2 + 0.00005 * work


def taught(law: Callable[[float, float], float], count: int, seed: int = 0, noise: float = 0.05) -> TargetProfile:
    rng = random.Random(seed)
    profile = TargetProfile()
    for _ in range(count):
        rows, length = rng.choice(SHAPES)
        work = float(rows * length)
        expected = profile.predict_latency(work, rows=rows)
        profile.record_latency(law(rows, work) * rng.lognormvariate(0, noise), work, expected, alone=True, rows=rows)
    return profile


def mean_error(profile: TargetProfile, law: Callable[[float, float], float]) -> float:
    return fmean(abs(profile.predict_latency(r * n, rows=r) / law(r, r * n) - 1.0) for r, n in SHAPES)


@pytest.mark.parametrize(
    ("law", "bar"), [(transformer, 0.04), (flat_then_rising, 0.08), (padded, 0.08), (one_thread_for_one_row, 0.04)]
)
def test_every_form_of_curve_is_learned_from_fifty_executions(law: Callable[[float, float], float], bar: float) -> None:
    """Attention, a GPU's flat start, padded shapes, a short way for one row: the mean error is small.

    After 50 executions with 5% of noise.
    """
    errors = [mean_error(taught(law, 50, seed), law) for seed in range(10)]
    assert fmean(errors) < bar


@pytest.mark.parametrize("law", [transformer, flat_then_rising, padded])
def test_more_executions_bring_the_error_to_the_noise(law: Callable[[float, float], float]) -> None:
    """After 400 executions the mean error of every curve is below 4%."""
    assert fmean(mean_error(taught(law, 400, seed), law) for seed in range(5)) < 0.04


def test_equal_work_of_different_batch_sizes_is_told_apart() -> None:
    """Eight rows of 16 elements and one row of 128 take what each takes, though their work is equal."""
    profile = taught(transformer, 60)
    for rows in (1, 8):
        assert profile.predict_latency(128.0, rows=rows) == pytest.approx(transformer(rows, 128.0), rel=0.1)
    assert profile.predict_latency(128.0, rows=1) > 1.15 * profile.predict_latency(128.0, rows=8)


def test_a_shape_never_seen_follows_the_law() -> None:
    """Batch 16 of length 100, twice the largest batch seen, is predicted within 15%."""
    profile = taught(transformer, 100)
    assert profile.predict_latency(1600.0, rows=16) == pytest.approx(transformer(16, 1600.0), rel=0.15)


def test_one_row_alone_tells_nothing_of_several() -> None:
    """Where only single rows were seen, several are expected to go on as their work does, without a step."""
    profile = TargetProfile()
    for at in range(60):
        work = float(SHAPES[at % 4][1])
        profile.record_latency(1.0 + 0.03 * work, work, 0.0, alone=True)
    assert profile.predict_latency(256.0, rows=4) == pytest.approx(1.0 + 0.03 * 256.0, rel=0.1)


def test_the_first_of_several_rows_are_no_change_of_the_target() -> None:
    """After thousands of single rows, batches that take four times as long are learned; single rows stay the same."""
    for seed in range(10):
        rng = random.Random(seed)
        profile = TargetProfile()
        for number in range(2012):
            rows = 1 if number < 2000 else rng.choice([2, 4, 8])
            work = 16.0 * rows
            took = one_thread_for_one_row(rows, work) * rng.lognormvariate(0, 0.2)
            profile.record_latency(took, work, profile.predict_latency(work, rows), alone=True, rows=rows)
        assert profile.drifts == 0
        assert profile.predict_alone(16.0) == pytest.approx(0.05, rel=0.15)
        assert profile.predict_alone(64.0, 4) == pytest.approx(0.2, rel=0.4)


@pytest.mark.parametrize("share", [0.01, 0.03, 0.3])
def test_single_rows_leave_a_step_alone(share: float) -> None:
    """Among thousands of them, batches of any size that take six times as long at least are predicted within 15%."""

    def law(rows: float) -> float:
        return 10.0 if rows == 1 else 60.0 + 1.25 * rows

    rng = random.Random(2)
    profile = TargetProfile()
    errors: list[float] = []
    for number in range(6000):
        rows = max(2, int(2.0 ** rng.uniform(1, 8))) if rng.random() < share else 1
        expected = profile.predict_latency(128.0 * rows, rows)
        took = law(rows) * rng.lognormvariate(0, 0.1)
        profile.record_latency(took, 128.0 * rows, expected, alone=True, rows=rows)
        if rows > 1 and number > 2000:
            errors.append(abs(expected / law(rows) - 1.0))
    assert fmean(errors) < 0.15


def test_a_wait_is_not_taken_for_a_step() -> None:
    """Several rows that were only seen in company, much later than expected, are not thought to take longer alone.

    A target that is never idle could not tell otherwise, and a wrong step would keep its requests away for ever.
    """
    profile = TargetProfile()
    for at in range(60):
        work = float(SHAPES[at % 4][1])
        profile.record_latency(1.0 + 0.03 * work, work, 0.0, alone=True)
    before = profile.predict_alone(128.0, 4)
    for _ in range(20):
        load = Load(ahead_ms=4.0, here=1.0)
        profile.record_latency(40.0, 128.0, profile.predict_latency(128.0, 4, load), alone=False, rows=4, load=load)
    assert profile.predict_alone(128.0, 4) == pytest.approx(before, rel=0.05)


def test_what_several_rows_cost_anyway_is_no_part_of_what_work_adds() -> None:
    """The step belongs to the fixed cost of a call of several rows: merging such calls saves it."""
    profile = taught(one_thread_for_one_row, 400)
    assert profile.fixed_and_marginal(16.0, 1)[0] == pytest.approx(0.05, rel=0.2)
    assert profile.fixed_and_marginal(128.0, 8)[0] == pytest.approx(0.2, rel=0.2)


def test_fixed_and_marginal_cost_add_up_to_the_latency_alone() -> None:
    """What a call costs anyway and what the work adds are the latency alone; nothing is known of a fresh target."""
    assert TargetProfile().fixed_and_marginal(64.0) == (0.0, 0.0)
    profile = taught(transformer, 200)
    fixed, marginal = profile.fixed_and_marginal(256.0, 4)
    assert fixed + marginal == pytest.approx(profile.predict_alone(256.0, 4))
    assert fixed == pytest.approx(1.0, abs=0.7)
