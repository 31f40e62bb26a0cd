"""Tallies of arms, strata and clumps: they count what counts, add up, and refuse states that nothing has."""

from __future__ import annotations

import json
import random
from math import inf, log, nan

import pytest

from triton_router.experiments.clumping import FEWEST, Clumping
from triton_router.experiments.strata import Strata
from triton_router.experiments.tally import CLIP, Tally, total
from triton_router.profiling.validation import State
from triton_router.routing.types import Verdict


def filled(seed: int, count: int = 100) -> Tally:
    rng = random.Random(seed)
    tally = Tally("r/canary")
    for _ in range(count):
        tally.note(rng.choice(list(Verdict)), rng.uniform(1.0, 9.0), rng.gauss(0.0, 3.0))
    return tally


def test_each_verdict_counts_where_it_belongs() -> None:
    """Answers are what the target gave or failed to; what clients did is neither."""
    tally = Tally()
    for verdict in (Verdict.SUCCESS, Verdict.TARGET_ERROR, Verdict.TARGET_ERROR):
        tally.note(verdict, 2.0, 0.5)
    tally.note(Verdict.CLIENT_ERROR, 1.0, 0.0)
    tally.note(Verdict.CANCELLED, 1.0, 0.0)
    assert (tally.answers, tally.failures, tally.refused, tally.cancelled) == (3, 2, 1, 1)
    assert tally.failure_share == pytest.approx(2 / 3)
    assert tally.latency_ms == pytest.approx(2.0)
    assert tally.ratio_moments == (1, 0.5, 0.25)


def test_a_tally_of_nothing_gives_no_figures() -> None:
    """No share and no latency, not 0."""
    report = Tally().report()
    assert report["failure_share"] is None
    assert report["latency_ms"] is None


@pytest.mark.parametrize(("ratio", "counted"), [(inf, CLIP), (-inf, -CLIP), (99.0, CLIP), (nan, None), (-3.5, -3.5)])
def test_log_ratios_are_clipped(ratio: float, counted: float | None) -> None:
    """One answer that took for ever is one slow answer; one without a yardstick is none."""
    tally = Tally()
    tally.note(Verdict.SUCCESS, 1.0, ratio)
    assert tally.ratio_moments == ((0, 0.0, 0.0) if counted is None else (1, counted, counted**2))
    assert tally.answers == 1


@pytest.mark.parametrize("latency", [0.0, -1.0, nan, inf])
def test_latencies_that_are_none_do_not_count(latency: float) -> None:
    """A clock that stood still, or an error upstream, leaves the sums finite and the answer counted."""
    tally = Tally()
    tally.note(Verdict.SUCCESS, latency, 0.0)
    assert (tally.answers, tally.timed, tally.latency_ms) == (1, 0, None)


def test_tallies_add_up_and_come_back() -> None:
    """The sum of two is that of all their requests; a state through JSON is the same tally."""
    one, other = filled(1), filled(2)
    both = total([one, other])
    assert both.answers == one.answers + other.answers
    assert both.ratio_moments == one.ratio_moments.plus(other.ratio_moments)
    assert Tally.from_state(json.loads(json.dumps(both.state()))).state() == both.state()


@pytest.mark.parametrize(
    "state",
    [
        None,
        [],
        [1] * 9,
        [1, 2, 0, 0, 0, 0.0, 0.0, 0, 0.0, 0.0],
        [1, 0, 0, 0, 2, 0.0, 0.0, 0, 0.0, 0.0],
        [9, 0, 0, 0, 1, 3.0, 1.0, 0, 0.0, 0.0],
        [9, 0, 0, 0, 1, 9.0, 81.0, 0, 0.0, 0.0],
        [9, 0, 0, 0, 1, nan, 1.0, 0, 0.0, 0.0],
        [-1, 0, 0, 0, 0, 0.0, 0.0, 0, 0.0, 0.0],
        [True, 0, 0, 0, 0, 0.0, 0.0, 0, 0.0, 0.0],
    ],
)
def test_tallies_that_nothing_counts_to_are_refused(state: object) -> None:
    """More failures than answers, a sum beyond its squares, a ratio beyond the clip: no arm has these."""
    with pytest.raises(ValueError, match="tally"):
        Tally.from_state(state)


def test_strata_are_bounded() -> None:
    """A thousand shares by hand keep the latest 36, and say how many are gone; full shares take nobody's place."""
    strata = Strata("r")
    for number in range(1000):
        strata.at(number / 1000.0, 0).canary.note(Verdict.SUCCESS, 1.0, 0.0)
    assert len(strata.all()) == 36
    assert strata.forgotten == 964
    assert strata.all()[-1].share == 0.999
    for epoch in range(100):
        strata.at(1.0, epoch)
    assert len(strata.all()) == 72
    assert [row.share for row in strata.plus([strata]).all()].count(1.0) == 36
    assert strata.at(0.999, 0).canary.label == "r/canary"


