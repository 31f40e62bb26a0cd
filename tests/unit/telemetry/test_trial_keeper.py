"""Rollouts and experiments survive restarts, full disks and corrupt files, and are shared between instances."""

from __future__ import annotations

import json
import os
import stat
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from triton_router.experiments.gate import Gate
from triton_router.experiments.rollout_plan import RolloutPlan, Transition
from triton_router.experiments.split import Split
from triton_router.experiments.splitting_engine import SplittingEngine, Trials
from triton_router.profiling.profile import TargetProfile
from triton_router.routing.policies import policy_named
from triton_router.routing.rules import RoutingRules
from triton_router.routing.types import Outcome, RoutingContext, Target, Verdict
from triton_router.telemetry.audit_log import LONGEST_LINE, AuditLog, read_audit_log
from triton_router.telemetry.rollout_metrics import EXPERIMENT_FAMILIES, ROLLOUT_FAMILIES, TrialCounts
from triton_router.telemetry.trial_files import TrialFiles, audit_log_of
from triton_router.telemetry.trial_keeper import TrialKeeper

if TYPE_CHECKING:
    from pathlib import Path

SUCCESS = Outcome(Verdict.SUCCESS, 4.0)
FAILURE = Outcome(Verdict.TARGET_ERROR, 4.0)
PLAN = RolloutPlan(
    "v2", frozenset({"new"}), steps=(0.5, 1.0), hold_s=10.0, by="ada", gate=Gate(min_requests=5, max_mismatch=1.0)
)
LAST = PLAN.shares[-1]
SPLIT = Split("policies", policy_named("latency"), policy_named("cost"), 0.5)


