"""Power, memory, energy, failures and the prior: every figure says where it comes from."""

from __future__ import annotations

from math import isfinite

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triton_router.profiling.figures import UNKNOWN_FIGURE, Figure, Source
from triton_router.profiling.load_law import Load
from triton_router.profiling.profile import TargetProfile
from triton_router.profiling.roofline import RooflinePrior

PRIOR = RooflinePrior(flops=2e9, parameter_bytes=1e8, peak_gflops=100.0, bandwidth_gb_s=10.0, overhead_ms=0.1)


def test_unknown_power_gives_unknown_energy() -> None:
    """Without a meter or a declaration nothing is claimed."""
    assert TargetProfile().power_w == UNKNOWN_FIGURE
    assert TargetProfile().energy_j(10.0) == UNKNOWN_FIGURE


def test_declared_power_stays_an_estimate_until_it_is_measured() -> None:
    """Energy is power times time, and as well known as the power; readings replace the declaration."""
    profile = TargetProfile(power_w=Figure(50.0, Source.ESTIMATED), memory_mb=Figure(100.0, Source.ESTIMATED))
    assert profile.energy_j(20.0) == Figure(1.0, Source.ESTIMATED)
    profile.record_power(30.0)
    profile.record_memory(250.0)
    profile.record_latency(1000.0, 1.0, 0.0, alone=True)
    assert profile.energy_j(1000.0) == Figure(30.0, Source.MEASURED)
    assert profile.memory_mb == Figure(250.0, Source.MEASURED)
    for _ in range(100):
        profile.record_power(40.0)
    assert profile.power_w.value == pytest.approx(40.0, rel=0.01)


@pytest.mark.parametrize("reading", [float("nan"), float("inf"), -1.0])
def test_readings_that_no_meter_gives_are_ignored(reading: float) -> None:
    """A broken sensor does not become a figure."""
    profile = TargetProfile()
    profile.record_power(reading)
    assert profile.power_w == UNKNOWN_FIGURE
    profile.record_power(20.0)
    profile.record_power(reading)
    assert profile.power_w == Figure(20.0, Source.MEASURED)


def test_the_error_rate_follows_recent_outcomes() -> None:
    """It is the share of failures, and old ones fade."""
    profile = TargetProfile()
    for _ in range(200):
        profile.record_failure()
        profile.record_latency(1.0, 1.0, 1.0, alone=True)
    assert profile.error_rate == pytest.approx(0.5, abs=0.1)
    for _ in range(200):
        profile.record_latency(1.0, 1.0, 1.0, alone=True)
    assert profile.error_rate < 0.01


def test_the_roofline_is_the_slower_of_computing_and_reading() -> None:
    """One sample is bound by the 10 ms of reading its parameters, eight by the 160 ms of computing."""
    assert PRIOR.latency_ms(1.0, 1.0) == pytest.approx(20.1)
    assert PRIOR.latency_ms(8.0, 8.0) == pytest.approx(160.1)
    assert PRIOR._replace(flops=1e8).latency_ms(1.0, 1.0) == pytest.approx(10.1)
    longer = PRIOR._replace(elements=16.0)
    assert longer.latency_ms(64.0, 1.0) == pytest.approx(80.1)


def test_a_prior_predicts_and_proves_nothing() -> None:
    """Before any measurement the prediction is the prior's, and the target is still unproven."""
    profile = TargetProfile(prior=PRIOR)
    assert not profile.is_proven
    assert profile.predict_latency(8.0, rows=8) == pytest.approx(160.1)
    assert profile.predict_latency(8.0, 8, Load(8.0, 1.0)) > 160.1
    assert profile.confidence == 0.0


def test_measurements_scale_the_prior_and_then_replace_it() -> None:
    """One answer of a quarter of the prior's latency quarters it for all sizes; later ones are believed instead."""
    profile = TargetProfile(prior=PRIOR)
    profile.record_latency(5.0, 1.0, 20.1, alone=True, rows=1)
    assert profile.is_proven
    assert profile.predict_latency(1.0, rows=1) == pytest.approx(5.0, rel=0.15)
    assert profile.predict_latency(32.0, rows=32) == pytest.approx(160.0, rel=0.3)
    for _ in range(15):
        for rows in (1, 8, 32):
            profile.record_latency(5.0 + 0.1 * rows, float(rows), 0.0, alone=True, rows=rows)
    for rows in (1, 8, 32):
        assert profile.predict_latency(float(rows), rows=rows) == pytest.approx(5.0 + 0.1 * rows, rel=0.05)