def test_a_caller_with_many_requests_does_not_make_failures_the_canarys() -> None:
    """At 1% of the callers and 40% of the requests, a failure is expected to be the canary's in 40% of all cases."""
    stratum = Strata("r").at(0.01, 0)
    assert stratum.exposure == 0.01
    for number in range(10_000):
        arm = stratum.canary if number % 5 < 2 else stratum.stable
        arm.note(Verdict.SUCCESS, 1.0, 0.0)
    assert stratum.exposure == pytest.approx(0.4, abs=0.01)


def test_strata_of_instances_add_up_in_the_order_of_time() -> None:
    """What two saw at the same share and time is one stratum."""
    one, other = Strata("r"), Strata("r")
    one.at(0.5, 1).canary.note(Verdict.SUCCESS, 1.0, 0.0)
    other.at(0.1, 0).canary.note(Verdict.SUCCESS, 1.0, 0.0)
    other.at(0.5, 1).stable.note(Verdict.SUCCESS, 1.0, 0.0)
    both = one.plus([other]).all()
    assert [(row.epoch, row.share, row.canary.answers, row.stable.answers) for row in both] == [
        (0, 0.1, 1, 0),
        (1, 0.5, 1, 1),
    ]


def clumped(correlation: float, seed: int) -> float:
    rng = random.Random(seed)
    clumping, common = Clumping(), 0.0
    for _ in range(400):
        common = correlation * common + (0.3 * rng.gauss(0.0, 1.0) if correlation else 0.0)
        canary = [common + rng.gauss(0.0, 0.3) for _ in range(20)]
        stable = [rng.gauss(0.0, 0.3) for _ in range(20)]
        clumping.note((20, sum(canary)), (20, sum(stable)))
    return clumping.ratio(0.09, 0.09)


def test_clumps_are_found_and_independence_is_left_alone() -> None:
    """Independent latencies vary as they should, within twice; ones that are slow for some looks, ten times as much."""
    assert all(1.0 <= clumped(0.0, seed) < 3.0 for seed in range(20))
    assert all(clumped(0.8, seed) > 10.0 for seed in range(20))


def test_clumping_is_unknown_at_first() -> None:
    """Before there are enough batches the ratio is infinite: nothing may be concluded."""
    clumping = Clumping()
    for _ in range(FEWEST - 1):
        clumping.note((1, 0.1), (1, 0.0))
        # One without both arms is not a batch.
        clumping.note((1, 0.1), (0, 0.0))
    assert clumping.ratio(0.01, 0.01) == inf
    clumping.note((1, 0.1), (1, 0.0))
    assert 1.0 <= clumping.ratio(0.01, 0.01) < inf


def test_another_share_is_no_clump() -> None:
    """Arms that differ otherwise at another share do not vary for that; what was known of clumps before stays."""
    ratios: list[float] = []
    for settles in (True, False):
        rng, clumping = random.Random(1), Clumping()
        for difference in (0.0, 1.0):
            for _ in range(200):
                clumping.note((20, sum(rng.gauss(difference, 0.3) for _ in range(20))), (20, rng.gauss(0.0, 1.3)))
            if settles:
                before = clumping.ratio(0.09, 0.09)
                clumping.settle()
                assert clumping.ratio(0.09, 0.09) == pytest.approx(before)
        ratios.append(clumping.ratio(0.09, 0.09))
    assert ratios[0] < 3.0
    assert ratios[1] > 100.0


def test_clumping_comes_back() -> None:
    """Through JSON the closed batches are the same; what no batches have is refused."""
    clumping = Clumping()
    for number in range(50):
        clumping.note((3, log(2.0 + number % 3)), (5, 0.1))
        if number == 20:
            clumping.settle()
    again = Clumping.from_state(json.loads(json.dumps(clumping.state())))
    assert again.ratio(0.1, 0.1) == clumping.ratio(0.1, 0.1)
    hostile = clumping.state()
    hostile[0][4] = 0.0
    with pytest.raises(ValueError, match="batches"):
        Clumping.from_state(hostile)


def test_strata_come_back() -> None:
    """Through JSON they are the same, but for strata that nothing happened in."""
    strata = Strata("r")
    strata.at(0.1, 0)
    strata.at(0.5, 1).canary.add(filled(3))
    again = Strata.from_state(State(json.loads(json.dumps(strata.state())), "strata"), "r")
    assert again.state() == strata.state()
    assert len(again.all()) == 1
