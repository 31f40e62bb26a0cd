"""The verdict on a target's answers: quarantined on evidence, back on evidence, nothing for ever."""

from __future__ import annotations

import json
import random

import pytest

from triton_router.experiments.parity_verdict import ParityVerdict


def told(mismatches: float, count: int, seed: int = 1, *, verdict: ParityVerdict | None = None) -> ParityVerdict:
    verdict = verdict or ParityVerdict(0.01, 0.001, "v1")
    rng = random.Random(seed)
    for _ in range(count):
        verdict.note(rng.random() >= mismatches)
    return verdict


def compared_until_quarantine(mismatches: float, seed: int) -> int:
    verdict, rng = ParityVerdict(0.01, 0.001), random.Random(seed)
    while not verdict.is_quarantined:
        verdict.note(rng.random() >= mismatches)
    return verdict.compared


def test_a_target_within_its_bound_stays() -> None:
    """Of 200 targets that diverge in half as many answers as they may, none is quarantined in 2,000 comparisons."""
    assert not any(told(0.005, 2000, seed).is_quarantined for seed in range(200))


def test_a_target_at_its_bound_is_hardly_ever_quarantined() -> None:
    """At the bound itself, less than 1% of 300 are: the declared share is 0.1%."""
    assert sum(told(0.01, 1000, seed).is_quarantined for seed in range(300)) < 3


@pytest.mark.parametrize(("mismatches", "most"), [(1.0, 5), (0.5, 20), (0.1, 200)])
def test_a_diverging_target_is_quarantined_soon(mismatches: float, most: int) -> None:
    """Within a few comparisons where all answers are wrong, some hundred where every tenth is."""
    counts = sorted(compared_until_quarantine(mismatches, seed) for seed in range(20))
    print(f"{mismatches:.0%} wrong: quarantined after a median of {counts[10]} comparisons, at most {counts[-1]}")
    assert counts[10] <= most


def test_a_target_that_was_right_for_long_is_quarantined_too() -> None:
    """Ten thousand agreeing comparisons do not outweigh that all are wrong from now on."""
    verdict = told(0.0, 10_000)
    told(1.0, 25, verdict=verdict)
    assert verdict.is_quarantined


def test_a_target_comes_back_after_enough_agreement() -> None:
    """299 in a row at a bound of 1%, not one fewer; a divergence begins the row anew; then all is counted anew."""
    verdict = told(1.0, 10)
    assert verdict.needed_to_return == 299
    told(0.0, 298, verdict=verdict)
    verdict.note(agrees=False)
    told(0.0, 298, verdict=verdict)
    assert verdict.is_quarantined
    assert "298 have" in str(verdict.report()["text"])
    verdict.note(agrees=True)
    assert not verdict.is_quarantined
    assert (verdict.compared, verdict.diverged) == (0, 0)
    assert verdict.report()["returns"] == 1


@pytest.mark.parametrize(("bound", "needed"), [(0.0, 1000), (0.01, 299), (0.5, 10), (1.0, 10)])
def test_the_way_back_is_neither_endless_nor_a_stroke_of_luck(bound: float, needed: int) -> None:
    """As many as show at 95% that mismatches are fewer than allowed; between ten and a thousand."""
    assert ParityVerdict(bound, 0.001).needed_to_return == needed


def test_another_target_is_judged_anew() -> None:
    """A new version is not guilty of the old one's answers."""
    stored = told(1.0, 10).state()
    assert ParityVerdict.from_state(0.01, 0.001, "v1", stored).is_quarantined
    assert not ParityVerdict.from_state(0.01, 0.001, "v2", stored).is_quarantined


def test_a_restart_changes_nothing() -> None:
    """In and out of quarantine, through JSON."""
    for verdict in (told(0.01, 700), told(1.0, 10)):
        again = ParityVerdict.from_state(0.01, 0.001, "v1", json.loads(json.dumps(verdict.state())))
        assert again.report() == verdict.report()


def test_instances_judge_together() -> None:
    """What no instance can tell alone they tell together, and they come back together."""
    verdicts = [ParityVerdict(0.01, 0.001, "v1") for _ in range(3)]
    for verdict in verdicts:
        verdict.note(agrees=False)
        assert not verdict.is_quarantined
    for verdict in verdicts:
        verdict.hear([one.evidence() for one in verdicts if one is not verdict])
        assert verdict.is_quarantined
    for verdict in verdicts:
        told(0.0, 100, verdict=verdict)
    verdicts[0].hear([one.evidence() for one in verdicts[1:]])
    assert not verdicts[0].is_quarantined
    verdicts[1].hear([verdicts[0].evidence(), verdicts[2].evidence()])
    assert not verdicts[1].is_quarantined
    verdicts[0].hear([verdicts[2].evidence()])
    assert not verdicts[0].is_quarantined


@pytest.mark.parametrize(
    "peer", [None, [], {"identity": "v1"}, {"identity": "v1", "returns": 0, "agreeing": 0, "runs": [[9, 1]]}]
)
def test_evidence_that_is_none_is_left_out(peer: object) -> None:
    """Whatever another instance sends, it quarantines nobody unless it is sound."""
    verdict = told(0.0, 5)
    before = verdict.report()
    verdict.hear([peer])
    assert verdict.report() == before
    with pytest.raises(ValueError, match=r"parity|comparisons"):
        ParityVerdict.from_state(0.01, 0.001, "v1", peer)


def test_memory_is_bounded() -> None:
    """A state has a hundred runs of comparisons, however many were made."""
    verdict = told(0.005, 40_000)
    runs = verdict.evidence()["runs"]
    assert isinstance(runs, list)
    assert len(runs) == 100
    assert verdict.compared == 40_000


def test_who_never_diverged_elsewhere_excuses_nobody_here() -> None:
    """What another instance saw agree before the fault, one that has ended included, ends no quarantine."""
    ended = told(0.0, 400)
    verdict = told(1.0, 20)
    verdict.hear([ended.state()])
    assert verdict.is_quarantined
    told(0.0, 298, verdict=verdict)
    verdict.hear([ended.state()])
    assert verdict.is_quarantined
