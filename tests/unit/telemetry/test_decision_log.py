"""The decision log: whole lines, off the request's way, and never in the way of serving."""

from __future__ import annotations

import errno
import json
import os
import random
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from triton_router.config.router_config import DecisionLogConfig, RouterConfig
from triton_router.errors import InvalidInputError, NotFoundError
from triton_router.profiling.profile import TargetProfile
from triton_router.routing.engine import RoutingEngine
from triton_router.routing.policies import policy_named
from triton_router.routing.types import Outcome, RoutingContext, Target, Verdict
from triton_router.telemetry import decision_log
from triton_router.telemetry.decision_format import TargetEntry, start_line
from triton_router.telemetry.decision_log import DecisionLog, configured_log
from triton_router.telemetry.decision_reading import read_decision_log
from triton_router.telemetry.log_file import LogFile

if TYPE_CHECKING:
    from triton_router.routing.types import RoutingDecision

TARGETS = (TargetEntry(name="a"), TargetEntry(name="b", measured=((4.0, 2.0),), price_per_hour=0.5))


def engine() -> RoutingEngine:
    return RoutingEngine(
        [(Target("a", "m-a"), TargetProfile([(4, 1.0)])), (Target("b", "m-b"), TargetProfile([(4, 2.0)]))],
        policy_named("latency"),
        rng=random.Random(3).random,
        log_propensities=True,
    )


def decided(count: int) -> list[RoutingDecision]:
    return [engine().decide(RoutingContext(2, 8.0, max_latency_ms=50.0), float(i)) for i in range(count)]


def open_log(path: Path, said: list[str], *, sample: float = 1.0, max_mb: float = 1.0) -> DecisionLog:
    file = LogFile(path, start_line("m", "latency", TARGETS), int(max_mb * 1e6))
    return DecisionLog(file, "m", said.append, sample=sample)


def record(log: DecisionLog, decisions: list[RoutingDecision]) -> None:
    log.start()
    for number, decision in enumerate(decisions):
        log.observe(decision, Outcome(Verdict.SUCCESS, 1.5), float(number))
    log.close()


def lines_of(trace: Path) -> list[str]:
    return trace.read_text().splitlines()


def test_what_was_decided_is_read_back(tmp_path: Path) -> None:
    """A decision written and read again has its context, propensity, scores, verdict and latency."""
    said: list[str] = []
    log = open_log(tmp_path / "log", said)
    record(log, decided(3))
    trace = read_decision_log(tmp_path / "log")
    assert (trace.model, trace.policy, trace.targets, len(trace.records)) == ("m", "latency", TARGETS, 3)
    first = trace.records[0]
    assert (first.target, first.verdict, first.latency_ms, first.propensity) == ("a", Verdict.SUCCESS, 1.5, 1.0)
    assert (first.context().batch_size, first.context().work, first.context().max_latency_ms) == (2, 8.0, 50.0)
    assert [score.target for score in first.considered] == ["a", "b"]
    assert first.decided_at == pytest.approx(first.monotonic - 0.0015)
    assert said == []
    assert log.counts == (3, 0)


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    """The file's mode is 0600, even where it lay there with a wider one."""
    path = tmp_path / "log"
    path.write_text("")
    path.chmod(0o644)
    record(open_log(path, []), decided(1))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """A symbolic link at the log's place is refused: it could lead anywhere."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "log").symlink_to(victim)
    said: list[str] = []
    record(open_log(tmp_path / "log", said), decided(2))
    assert victim.read_text() == "precious"
    assert len(said) == 1


@pytest.mark.parametrize("place", ["/dev/full", "/dev/null"])
def test_a_device_is_no_log(place: str) -> None:
    """What is no regular file is refused, its mode untouched, and the records are counted as lost."""
    before = Path(place).stat().st_mode
    said: list[str] = []
    log = open_log(Path(place), said)
    record(log, decided(2))
    assert Path(place).stat().st_mode == before
    assert log.counts == (0, 2)
    assert len(said) == 1


def test_serving_goes_on_where_the_file_cannot_be_written(tmp_path: Path) -> None:
    """A directory that is missing is said once, however many records are lost; nothing is raised."""
    said: list[str] = []
    log = open_log(tmp_path / "missing" / "log", said)
    record(log, decided(1200))
    assert log.counts == (0, 1200)
    assert len(said) == 1
    assert "cannot be written" in said[0]
    assert log.report() == {
        "file": str(tmp_path / "missing" / "log"),
        "written": 0,
        "dropped": 1200,
        "problem": "cannot be written: No such file or directory",
    }


def test_a_short_outage_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written for a while waits, is written in its order, and both are said."""
    monkeypatch.setattr(decision_log, "_RETRY_S", 0.0)
    said: list[str] = []
    log = open_log(tmp_path / "later" / "log", said)
    decisions = decided(2)
    log.observe(decisions[0], Outcome(Verdict.SUCCESS, 1.0), 0.0)
    log.write()
    (tmp_path / "later").mkdir()
    record(log, decisions[1:])
    assert log.counts == (2, 0)
    decided_lines = [json.loads(line) for line in lines_of(tmp_path / "later" / "log")[1:]]
    assert [each["latency_ms"] for each in decided_lines] == [1.0, 1.5]
    assert ["cannot be written" in said[0], "is written again" in said[1]] == [True, True]
    assert log.report()["problem"] == ""


