"""Quarantine: who goes, who returns, what is kept and what is told."""

from __future__ import annotations

import stat
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.unit.serving.compared_targets import TARGETS
from triton_router.config.parity_of import Pair
from triton_router.config.router_config import RouterConfig
from triton_router.parity.difference import Difference
from triton_router.serving.joint_marks import JointMarks
from triton_router.serving.parity_guard import ParityGuard
from triton_router.telemetry.kept_inputs import MOST_KEPT, KeptInputs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

INT8 = Pair("int8", "fp32")
INPUTS = {"X": np.array([[1.0, 3.0]], np.float32), "T": np.array([b"secret"], np.object_)}
STRICT = {"max_mismatch": 0.1, "false_alarms": 0.01}


class Places:
    """Where verdicts are kept, in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Any]] = {}
        self.peers: list[Mapping[str, dict[str, Any]]] = []
        self.error: OSError | None = None
        self.unclaimable: OSError | None = None
        self.claims = 0

    def claim(self) -> dict[str, dict[str, Any]]:
        if self.unclaimable:
            raise self.unclaimable
        self.claims += 1
        return self.kept

    def save(self, verdicts: Mapping[str, dict[str, Any]]) -> None:
        if self.error:
            raise self.error
        self.kept = dict(verdicts)

    def others(self) -> list[Mapping[str, dict[str, Any]]]:
        return self.peers

    def problems(self) -> list[str]:
        return []

    def close(self) -> None:
        pass


class Rollout:
    """A rollout that wants to know."""

    def __init__(self, *canary: str) -> None:
        self.canary = frozenset(canary)
        self.noted: list[bool] = []

    def note_parity(self, agrees: bool) -> None:
        self.noted.append(agrees)


class Rig:
    """A guard with a clock, whose thread does not run: a test looks instead."""

    def __init__(
        self,
        *,
        places: Places | None = None,
        gate: Rollout | None = None,
        inputs: KeptInputs | None = None,
        **parity: Any,
    ) -> None:
        self.now = 0.0
        self.lines: list[str] = []
        self.marks: dict[str, str] = {}
        self.guard = ParityGuard(
            self, self.lines.append, gate=gate, places=places, inputs=inputs, clock=lambda: self.now
        )
        self.every_s = inf
        self.guard._hurry = self._hurry
        self.follow(**parity)
        self.guard._take_over()

    def _hurry(self, every_s: float) -> None:
        self.every_s = every_s

    def mark(self, target: str, problem: str, now: float, valid_s: float) -> None:
        assert not problem or valid_s > 1.0, "a mark has to outlast the time until the next look"
        self.marks[target] = problem

    def follow(self, **parity: Any) -> None:
        """Guard by other settings."""
        settings = {"targets": TARGETS, "parity": {**STRICT, **parity}}
        self.guard.go_by(RouterConfig.model_validate(settings))

    def version(self, **changes: dict[str, Any]) -> None:
        """Guard targets that have become others, and look."""
        targets = [{**target, **changes.get(str(target["name"]), {})} for target in TARGETS]
        self.guard.go_by(RouterConfig.model_validate({"targets": targets, "parity": STRICT}))
        self.guard.look()

    def note(self, problem: str = "", pair: Pair = INT8, times: int = 1) -> None:
        """Tell it of comparisons."""
        for _ in range(times):
            self.guard.note(pair, Difference(relative=0.5 if problem else 0.001), problem, INPUTS)

    def target(self, name: str = "int8") -> dict[str, Any]:
        """Return its status."""
        targets: Any = self.guard.status()["targets"]
        return targets[name]


def test_who_diverges_is_quarantined_and_returns_when_its_answers_agree_again() -> None:
    """At once both ways, and only after as many answers in a row as its verdict demands."""
    rig = Rig()
    rig.note(times=3)
    assert rig.marks == {}
    rig.note("output 'Y' is wrong", times=8)
    assert "differ from those of 'fp32'" in rig.marks["int8"]
    assert rig.target()["quarantined"]
    needed = rig.target()["verdict"]["needed_to_return"]
    rig.note(times=needed - 1)
    assert rig.marks["int8"]
    rig.note()
    assert rig.marks["int8"] == ""
    assert not rig.target()["quarantined"]


def test_it_is_compared_more_often_while_somebody_wants_to_know() -> None:
    """While it is new, after a divergence until that was an exception, and while it is out; else the share will do."""
    rig = Rig(max_mismatch=0.1)
    rig.guard.look()
    assert rig.every_s < 1.0
    rig.note(times=10)
    rig.guard.look()
    assert rig.every_s == inf
    rig.note("wrong")
    assert rig.every_s < 1.0
    rig.note(times=20)
    rig.guard.look()
    assert rig.every_s == inf
    rig.note("wrong", times=20)
    assert rig.target()["quarantined"]
    rig.note(times=25)
    rig.guard.look()
    assert rig.every_s < 1.0


def test_the_mark_is_renewed_and_ends_with_the_guard() -> None:
    """It lasts a few seconds beyond each look."""
    rig = Rig()
    rig.note("wrong", times=5)
    rig.marks.clear()
    rig.guard.look()
    assert "fp32" in rig.marks["int8"]


def test_where_quarantine_is_off_a_divergence_is_reported_only() -> None:
    """The verdict is in the status; nobody is marked, and one that was is let go by the edit."""
    rig = Rig()
    rig.note("wrong", times=5)
    rig.follow(quarantine=False)
    rig.guard.look()
    assert rig.marks["int8"] == ""
    assert rig.target()["verdict"]["quarantined"]
    assert not rig.target()["quarantined"]
    assert "quarantined" not in _last_told(Rig(quarantine=False))


def _last_told(rig: Rig) -> str:
    rig.note("wrong", times=5)
    return rig.lines[-1]


def test_a_verdict_outlasts_the_process() -> None:
    """Another process begins with it, whatever the copies will say; of another target it says nothing."""
    places = Places()
    rig = Rig(places=places)
    rig.note("wrong", times=5)
    rig.guard._save()
    again = Rig(places=places)
    again.guard.look()
    assert again.marks["int8"]
    other = Rig(places=places)
    other.version(int8={"model": "another"})
    assert not other.marks.get("int8")


@pytest.mark.parametrize("pinned", [{"int8": {"version": 1}}, {"fp32": {"version": 1}}], ids=["judged", "reference"])
def test_to_write_down_the_version_that_is_served_brings_nobody_back(pinned: dict[str, dict[str, Any]]) -> None:
    """As a rollout does when it begins: by an edit, at a restart, and where others follow sooner or later."""
    places = Places()
    rig = Rig(places=places)
    rig.note("wrong", times=5)
    rig.version(**pinned)
    assert rig.marks["int8"]
    rig.guard._save()
    again = Rig(places=places)
    again.version()
    assert again.marks["int8"]
    unaware, theirs = Rig(places=Places()), Places()
    unaware.guard._places, theirs.peers = theirs, [places.kept]
    unaware.guard._hear()
    unaware.guard.look()
    assert unaware.marks["int8"]


def test_another_version_is_judged_anew() -> None:
    """Of the target or of its reference: neither is guilty of what the one before it answered."""
    for name in ("int8", "fp32"):
        rig = Rig()
        rig.version(**{name: {"version": 1}})
        rig.note("wrong", times=5)
        rig.version(**{name: {"version": 2}})
        assert rig.marks["int8"] == ""


def test_a_spoilt_verdict_is_told_and_begins_anew() -> None:
    """What somebody wrote into the file keeps nobody out and breaks nothing."""
    places = Places()
    places.kept = {"int8": {"identity": 3}}
    rig = Rig(places=places)
    rig.guard.look()
    assert rig.marks == {}
    assert "int8" in str(rig.guard.status()["problem"])
    assert any("int8" in line for line in rig.lines)
    rig.guard._save()
    assert rig.guard.status()["problem"] == "", "a sound one has taken its place"


def test_a_place_that_cannot_be_had_at_first_is_tried_again() -> None:
    """It is told once; when it can be had, what is kept there counts, and so does what was found meanwhile."""
    places, other = Places(), Rig(places=Places())
    for _ in range(5):
        other.guard.note(INT8, Difference(), "wrong", INPUTS)
    out = other.guard._verdicts.states()
    places.unclaimable = OSError(30, "Read-only file system")
    rig = Rig(places=places)
    places.kept = out
    rig.note()
    for _ in range(3):
        rig.guard._turn()
    assert sum("Read-only" in line for line in rig.lines) == 1
    assert "Read-only" in str(rig.guard.status()["problem"])
    assert (rig.marks, places.kept) == ({}, out)
    places.unclaimable = None
    for _ in range(3):
        rig.guard._turn()
    assert (rig.guard.status()["problem"], places.claims) == ("", 1)
    assert rig.marks["int8"]


def test_a_place_that_comes_back_takes_no_quarantine_back() -> None:
    """What was kept before knows less than who has seen the answers since."""
    places = Places()
    rig = Rig(places=Places())
    rig.note(times=3)
    places.kept = rig.guard._verdicts.states()
    places.unclaimable = OSError(30, "Read-only file system")
    rig = Rig(places=places)
    rig.note("wrong", times=8)
    places.unclaimable = None
    rig.guard._turn()
    assert rig.marks["int8"]
    assert places.kept["int8"]["quarantined"]


def test_a_disk_that_cannot_be_written_is_told_once() -> None:
    """And guarding goes on."""
    places = Places()
    places.error = OSError(28, "No space left on device")
    rig = Rig(places=places)
    for _ in range(3):
        rig.note("wrong")
        rig.now += 60
        rig.guard._save()
    assert sum("No space left" in line for line in rig.lines) == 1
    assert "No space left" in str(rig.guard.status()["problem"])


def test_what_other_instances_saw_counts() -> None:
    """An instance that compared nothing quarantines what another one found."""
    first, places = Rig(), Places()
    first.note("wrong", times=5)
    places.peers = [first.guard._verdicts.states()]
    second = Rig(places=places)
    second.guard._hear()
    second.guard.look()
    assert second.marks["int8"]


def test_a_canary_is_judged_by_its_gate_alone() -> None:
    """The rollout is told each comparison with stable; the guard, which allows something else, sends nobody out."""
    gate = Rollout("int8")
    rig = Rig(gate=gate)
    rig.note("wrong", times=5)
    rig.note()
    assert gate.noted == [False] * 5 + [True]
    assert rig.marks == {}
    rig.note(pair=Pair("next", "fp32"), times=20)
    rig.guard.look()
    assert rig.every_s < 1.0, "a bad canary is to be found in few requests"


def test_a_shadow_is_counted_and_never_quarantined() -> None:
    """It gets nothing that could be taken from it."""
    rig = Rig()
    rig.note("wrong", Pair("next", "fp32"), times=50)
    assert rig.marks == {}
    assert rig.target("next")["differed"] == 50
    assert rig.target("next")["verdict"] is None


def test_the_log_tells_how_the_inputs_look_and_never_what_they_say() -> None:
    """A few lines at once, then one a minute with the number of those that were not told; a quarantine always."""
    rig = Rig(max_mismatch=0.9, false_alarms=1e-9)
    rig.note("output 'Y' is wrong", times=20)
    assert len(rig.lines) == 3
    assert "'int8' answers differently from 'fp32': output 'Y' is wrong" in rig.lines[0]
    assert "X float32[1, 2] 1 to 3, mean 2; T BYTES[1] length 6 to 6" in rig.lines[0]
    assert "secret" not in "".join(rig.lines) + str(rig.guard.status())
    rig.now += 60
    rig.note("wrong")
    assert rig.lines[3].endswith("17 more since the last line")
    strict = Rig()
    strict.note("wrong", times=20)
    assert sum("and is quarantined" in line for line in strict.lines) == 1


def test_a_model_without_a_reference_says_so_once() -> None:
    """Where every variant is quantised nobody can be right; that is in the log and in the status."""
    rig = Rig()
    settings = RouterConfig.model_validate({"targets": [{**target, "variant": "int8"} for target in TARGETS]})
    rig.guard.go_by(settings)
    rig.guard.go_by(settings)
    assert sum("parity.reference" in line for line in rig.lines) == 1
    assert "parity.reference" in str(rig.guard.status()["why_off"])


def test_metrics_count_by_what_was_found() -> None:
    """Each comparison once, the quarantine, and the largest difference seen."""
    rig = Rig()
    rig.note(times=2)
    rig.note("wrong", times=5)
    rig.guard.note_failed(INT8)
    assert rig.guard.counts() == {
        "int8": {
            "triton_router_comparisons_total{result=agrees}": 2,
            "triton_router_comparisons_total{result=differs}": 5,
            "triton_router_comparisons_total{result=failed}": 1,
            "triton_router_quarantined": 1,
            "triton_router_largest_difference": 0.5,
        }
    }


def test_inputs_are_kept_where_that_is_wanted_alone(tmp_path: Path) -> None:
    """A bounded number of files for this user alone, which can be read without trust and give the inputs back."""
    rig = Rig(inputs=KeptInputs(tmp_path / "state", "m", "host"))
    rig.note("wrong", times=5)
    assert not (tmp_path / "state").exists()
    rig.follow(keep_inputs=True)
    for _ in range(MOST_KEPT + 3):
        rig.now += 60
        rig.note("wrong")
    files = sorted((tmp_path / "state").iterdir())
    assert len(files) == MOST_KEPT
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert str(files[0]) in "".join(rig.lines)
    with np.load(files[0], allow_pickle=False) as kept:
        np.testing.assert_array_equal(kept["X"], INPUTS["X"])
        assert kept["T:BYTES"].tobytes() == b"\x06\x00\x00\x00secret"
        assert list(kept["T:shape"]) == [1]


def test_inputs_are_kept_whatever_they_are_called(tmp_path: Path) -> None:
    """Also by the names that numpy's own functions have for other things; the guard goes on."""
    rig = Rig(inputs=KeptInputs(tmp_path / "state", "m", "host"), keep_inputs=True)
    rig.guard.note(INT8, Difference(), "wrong", {"file": INPUTS["X"], "compress_type": INPUTS["X"]})
    (file,) = (tmp_path / "state").iterdir()
    with np.load(file, allow_pickle=False) as kept:
        assert set(kept) == {"file", "compress_type"}