ANY = st.one_of(st.floats(), st.floats(0, 1e3), st.just(0.0), st.integers(0, 10**6).map(float))
LOAD = st.integers(0, 10**6).map(float)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(ANY, ANY, ANY, ANY, ANY, ANY, st.booleans()), max_size=30), ANY, ANY)
def test_no_input_breaks_a_prediction(
    history: list[tuple[float, float, float, float, float, float, bool]], work: float, rows: float
) -> None:
    """Whatever is recorded or asked, NaN and infinity included, predictions are finite and not negative."""
    profile = TargetProfile(prior=PRIOR)
    for latency, done, ahead, device, batch, company, alone in history:
        load = Load(ahead, company, device, ahead, company)
        expected = profile.predict_latency(done, batch, load)
        assert isfinite(expected)
        assert expected >= 0.0
        profile.record_latency(latency, done, expected, alone=alone, rows=batch, load=load)
    for value in (
        profile.predict_latency(work, rows, Load(work, rows, rows, work, rows)),
        profile.predict_alone(work, rows),
        *profile.fixed_and_marginal(work, rows),
        profile.latency_quantile(5.0, 0.9),
        profile.confidence,
    ):
        assert isfinite(value)
        assert value >= 0.0


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1e4), LOAD, LOAD, LOAD, st.integers(1, 64), st.integers(0, 9)), max_size=30),
    st.tuples(LOAD, LOAD, st.integers(0, 50)),
    st.tuples(LOAD, LOAD, st.integers(0, 50)),
    LOAD,
)
def test_more_load_never_lowers_a_prediction(
    history: list[tuple[float, float, float, float, int, int]],
    begin: tuple[float, float, int],
    more: tuple[float, float, int],
    work: float,
) -> None:
    """After any history, adding work ahead, on the device, or requests in flight never makes an answer come earlier."""
    profile = TargetProfile()
    for latency, done, ahead, device, rows, company in history:
        load = Load(ahead, company, device, company, 1.0)
        profile.record_latency(latency, done, 1.0, alone=not (ahead or device or company), rows=rows, load=load)
    ahead, device, company = begin
    less = profile.predict_latency(work, 1.0, Load(ahead, company, device, company, 1.0))
    company += more[2]
    worse = profile.predict_latency(work, 1.0, Load(ahead + more[0], company, device + more[1], company, 1.0 + more[2]))
    assert worse >= less * (1.0 - 1e-12)


def test_sixty_identical_requests_leave_a_sound_prediction() -> None:
    """Sixty answers of one shape, a singular system of equations, predict that shape and others."""
    profile = TargetProfile()
    for _ in range(60):
        profile.record_latency(5.0, 1.0, profile.predict_latency(1.0), alone=True)
    assert profile.predict_latency(1.0) == pytest.approx(5.0, rel=0.01)
    assert 4.9 < profile.predict_latency(8.0, rows=8) < 40.0


def test_figures_are_equal_or_different_and_never_neither() -> None:
    """The same number from another source is another figure; beside a plain number only the number counts."""
    measured, estimated = Figure(1.0, Source.MEASURED), Figure(1.0, Source.ESTIMATED)
    assert (measured == estimated, measured != estimated) == (False, True)
    assert (measured == Figure(1.0, Source.MEASURED), measured != Figure(1.0, Source.MEASURED)) == (True, False)
    assert (measured == 1.0, measured != 1.0, measured != 2.0) == (True, False, True)


def test_energy_is_no_better_known_than_the_time_it_takes() -> None:
    """Without a latency it is unknown, not zero; with one that only a prior tells it is an estimate."""
    profile = TargetProfile(prior=PRIOR, power_w=Figure(50.0, Source.MEASURED))
    assert profile.energy_j(0.0) == UNKNOWN_FIGURE
    assert profile.energy_j(profile.predict_alone(1.0)).source is Source.ESTIMATED
    profile.record_latency(20.0, 1.0, 0.0, alone=True)
    assert profile.energy_j(20.0) == Figure(1.0, Source.MEASURED)