def test_a_long_outage_keeps_nothing_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is given up in the end, counted and said; the targets are described when it is written again."""
    monkeypatch.setattr(decision_log, "_RETRY_S", 0.0)
    monkeypatch.setattr(decision_log, "_KEEP_S", 0.0)
    said: list[str] = []
    log = open_log(tmp_path / "later" / "log", said)
    decisions = decided(3)
    log.observe(decisions[0], Outcome(Verdict.SUCCESS, 1.0), 0.0)
    log.write()
    log.observe(decisions[1], Outcome(Verdict.SUCCESS, 1.0), 0.0)
    log.write()
    assert log.counts == (0, 2)
    (tmp_path / "later").mkdir()
    record(log, decisions[2:])
    assert log.counts == (1, 2)
    assert "2 records are missing" in said[1]
    assert lines_of(tmp_path / "later" / "log")[0] + "\n" == start_line("m", "latency", TARGETS)


def test_a_reloaded_model_goes_on_where_the_one_before_it_ends(tmp_path: Path) -> None:
    """While the earlier instance still holds the file what the new one decides waits, and nothing is said of that."""
    said: list[str] = []
    before, after = open_log(tmp_path / "log", said), open_log(tmp_path / "log", said)
    decisions = decided(5)
    before.observe(decisions[0], Outcome(Verdict.SUCCESS, 1.0), 0.0)
    before.write()
    for decision in decisions[1:]:
        after.observe(decision, Outcome(Verdict.SUCCESS, 1.0), 1.0)
    after.write()
    assert after.counts == (0, 0)
    before.start()
    before.close()
    after.start()
    after.close()
    assert after.counts == (4, 0)
    assert said == []
    assert len(read_decision_log(tmp_path / "log").records) == 5


def test_a_file_that_another_model_writes_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that stays with somebody else is no reload: that is said in words, and why nothing is written."""
    monkeypatch.setattr(decision_log, "_RETRY_S", 0.0)
    holder = LogFile(tmp_path / "log", "head\n", 1000)
    holder.append("one\n")
    said: list[str] = []
    record(open_log(tmp_path / "log", said), decided(2))
    holder.close()
    assert len(said) == 1
    assert "another process writes it" in said[0]


def test_other_targets_are_described_before_they_are_chosen(tmp_path: Path) -> None:
    """After an edit of router.yaml the log says anew what there is to choose from, where that comes into force."""
    log = open_log(tmp_path / "log", [])
    decisions = decided(2)
    log.observe(decisions[0], Outcome(Verdict.SUCCESS, 1.0), 0.0)
    config = RouterConfig.model_validate(
        {"targets": [{"name": "a", "model": "m-a"}, {"name": "c", "model": "m-c", "price_per_hour": 2.0}]}
    )
    log.go_by(config)
    record(log, decisions[1:])
    kinds = [json.loads(line)["kind"] for line in lines_of(tmp_path / "log")]
    assert kinds == ["start", "decision", "start", "decision"]
    assert log.counts == (2, 0)
    targets = {target.name: target.price_per_hour for target in read_decision_log(tmp_path / "log").targets}
    assert targets == {"a": 0.0, "b": 0.5, "c": 2.0}


def test_a_file_that_is_continued_says_again_what_there_is(tmp_path: Path) -> None:
    """A restart goes on in the same file, perhaps with other targets, and describes them."""
    for _ in range(2):
        record(open_log(tmp_path / "log", []), decided(1))
    kinds = [json.loads(line)["kind"] for line in lines_of(tmp_path / "log")]
    assert kinds == ["start", "decision"] * 2