class Clock:
    """A wall clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Instance:
    """An engine and its keeper, with what it said."""

    def __init__(self, place: Path | None, trials: Trials, clock: Clock) -> None:
        targets = [(Target(name, name), TargetProfile([(1, ms), (100, ms)])) for name, ms in (("old", 4), ("new", 1))]
        rules = RoutingRules(explore=0.0, mirror=0.0)
        self.routing = policy_named("latency"), rules
        self.engine = SplittingEngine(targets, self.routing, trials, "m", rng=lambda: 0.5)
        self.told: list[str] = []
        self.warned: list[str] = []
        self.keeper = TrialKeeper(
            self.engine, place, ("m", "host"), tell=self.told.append, warn=self.warned.append, clock=clock
        )
        self.keeper.begin()

    def serve(self, count: int, new: Outcome = SUCCESS, *, step: int = 0) -> None:
        """Have so many requests decided and answered; at the canary as given, other callers at each step."""
        for number in range(count):
            decision = self.engine.decide(RoutingContext(1, 10, key=str(1000 * step + number)), step)
            self.engine.finish(decision, new if decision.target.name == "new" else SUCCESS, step)

    def rollout(self) -> dict[str, Any]:
        """Return how the rollout stands."""
        report = self.keeper.rollout()
        assert report is not None
        return report

    def answers(self) -> int:
        """Return how many answers the experiment has."""
        report: Any = self.keeper.experiment()
        return sum(arm["answers"] for arm in report["arms"].values())

    def follow(self, trials: Trials) -> None:
        """Go on with other trials."""
        with self.keeper.following(trials):
            self.engine.reconfigure(*self.routing)

    def kill(self) -> None:
        """End as a killed process does: nothing is written, and its locks are free."""
        os.close(self.keeper._files._lock)  # type: ignore[union-attr]
        self.keeper._files._lock = -1  # type: ignore[union-attr]
        self.keeper._log.close()  # type: ignore[union-attr]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "state"


def events(place: Path) -> list[tuple[str, str, float]]:
    return [(entry["event"], entry["by"], entry["after"]) for entry in read_audit_log(audit_log_of(place, "m"))]


def test_a_rollout_goes_on_where_a_killed_process_was(place: Path, clock: Clock) -> None:
    """Share, evidence and phase are those of before; the audit log has each change once."""
    first = Instance(place, Trials(plan=PLAN), clock)
    first.serve(40)
    clock.now += 11.0
    first.keeper.look()
    assert first.rollout()["share"] == LAST
    first.kill()
    second = Instance(place, Trials(plan=PLAN), clock)
    assert (second.rollout()["share"], second.rollout()["since"]) == (LAST, 1011.0)
    assert second.rollout()["arms"] == first.rollout()["arms"]
    second.keeper.close()
    assert events(place) == [("begin", "ada", 0.5), ("step", "gate", LAST)]


def test_a_rollback_outlives_everything_but_another_id(place: Path, clock: Clock) -> None:
    """Neither a restart, nor other steps, nor leaving the rollout out for a while brings the canary back."""
    first = Instance(place, Trials(plan=PLAN), clock)
    for step in range(20):
        clock.now += 1.0
        for number in range(20):
            decision = first.engine.decide(RoutingContext(1, 10, key=f"{step} {number}"), step)
            first.engine.finish(decision, FAILURE if decision.target.name == "new" else SUCCESS, step)
        first.keeper.look()
    assert first.rollout()["phase"] == "rolled_back"
    assert any("rollback by gate" in line for line in first.warned)
    first.kill()
    second = Instance(place, Trials(plan=replace(PLAN, steps=(0.2, 1.0))), clock)
    assert second.rollout()["phase"] == "rolled_back"
    second.follow(Trials())
    assert second.keeper.rollout() is None
    second.follow(Trials(plan=PLAN))
    assert second.rollout()["phase"] == "rolled_back"
    second.follow(Trials(plan=replace(PLAN, id="v3")))
    assert second.rollout()["phase"] == "running"
    second.keeper.close()
    assert [event for event, _, _ in events(place)] == ["begin", "rollback", "remove", "begin"]


def test_a_rollout_that_is_taken_out_leaves_a_line(place: Path, clock: Clock) -> None:
    """Of its id, once, with the share and the figures that it ended with; the metrics count it."""
    one, other = (Instance(place, Trials(plan=PLAN), clock) for _ in range(2))
    one.serve(20)
    clock.now += 11.0
    for instance in (one, other):
        instance.keeper.look()
    counts = TrialCounts(one.engine, one.keeper)
    assert counts.of_rollout()
    for _ in range(2):
        for instance in (one, other):
            instance.follow(Trials(SPLIT))
    entry = read_audit_log(audit_log_of(place, "m"))[-1]
    assert events(place)[1:] == [("step", "gate", LAST), ("remove", "configuration", LAST)]
    assert (entry["rollout"], entry["before"], entry["at"]) == ("v2", LAST, clock.now)
    assert entry["figures"]["arms"]["canary"]["answers"] > 0
    removals = "triton_router_rollout_transitions_total{event=remove}"
    assert counts.of_rollout()[""][removals] == 1.0
    assert removals in {family.key for family in ROLLOUT_FAMILIES}
    assert any("rollout v2: remove by configuration" in line for line in one.told)
    one.follow(Trials(plan=PLAN))
    assert (events(place)[3:], one.rollout()["share"]) == ([], LAST)


def test_instances_share_their_evidence_and_one_writes_the_audit_log(place: Path, clock: Clock) -> None:
    """What one sees counts for the other; the log has each change once, and the next writes it when one has ended."""
    one, other = (Instance(place, Trials(plan=PLAN), clock) for _ in range(2))
    assert (one.keeper.status()["writes_audit_log"], other.keeper.status()["writes_audit_log"]) == (True, False)
    one.serve(20)
    clock.now += 6.0
    one.keeper.look()
    other.keeper.look()
    assert other.rollout()["arms"] == one.rollout()["arms"]
    clock.now += 6.0
    other.keeper.look()
    one.keeper.look()
    assert (one.rollout()["share"], other.rollout()["share"]) == (LAST, LAST)
    one.kill()
    other.serve(300)
    clock.now += 11.0
    other.keeper.look()
    assert other.rollout()["phase"] == "promoted"
    other.keeper.close()
    assert [event for event, _, _ in events(place)] == ["begin", "step", "promote"]


def test_a_killed_instances_evidence_counts_on(place: Path, clock: Clock) -> None:
    """The next one takes its file over, and nothing is counted twice."""
    first = Instance(place, Trials(SPLIT), clock)
    first.serve(30)
    first.keeper.close()
    second, third = (Instance(place, Trials(SPLIT), clock) for _ in range(2))
    third.serve(10)
    clock.now += 6.0
    third.keeper.look()
    second.keeper.look()
    assert (second.answers(), third.answers()) == (40, 40)


def test_an_experiment_that_pauses_keeps_its_evidence(place: Path, clock: Clock) -> None:
    """Taken out and put back in with the same policies it goes on; with another one it begins anew."""
    instance = Instance(place, Trials(SPLIT), clock)
    instance.serve(30)
    instance.follow(Trials())
    assert instance.keeper.experiment() is None
    instance.follow(Trials(SPLIT))
    assert instance.answers() == 30
    instance.follow(Trials(replace(SPLIT, treatment=policy_named("power"))))
    assert instance.answers() == 0


def test_nothing_is_kept_without_a_place(clock: Clock) -> None:
    """That is said once, and the gate works all the same."""
    instance = Instance(None, Trials(plan=PLAN), clock)
    instance.serve(20)
    clock.now += 11.0
    instance.keeper.look()
    assert instance.rollout()["share"] == LAST
    assert len([line for line in instance.warned if "kept in memory only" in line]) == 1
    assert instance.keeper.transitions == {"begin": 1, "step": 1}
    instance.keeper.close()
    assert not Instance(None, Trials(), clock).warned


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b'{"format": "x"}', b'{"a": NaN}'])
def test_a_corrupt_file_is_set_aside_and_the_one_before_taken(place: Path, clock: Clock, content: bytes) -> None:
    """The rollback in it is not lost; what happened is said and shown."""
    first = Instance(place, Trials(plan=replace(PLAN, outcome="abort")), clock)
    first.kill()
    (file,) = place.glob("*.trials")
    file.write_bytes(content)
    second = Instance(place, Trials(plan=PLAN), clock)
    assert second.rollout()["phase"] == "rolled_back"
    assert "set aside as" in second.keeper.status()["remarks"][0]
    assert len(list(place.glob("*.corrupt-1"))) == 1
    assert second.keeper.errors == 1


def test_a_state_of_something_else_begins_anew(place: Path, clock: Clock) -> None:
    """A file that is valid, and a state in it that is none, are told apart; the rollout goes on without it."""
    first = Instance(place, Trials(plan=PLAN), clock)
    first.keeper.close()
    (file,) = place.glob("*.trials")
    document = json.loads(file.read_text())
    document["rollouts"]["v2"]["share"] = 7
    file.write_text(json.dumps(document))
    second = Instance(place, Trials(plan=PLAN), clock)
    assert second.rollout()["share"] == 0.5
    assert "cannot be used" in second.keeper.status()["remarks"][0]


def test_a_place_that_cannot_be_written_disturbs_nothing(tmp_path: Path, clock: Clock) -> None:
    """It is said once, counted, and over when it can; meanwhile the gate goes on."""
    blocked = tmp_path / "state"
    blocked.write_text("a file where the directory should be")
    instance = Instance(blocked, Trials(plan=PLAN), clock)
    instance.serve(20)
    clock.now += 11.0
    instance.keeper.look()
    assert instance.rollout()["share"] == LAST
    assert "had in" in instance.keeper.status()["problem"]
    assert len([line for line in instance.warned if "had in" in line]) == 1
    blocked.unlink()
    clock.now += 11.0
    instance.keeper.look()
    assert instance.keeper.status()["problem"] == ""
    assert [event for event, _, _ in events(blocked)] == ["begin", "step"]


def test_files_are_for_their_owner_alone(place: Path, clock: Clock) -> None:
    """Whatever the umask is."""
    before = os.umask(0)
    try:
        with closing(Instance(place, Trials(plan=PLAN), clock).keeper):
            modes = {stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()}
    finally:
        os.umask(before)
    assert modes == {0o600}
    assert stat.S_IMODE(place.stat().st_mode) == 0o700


def test_models_and_their_files_are_not_mixed_up(place: Path) -> None:
    """Files of a model whose name begins alike are not read."""
    with closing(TrialFiles(place, "m", "host")) as one, closing(TrialFiles(place, "m-2", "host")) as other:
        assert one.claim() is None
        assert other.claim() is None
        assert len(list(place.glob("*.lock"))) == 2
        assert one.others() == []


def change(reason: str, figures: dict[str, object] | None = None) -> Transition:
    return Transition(1.0, "gate", "step", 0.1, 0.5, reason, figures or {})


def test_audit_lines_are_whole_and_bounded(tmp_path: Path) -> None:
    """Whatever stands in them: a long reason is cut, figures beyond all bounds are left out, a line break is none."""
    path = tmp_path / "audit"
    log = AuditLog(path, "m", "host")
    assert log.write("v2", [change("a\nb" * 9000), change("", {"x": ["y" * 100] * 1000}), change("", {"x": 1})])
    log.close()
    lines = path.read_bytes().splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) <= LONGEST_LINE
    assert [entry["figures"] for entry in read_audit_log(path)] == [{}, {}, {"x": 1}]
    assert [entry["event"] for entry in read_audit_log(path, last=1)] == ["step"]


def test_a_half_written_audit_line_is_cut_off(tmp_path: Path) -> None:
    """What a crash left of a line does not spoil the next one; a reader passes over it."""
    path = tmp_path / "audit"
    path.write_bytes(b'{"event": "begin"}\n{"event": "st')
    assert len(read_audit_log(path)) == 1
    log = AuditLog(path, "m", "host")
    assert log.write("v2", [change("")])
    log.close()
    assert [entry["event"] for entry in read_audit_log(path)] == ["begin", "step"]
    assert read_audit_log(tmp_path / "none") == []


def test_metrics_are_those_of_this_process(place: Path, clock: Clock) -> None:
    """Counts go on from rollout to rollout; there are none before the first, and afterwards gauges are 0."""
    instance = Instance(place, Trials(), clock)
    counts = TrialCounts(instance.engine, instance.keeper)
    assert (counts.of_rollout(), counts.of_experiment()) == ({}, {})
    instance.follow(Trials(SPLIT, PLAN))
    instance.serve(40)
    instance.keeper.look()
    shown = counts.of_rollout()[""]
    arms = [shown[f"triton_router_rollout_requests_total{{arm={arm}}}"] for arm in ("canary", "stable")]
    assert sum(arms) == 40
    assert (shown["triton_router_rollout_share"], shown["triton_router_rollout_phase"]) == (0.5, 1.0)
    assert shown["triton_router_rollout_transitions_total{event=begin}"] == 1.0
    assert shown["triton_router_rollout_latency_seconds{arm=canary}"] == pytest.approx(0.004)
    treated = counts.of_experiment()[""]
    assert (
        sum(treated[f"triton_router_experiment_requests_total{{arm={arm}}}"] for arm in ("control", "treatment")) == 40
    )
    assert treated["triton_router_experiment_p_value{figure=sample_ratio}"] > 0.01
    known = {family.key for family in (*ROLLOUT_FAMILIES, *EXPERIMENT_FAMILIES)}
    assert {key for key in (*shown, *treated) if "arm=" not in key} <= known
    instance.follow(Trials())
    assert "triton_router_rollout_share" not in counts.of_rollout()[""]
    assert counts.of_rollout()[""]["triton_router_rollout_requests_total{arm=canary}"] == arms[0]


def test_a_rollback_that_met_a_full_disk_is_written_as_soon_as_it_can_be(place: Path, clock: Clock) -> None:
    """Nothing else changes afterwards, and a process that is killed later must not bring the canary back."""
    first = Instance(place, Trials(plan=PLAN), clock)
    place.rename(place.with_name("aside"))
    place.write_text("a file where the directory should be")
    first.follow(Trials(plan=replace(PLAN, outcome="abort")))
    assert first.keeper.status()["problem"]
    place.unlink()
    place.with_name("aside").rename(place)
    clock.now += 1.0
    first.keeper.look()
    assert first.keeper.status()["problem"] == ""
    first.kill()
    assert Instance(place, Trials(plan=PLAN), clock).rollout()["phase"] == "rolled_back"


def test_a_place_that_comes_back_takes_no_rollback_back(place: Path, clock: Clock) -> None:
    """The file of before knows less than the gate that has rolled back meanwhile."""
    Instance(place, Trials(plan=PLAN), clock).keeper.close()
    place.rename(place.with_name("aside"))
    place.write_text("a file where the directory should be")
    second = Instance(place, Trials(plan=PLAN), clock)
    for step in range(20):
        second.serve(20, FAILURE, step=step)
        clock.now += 1.0
        second.keeper.look()
    assert second.rollout()["phase"] == "rolled_back"
    place.unlink()
    place.with_name("aside").rename(place)
    clock.now += 1.0
    second.keeper.look()
    assert (second.rollout()["phase"], second.keeper.status()["problem"]) == ("rolled_back", "")
    second.kill()
    assert Instance(place, Trials(plan=PLAN), clock).rollout()["phase"] == "rolled_back"


@pytest.mark.parametrize("trials", [Trials(), Trials(plan=replace(PLAN, outcome="abort"))], ids=["remove", "abort"])
def test_what_was_decided_is_told_whatever_happens_to_the_settings(place: Path, clock: Clock, trials: Trials) -> None:
    """The rollout has changed by then: its line stands once, and the end of it outlives the process."""
    instance = Instance(place, Trials(plan=PLAN), clock)
    with pytest.raises(KeyError), instance.keeper.following(trials):
        raise KeyError("a defect in what follows the other settings")
    instance.keeper.look()
    event = "abort" if trials.plan else "remove"
    assert [entry[0] for entry in events(place)] == ["begin", event]
    assert instance.keeper.transitions == {"begin": 1, event: 1}
    assert any(f"rollout v2: {event} by" in line for line in instance.told)
    instance.kill()
    phase = "rolled_back" if trials.plan else "running"
    assert Instance(place, Trials(plan=PLAN), clock).rollout()["phase"] == phase


@pytest.mark.parametrize("ends", [True, False], ids=["at its end", "at the next look"])
def test_the_last_line_of_a_rollout_that_met_a_full_disk_is_written(place: Path, clock: Clock, ends: bool) -> None:
    """No rollout follows it that would bring it along."""
    instance = Instance(place, Trials(plan=PLAN), clock)
    instance.keeper._log.close()  # type: ignore[union-attr] - the file is to be opened anew
    place.rename(place.with_name("aside"))
    place.write_text("a file where the directory should be")
    instance.follow(Trials())
    assert "rollouts.jsonl cannot be written" in instance.keeper.status()["problem"]
    place.unlink()
    place.with_name("aside").rename(place)
    if ends:
        instance.keeper.close()
    else:
        instance.keeper.look()
        assert instance.keeper.status()["problem"] == ""
    assert [entry[0] for entry in events(place)] == ["begin", "remove"]
