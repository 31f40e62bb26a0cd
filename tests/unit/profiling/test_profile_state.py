"""A profile as data: round trip, merging, and states that are refused."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triton_router.profiling.figures import Figure, Source
from triton_router.profiling.load_law import Load
from triton_router.profiling.profile import TargetProfile

SHAPES = [(batch, length) for batch in (1, 2, 4, 8) for length in (16, 32, 64, 128, 200)]
GRID = [(float(r * n), 100.0 * k, r, k) for r in (1, 4, 8) for n in (16, 128) for k in (0, 2)]


Answer = tuple[float, float, float, float, int]


def answers(count: int, seed: int) -> list[Answer]:
    rng = random.Random(seed)
    drawn: list[Answer] = []
    for _ in range(count):
        rows, length = rng.choice(SHAPES)
        work, company = float(rows * length), rng.choice([0, 0, 1, 3])
        latency = (1 + 0.2 * rows + 0.03 * work) * (1 + 0.8 * company) * rng.lognormvariate(0, 0.05)
        drawn.append((latency, work, 3.0 * company, rows, company))
    return drawn


def teach(profile: TargetProfile, stream: list[Answer]) -> TargetProfile:
    for latency, work, ahead, rows, company in stream:
        expected = profile.predict_latency(work, rows, Load(ahead, company))
        profile.record_latency(latency, work, expected, alone=not company, rows=rows, load=Load(ahead, company))
    return profile


def predictions(profile: TargetProfile) -> list[float]:
    return [profile.predict_latency(work, rows, Load(ahead, company)) for work, ahead, rows, company in GRID]


def read_back(profile: TargetProfile) -> TargetProfile:
    return TargetProfile.from_state(json.loads(json.dumps(profile.state())))


def rich() -> TargetProfile:
    profile = teach(TargetProfile(power_w=Figure(30.0, Source.ESTIMATED)), answers(300, 1))
    teach(profile, [(3 * latency, *rest) for latency, *rest in answers(20, 2)])  # type: ignore[misc]
    profile.record_failure()
    profile.record_memory(512.0)
    return profile


def test_json_brings_back_the_same_profile() -> None:
    """What is read back predicts, judges and counts as what was written, and learns on in the same way."""
    profile = rich()
    again = read_back(profile)
    assert predictions(again) == pytest.approx(predictions(profile), rel=1e-5)
    assert again.latency_quantile(5.0, 0.9) == pytest.approx(profile.latency_quantile(5.0, 0.9), rel=1e-5)
    assert again.summary() == profile.summary()
    for name in ("confidence", "error_rate", "drifts", "last_drift", "power_w", "memory_mb", "observations"):
        assert getattr(again, name) == getattr(profile, name)
    assert profile.drifts == 1
    more = answers(50, 3)
    assert predictions(teach(again, more)) == pytest.approx(predictions(teach(profile, more)), rel=1e-2)


@pytest.mark.parametrize("loaded", [True, False])
def test_many_changes_leave_a_state_that_reads_back(loaded: bool) -> None:
    """A shape, or a load, that is not seen during four hundred changes of the target can still be written and read."""
    rng = random.Random(3)
    profile = teach(TargetProfile(), answers(100, 5)) if loaded else TargetProfile()
    for _ in range(20):
        profile.record_latency(30.0 * rng.lognormvariate(0, 0.05), 4096.0, 0.0, alone=True, rows=32)
    for change in range(400):
        for _ in range(12):
            slow = 3.0 ** (change % 2)
            expected = profile.predict_latency(16.0)
            profile.record_latency(slow * 2.0 * rng.lognormvariate(0, 0.02), 16.0, expected, alone=True)
    assert profile.drifts > 330
    assert read_back(profile).predict_latency(16.0) == pytest.approx(profile.predict_latency(16.0), rel=1e-4)


def test_a_shape_that_nobody_asks_any_more_is_not_scaled_for_ever() -> None:
    """A target that slows down by and by and is restarted is found to be faster each time, and never slower."""
    rng = random.Random(4)
    profile = TargetProfile()
    for _ in range(20):
        profile.record_latency(30.0, 4096.0, 0.0, alone=True, rows=32)
    for _ in range(40):
        for step in range(700):
            slow = 3.0 ** (max(0, step - 20) / 680.0)
            expected = profile.predict_latency(16.0)
            profile.record_latency(slow * 2.0 * rng.lognormvariate(0, 0.02), 16.0, expected, alone=True)
    assert profile.drifts > 30
    read_back(profile)


def without_step(fit: dict[str, Any]) -> dict[str, Any]:
    """Return a fit as it was written when there were four coefficients."""
    information = [value for at, value in enumerate(fit["information"]) if at not in (4, 8, 11, 13, 14)]
    return {"beta": fit["beta"][:4], "gradient": fit["gradient"][:4], "information": information}


def test_what_was_learned_before_there_was_a_step_is_kept() -> None:
    """A snapshot of an older router reads back, predicts what it did, and learns a step from then on."""
    profile = TargetProfile()
    for at in range(80):
        work = float(16 << at % 3)
        profile.record_latency(1.0 + 0.03 * work, work, profile.predict_latency(work), alone=True)
    state = json.loads(json.dumps(profile.state()))
    for law in ("shape", "load"):
        state["model"][law]["fit"] = without_step(state["model"][law]["fit"])
    older = TargetProfile.from_state(state)
    assert predictions(older) == pytest.approx(predictions(profile), rel=1e-6)
    for at in range(60):
        rows = 2 + at % 3
        older.record_latency(11.0 + 0.03 * 16 * rows, 16.0 * rows, 0.0, alone=True, rows=rows)
    assert older.predict_latency(16.0) == pytest.approx(1.48, rel=0.1)
    assert older.predict_latency(128.0, 8) == pytest.approx(14.84, rel=0.1)


def test_a_profile_that_remembers_the_most_there_is_reads_back() -> None:
    """``profile_history_size`` may be 10,000: what such a router keeps is no corrupt state at its next start."""
    profile = TargetProfile()
    profile.remember(10_000)
    teach(profile, answers(1_500, 6))
    assert len(profile.state()["residuals"]) > 1_000  # type: ignore[arg-type]
    assert predictions(read_back(profile)) == pytest.approx(predictions(profile), rel=1e-5)


def test_four_profiles_fit_into_fifty_kilobytes_of_json() -> None:
    """A thousand answers of twenty shapes under load leave less than a quarter of that."""
    assert len(json.dumps(teach(TargetProfile(), answers(1000, 4)).state())) < 12_500


def test_two_that_saw_half_predict_as_one_that_saw_all() -> None:
    """Merged, two instances that each saw every other answer predict within 6% of one that saw them all."""
    stream = answers(400, 5)
    everything = teach(TargetProfile(), stream)
    merged = teach(TargetProfile(), stream[::2])
    merged.merge(teach(TargetProfile(), stream[1::2]))
    assert predictions(merged) == pytest.approx(predictions(everything), rel=0.06)
    assert merged.observations == everything.observations
    assert merged.summary().p50_ms == everything.summary().p50_ms
    assert merged.latency_quantile(5.0, 0.9) == pytest.approx(everything.latency_quantile(5.0, 0.9), rel=0.05)


def test_merging_commutes() -> None:
    """It does not matter which instance takes in the other."""
    one, other = answers(150, 6), answers(40, 7)
    a = teach(TargetProfile(), one)
    a.merge(teach(TargetProfile(), other))
    b = teach(TargetProfile(), other)
    b.merge(teach(TargetProfile(), one))
    assert predictions(a) == pytest.approx(predictions(b), rel=1e-4)
    assert a.latency_quantile(5.0, 0.9) == pytest.approx(b.latency_quantile(5.0, 0.9))
    assert a.confidence == pytest.approx(b.confidence)


def test_merging_with_a_fresh_one_changes_nothing() -> None:
    """Nothing learned is the neutral element, on either side."""
    profile = rich()
    grown = TargetProfile()
    grown.merge(profile)
    kept = read_back(profile)
    kept.merge(TargetProfile())
    for merged in (grown, kept):
        assert predictions(merged) == pytest.approx(predictions(profile), rel=1e-5)
        assert merged.confidence == pytest.approx(profile.confidence)
        assert merged.error_rate == pytest.approx(profile.error_rate)
        assert merged.power_w == profile.power_w
        assert merged.memory_mb == profile.memory_mb


def leaves(state: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every place in a state, those that hold others included."""
    items: list[tuple[Any, Any]] = []
    if isinstance(state, dict):
        items = list(state.items())
    elif isinstance(state, list):
        items = list(enumerate(state))
    return [path, *(place for key, value in items for place in leaves(value, (*path, key)))]