def test_a_full_queue_drops_the_newest_and_counts(tmp_path: Path) -> None:
    """What does not fit into the queue is dropped, counted and said; the rest is written."""
    said: list[str] = []
    log = open_log(tmp_path / "log", said, max_mb=100.0)
    decision = decided(1)[0]
    for _ in range(decision_log.QUEUE + 6):  # the line that describes the targets waits too
        log.observe(decision, Outcome(Verdict.SUCCESS, 1.0), 0.0)
    log.start()
    log.close()
    assert log.counts == (decision_log.QUEUE - 1, 7)
    assert "7 records were dropped" in said[0]


def test_rotation_keeps_one_file_of_whole_lines_before_it(tmp_path: Path) -> None:
    """Beyond its size a file is moved to .1, the one there before is gone, and each begins with the start line."""
    head = start_line("m", "latency", TARGETS)
    file = LogFile(tmp_path / "log", head, 400)
    for number in range(20):
        file.append(json.dumps({"number": number, "filling": "x" * 80}) + "\n")
    file.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1"]
    numbers: list[int] = []
    for name in ("log.1", "log"):
        lines = lines_of(tmp_path / name)
        assert lines[0] + "\n" == head
        numbers += [json.loads(line)["number"] for line in lines[1:]]
        assert (tmp_path / name).stat().st_size <= 400 + len(head)
    assert numbers == list(range(numbers[0], 20))


def test_a_line_that_a_crash_cut_off_is_completed_by_none(tmp_path: Path) -> None:
    """Appending to a file that ends in the middle of a line cuts that line off first."""
    path = tmp_path / "log"
    record(open_log(path, []), decided(2))
    with path.open("a") as stream:
        stream.write('{"schema": 1, "kind": "deci')
    record(open_log(path, []), decided(1))
    assert len(read_decision_log(path).records) == 3


