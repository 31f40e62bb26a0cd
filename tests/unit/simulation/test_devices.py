"""Simulated devices: who waits for whom, and for how long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triton_router.simulation.curves import Affine, Flat, Steps
from triton_router.simulation.devices import Device, QueueDevice, SharedDevice

KINDS = [QueueDevice, SharedDevice]
JOBS = st.lists(st.tuples(st.floats(0.0, 5.0), st.floats(0.01, 5.0)), min_size=1, max_size=25)


def ends(device: Device, jobs: list[tuple[float, float]]) -> dict[int, float]:
    """Submit jobs, each (time since the last, service time), and return when each ended."""
    found: dict[int, float] = {}
    now = 0.0
    for number, (gap, service) in enumerate(jobs):
        now += gap
        while device.next_end() <= now:
            at = device.next_end()
            found[device.end()] = at
        device.submit(number, service, now)
    while device.next_end() < float("inf"):
        at = device.next_end()
        found[device.end()] = at
    return found


def test_a_queue_serves_in_order_as_many_at_once_as_it_has_slots() -> None:
    """Three jobs of 2 s at once on two slots end after 2, 2 and 4 s."""
    assert ends(QueueDevice(2), [(0.0, 2.0)] * 3) == {0: 2.0, 1: 2.0, 2: 4.0}


def test_a_shared_device_slows_everybody_down_alike() -> None:
    """Jobs of 1 and 3 s at once on one slot end after 2 and 4 s; on two slots neither notices the other."""
    assert ends(SharedDevice(1), [(0.0, 1.0), (0.0, 3.0)]) == pytest.approx({0: 2.0, 1: 4.0})
    assert ends(SharedDevice(2), [(0.0, 1.0), (0.0, 3.0)]) == pytest.approx({0: 1.0, 1: 3.0})


@pytest.mark.parametrize("kind", KINDS)
@given(jobs=JOBS, slots=st.integers(1, 4))
def test_work_is_neither_lost_nor_invented(kind: type[Device], jobs: list[tuple[float, float]], slots: int) -> None:
    """Every job ends once, none before it could alone, and all of them before the last moment that one slot needs."""
    found = ends(kind(slots), jobs)  # pyright: ignore[reportCallIssue]
    assert sorted(found) == list(range(len(jobs)))
    now = 0.0
    for number, (gap, service) in enumerate(jobs):
        now += gap
        assert found[number] >= now + service - 1e-9
    assert max(found.values()) <= now + sum(service for _, service in jobs) + 1e-9


@pytest.mark.parametrize("kind", KINDS)
@given(jobs=JOBS, slots=st.integers(1, 4), service=st.floats(0.01, 5.0))
def test_what_is_expected_comes_true_when_nobody_else_comes(
    kind: type[Device], jobs: list[tuple[float, float]], slots: int, service: float
) -> None:
    """The oracle's expectation of a job's end is when it ends, if it is the last to come."""
    device = kind(slots)  # pyright: ignore[reportCallIssue]
    for number, (_, each) in enumerate(jobs):
        device.submit(number, each, 0.0)
    expected = device.expected_end(service, 0.0)
    device.submit(len(jobs), service, 0.0)
    found: dict[int, float] = {}
    while device.next_end() < float("inf"):
        at = device.next_end()
        found[device.end()] = at
    assert found[len(jobs)] == pytest.approx(expected)


def test_curves_have_the_shapes_that_they_are_named_for() -> None:
    """Affine rises evenly, flat rises beyond its knee, steps rise at each multiple."""
    affine = Affine(kind="affine", base_ms=1.0, per_work_ms=0.5, per_row_ms=2.0)
    flat = Flat(kind="flat", base_ms=3.0, knee=10.0, per_work_ms=1.0)
    steps = Steps(kind="steps", base_ms=1.0, step=10.0, per_step_ms=2.0)
    assert affine.latency_ms(4.0, 2.0) == 7.0
    assert [flat.latency_ms(work, 1.0) for work in (1.0, 10.0, 12.0)] == [3.0, 3.0, 5.0]
    assert [steps.latency_ms(work, 1.0) for work in (1.0, 10.0, 11.0)] == [3.0, 3.0, 5.0]
