"""The latency fit: exact on affine data, robust, adaptive, cautious."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.unit.profiling.fit import Fit
from triton_router.profiling.shape_law import FLOOR_MS

if TYPE_CHECKING:
    from collections.abc import Sequence


def affine(work: float, ahead: Sequence[float] = (), elsewhere: Sequence[float] = ()) -> float:
    return 2.0 + 0.05 * work + 0.4 * sum(map(affine, ahead)) + 0.2 * sum(map(affine, elsewhere))


def test_nothing_is_predicted_before_the_first_observation() -> None:
    """Without evidence the prediction is 0.0, which means unknown."""
    assert Fit().predict(10.0) == 0.0


def test_noiseless_data_is_recovered() -> None:
    """On exactly affine data of work and load the fit predicts within 5%."""
    fit = Fit()
    rng = random.Random(1)
    for _ in range(200):
        work, ahead, device = rng.choice([64, 256]), rng.choice([(), (64,), (256,) * 4]), rng.choice([(), (32,)])
        fit.observe(affine(work, ahead, device), work, ahead, device)
    for work, ahead, device in ((64, (), ()), (256, (256,) * 2, (32,)), (128, (64,), ())):
        assert fit.predict(work, ahead, device) == pytest.approx(affine(work, ahead, device), rel=0.05)


def test_one_observation_is_not_extrapolated_to_absurdity() -> None:
    """From 5 ms at 1 element, 200 elements are not expected to take 200 times as long."""
    fit = Fit()
    fit.observe(5.0, 1.0)
    assert fit.predict(1.0) == pytest.approx(5.0, rel=0.05)
    assert fit.predict(200.0) < 20 * 5.0


@pytest.mark.parametrize("outlier", [0.001, 1000.0])
def test_an_outlier_hardly_moves_the_fit(outlier: float) -> None:
    """After a hundred regular observations, one a thousand times off changes predictions by less than 15%."""
    fit = Fit()
    rng = random.Random(2)
    for _ in range(100):
        work = rng.choice([16, 64, 256])
        fit.observe(affine(work) * rng.lognormvariate(0, 0.05), work)
    before = fit.predict(64)
    fit.observe(affine(64) * outlier, 64)
    assert fit.predict(64) == pytest.approx(before, rel=0.15)


def test_a_lasting_change_is_followed() -> None:
    """A target that becomes three times as slow for good is predicted within 20% after a hundred requests."""
    fit = Fit()
    rng = random.Random(3)
    for factor in (1.0, 3.0):
        for _ in range(100):
            work = rng.choice([16, 64, 256])
            fit.observe(factor * affine(work) * rng.lognormvariate(0, 0.05), work)
    assert fit.predict(64) == pytest.approx(3 * affine(64), rel=0.2)


def test_constant_work_for_a_long_time_does_not_wind_up() -> None:
    """Ten thousand identical requests leave a fit that still predicts and still learns another size."""
    fit = Fit()
    for _ in range(10_000):
        fit.observe(affine(16), 16)
    assert fit.predict(16) == pytest.approx(affine(16), rel=0.01)
    for _ in range(40):
        fit.observe(affine(256), 256)
    assert fit.predict(256) == pytest.approx(affine(256), rel=0.1)
    assert fit.predict(16) == pytest.approx(affine(16), rel=0.3)


def test_no_prediction_falls_below_the_floor() -> None:
    """Even immeasurably fast answers are expected to take the floor."""
    fit = Fit()
    for _ in range(10):
        fit.observe(0.0, 1.0)
    assert fit.predict(1.0) == pytest.approx(FLOOR_MS)