def test_half_a_line_that_cannot_be_cut_off_at_once_is_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a write breaks off and the file cannot be cut either, what is written afterwards begins on a new line."""
    file = LogFile(tmp_path / "log", "head\n", 1000)
    file.append("one\n")

    def breaks_off(data: bytes) -> None:
        os.write(file._fd, data[:2])
        raise OSError(errno.EIO, "broken")

    def fails(_fd: int, _size: int) -> None:
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as patch:
        patch.setattr(file, "_write", breaks_off)
        patch.setattr(os, "ftruncate", fails)
        with pytest.raises(OSError, match="broken"):
            file.append("two\n")
    file.append("three\n")
    file.close()
    assert (tmp_path / "log").read_text() == "head\none\nthree\n"


def test_a_deleted_file_is_begun_again(tmp_path: Path) -> None:
    """When someone deletes or moves the file, the next lines go to a new one at its place."""
    file = LogFile(tmp_path / "log", "head\n", 10_000)
    file.append("one\n")
    (tmp_path / "log").rename(tmp_path / "moved")
    file.append("two\n")
    file.close()
    assert lines_of(tmp_path / "log") == ["head", "two"]
    assert lines_of(tmp_path / "moved") == ["head", "one"]


def test_two_writers_do_not_mix(tmp_path: Path) -> None:
    """A file that is being written is refused to a second writer, until the first lets it go."""
    first, second = LogFile(tmp_path / "log", "head\n", 100), LogFile(tmp_path / "log", "head\n", 100)
    first.append("one\n")
    with pytest.raises(OSError, match=r"[Rr]esource"):
        second.append("two\n")
    first.close()
    second.append("two\n")
    second.close()
    assert lines_of(tmp_path / "log") == ["head", "one", "two"]


def test_sampling_is_deterministic_and_even(tmp_path: Path) -> None:
    """A share of 0.25 writes a quarter, the same ones each time, whatever the period of the traffic."""
    kept: list[list[float]] = []
    for name in ("one", "two"):
        record(open_log(tmp_path / name, [], sample=0.25), decided(400))
        kept.append([item.monotonic for item in read_decision_log(tmp_path / name).records])
    assert kept[0] == kept[1]
    assert len(kept[0]) == pytest.approx(100, abs=2)
    for period in (2, 3, 4, 8):
        assert sum(number % period == 0 for number in kept[0]) == pytest.approx(100 / period, rel=0.3)


def good_line() -> str:
    return (
        '{"schema": 1, "kind": "decision", "time": 1.0, "monotonic": 1.0, "model": "m", "rows": 1, "work": 1.0, '
        '"policy": "latency", "reason": "policy", "target": "a", "propensity": 1.0, "verdict": "success", '
        '"latency_ms": 1.0}\n'
    )


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("not json\n", "2: is not JSON"),
        ("[1]\n", "2: is no JSON object"),
        ("[" * 50_000 + "\n", "2: is not JSON"),
        (good_line().replace('"schema": 1', '"schema": 2'), "2: was written with schema 2"),
        (good_line().replace('"schema": 1', '"schema": "1"'), "2: schema"),
        (good_line().replace('"decision"', '"surprise"'), "2: kind"),
        (good_line().replace('"latency_ms": 1.0', '"latency_ms": NaN'), "2: latency_ms"),
        (good_line().replace('"latency_ms": 1.0', '"latency_ms": -1'), "2: latency_ms"),
        (good_line().replace('"latency_ms": 1.0', '"latency_ms": 1e999'), "2: latency_ms"),
        (good_line().replace('"rows": 1', '"rows": "many"'), "2: rows"),
        (good_line().replace('"propensity": 1.0', '"propensity": 1.5'), "2: propensity"),
        (good_line().replace('"target": "a", ', ""), "2: target"),
        (good_line().replace('"model": "m"', '"model": "other"'), "2: is about model 'other'"),
        ("x" * (2 << 20) + "\n", "2: is longer"),
        ("\xff\xfe\n", "2: is not JSON"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    """Whatever is wrong with a line, the error says which one and what."""
    path = tmp_path / "log"
    path.write_bytes((good_line() + line + good_line()).encode("latin-1"))
    with pytest.raises(InvalidInputError, match=r".*") as caught:
        read_decision_log(path)
    assert f"{path}:{complaint}" in caught.value.message


def test_a_last_line_that_is_cut_off_is_left_out_and_said(tmp_path: Path) -> None:
    """A log that is still being written, or whose writer died, is read up to its last whole line."""
    path = tmp_path / "log"
    path.write_text(good_line() * 2 + good_line()[:50])
    trace = read_decision_log(path)
    assert len(trace.records) == 2
    assert "line 3, the last one, is cut off" in trace.notes[0]


def test_no_more_is_read_than_allowed(tmp_path: Path) -> None:
    """A gigantic log is read up to a limit, which is said."""
    path = tmp_path / "log"
    path.write_text(good_line() * 10)
    trace = read_decision_log(path, limit=4)
    assert len(trace.records) == 4
    assert any("first 4 decisions" in note for note in trace.notes)


@pytest.mark.parametrize("content", ["", "\n\n", '{"schema": 1, "kind": '])
def test_a_log_without_decisions_is_refused(tmp_path: Path, content: str) -> None:
    """There is nothing to read from an empty log."""
    path = tmp_path / "log"
    path.write_text(content)
    with pytest.raises(InvalidInputError, match="holds no decisions"):
        read_decision_log(path)
    with pytest.raises(NotFoundError):
        read_decision_log(tmp_path / "none")


def test_the_settings_name_the_file_and_the_targets(tmp_path: Path) -> None:
    """The log that router.yaml asks for begins with its targets; without the setting there is none."""
    targets: list[dict[str, object]] = [
        {"name": "a", "model": "m", "backend": "gpu", "measured_latency": [{"work": 4, "latency_ms": 1.5}]}
    ]
    targets[0] |= {"price_per_hour": 0.5, "power_w": 9.0}
    settings = {"targets": targets, "decision_log": {"path": str(tmp_path / "log"), "max_mb": 1.0}}
    log = configured_log(RouterConfig.model_validate(settings), "m", print)
    assert log is not None
    record(log, decided(1))
    (target, *_) = read_decision_log(tmp_path / "log").targets
    assert (target.name, target.backend, target.measured) == ("a", "gpu", ((4.0, 1.5),))
    assert (target.price_per_hour, target.power_w, target.power_source) == (0.5, 9.0, "estimated")
    assert configured_log(RouterConfig.model_validate({"targets": targets}), "m", print) is None


@pytest.mark.parametrize("settings", [{"path": "relative.jsonl"}, {"path": "/ends/in/"}, {"path": "/a", "sample": 0.0}])
def test_settings_without_sense_are_refused(settings: dict[str, object]) -> None:
    """A relative path, a directory and an empty sample are refused."""
    with pytest.raises(ValidationError):
        DecisionLogConfig.model_validate(settings)