def test_inputs_that_cannot_be_kept_are_told(tmp_path: Path) -> None:
    """A full disk, or no state directory, costs the file and nothing else."""
    (tmp_path / "state").write_text("")
    for inputs, word in ((KeptInputs(tmp_path / "state", "m", "host"), "cannot be kept"), (None, "no state directory")):
        rig = Rig(inputs=inputs, keep_inputs=True)
        rig.note("wrong")
        assert word in rig.lines[0]


class Marks:
    """An engine that is told what all watchers found."""

    def __init__(self) -> None:
        self.now: tuple[str, float, bool] = ("", 0.0, True)

    def mark(self, target: str, problem: str, now: float, valid_s: float, *, takes_copies: bool) -> None:
        self.now = (problem, valid_s, takes_copies)


def test_one_watchers_finding_stands_whatever_another_says() -> None:
    """A target that is loaded may be quarantined, and one that is quarantined may be gone."""
    engine: Any = Marks()
    joint = JointMarks(engine)
    checks, guard = joint.of("checks"), joint.of("guard", takes_copies=True)
    guard.mark("t", "differs", 0.0, 5.0)
    checks.mark("t", "", 1.0, 5.0)
    assert engine.now == ("differs", 4.0, True)
    checks.mark("t", "gone", 2.0, 8.0)
    assert engine.now == ("differs; gone", 8.0, False)
    guard.mark("t", "", 3.0, 0.0)
    assert engine.now == ("gone", 7.0, False)
    checks.mark("t", "", 4.0, 5.0)
    assert engine.now[0] == ""


@pytest.mark.parametrize("valid_s", [1.0, 5.0])
def test_a_finding_that_nobody_renews_is_forgotten(valid_s: float) -> None:
    """Each has a time of its own, whatever another watcher says meanwhile."""
    engine: Any = Marks()
    joint = JointMarks(engine)
    joint.of("checks").mark("t", "gone", 0.0, valid_s)
    joint.of("guard").mark("t", "differs", valid_s, 3.0)
    assert engine.now[:2] == ("differs", 3.0)