STATE = rich().state()
PLACES = leaves(json.loads(json.dumps(STATE)))
HOSTILE = st.sampled_from(
    [
        None,
        True,
        "x",
        "1",
        [],
        {},
        [[1]],
        float("nan"),
        float("inf"),
        -float("inf"),
        -1.0,
        -(10**400),
        10**400,
        1e300,
        0,
    ]
)


def accepted(state: object) -> TargetProfile | None:
    try:
        return TargetProfile.from_state(state)
    except ValueError:
        return None


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PLACES), HOSTILE)
def test_a_broken_state_is_refused_or_harmless(place: tuple[str | int, ...], poison: object) -> None:
    """Whatever stands anywhere in a state, it is refused as a ValueError, or predicts and learns soundly."""
    state: Any = json.loads(json.dumps(STATE))
    if place:
        holder = state
        for key in place[:-1]:
            holder = holder[key]
        holder[place[-1]] = copy.deepcopy(poison)
    else:
        state = poison
    profile = accepted(state)
    if profile is None:
        return
    for _ in range(2):
        assert all(0.0 < value < 1e13 for value in predictions(profile))
        teach(profile, answers(20, 8))
    assert 0.0 <= profile.confidence <= 1.0


def test_a_refusal_names_the_place() -> None:
    """The message says which value is wrong and what it should be."""
    state: Any = json.loads(json.dumps(STATE))
    state["error_rate"] = 7.0
    with pytest.raises(ValueError, match=r"profile\.error_rate is 7\.0, not within 0 to 1"):
        TargetProfile.from_state(state)
    del state["counts"]["live"]
    state["error_rate"] = 0.1
    with pytest.raises(ValueError, match=r"profile\.counts lacks 'live'"):
        TargetProfile.from_state(state)
