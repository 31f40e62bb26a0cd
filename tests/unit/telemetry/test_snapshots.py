"""Snapshots: what was learned survives restarts, kills and full disks; nothing in a file is believed unchecked."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triton_router.config.router_config import TargetConfig
from triton_router.errors import InvalidInputError
from triton_router.profiling.profile import TargetProfile
from triton_router.telemetry import state_directory
from triton_router.telemetry.inheritance import inherit
from triton_router.telemetry.snapshot_file import (
    MAX_BYTES,
    MAX_ORIGINS,
    Snapshot,
    TargetState,
    identity_of,
    read_snapshot,
)
from triton_router.telemetry.snapshot_keeper import SnapshotKeeper
from triton_router.telemetry.state_directory import MAX_INSTANCES, MAX_SET_ASIDE, StateDirectory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

MODEL = "ein Modell/../ü"
MACHINE = "x86_64 test, 2 cores"
TARGETS = (
    TargetConfig.model_validate({"name": "a", "model": "m-a", "measured_latency": [{"work": 16, "latency_ms": 1.0}]}),
    TargetConfig.model_validate({"name": "b", "model": "m-b", "variant": "onnx"}),
)


def learned(*, slow: float = 1.0, count: int = 60) -> TargetProfile:
    """Return a profile of a target that takes ``slow`` * (1 + work / 64) ms."""
    rng = random.Random(5)
    profile = TargetProfile([(16, 1.0)])
    for _ in range(count):
        rows = rng.choice([1, 2, 4, 8])
        latency = slow * (1.0 + rows / 4) * rng.uniform(0.95, 1.05)
        predicted = profile.predict_latency(16.0 * rows, rows)
        profile.record_latency(latency, 16.0 * rows, predicted, alone=True, rows=rows)
    return profile


class Instance:
    """One instance of the routed model, with a keeper over ``directory``."""

    def __init__(self, directory: Path, *, name: str = "host", machine: str = MACHINE) -> None:
        self.said: list[str] = []
        self.directory = StateDirectory(directory, MODEL, name)
        self.keeper = SnapshotKeeper(self.directory, TARGETS, machine, (MODEL, name), self.said.append)
        self.profiles = self.keeper.inherited()

    def keep(self, profiles: Mapping[str, TargetProfile]) -> None:
        """Write these profiles."""
        states = {name: profile.state() for name, profile in profiles.items()}
        self.keeper.start(lambda: {"a": TargetProfile().state(), "b": TargetProfile().state(), **states}, 3600.0)
        self.keeper.close()


def snapshot(profiles: Mapping[str, TargetProfile], **changed: Any) -> Snapshot:
    """Return a snapshot of these profiles."""
    fields: dict[str, Any] = {
        "model": MODEL,
        "instance": "i",
        "machine": MACHINE,
        "origins": ("x",),
        "written_at": 1.0,
        "targets": {
            settings.name: TargetState(identity=identity_of(settings), profile=profiles[settings.name].state())
            for settings in TARGETS
            if settings.name in profiles
        },
    }
    return Snapshot(**{**fields, **changed})


def test_what_was_learned_survives_a_restart(tmp_path: Path) -> None:
    """The next instance predicts as the last one did, and trusts it as much: live evidence wins over the build's."""
    before = learned(slow=7.0)
    Instance(tmp_path / "state").keep({"a": before})
    after = Instance(tmp_path / "state").profiles["a"]
    for rows in (1, 3, 8, 20):
        expected = before.predict_latency(16.0 * rows, rows)
        assert after.predict_latency(16.0 * rows, rows) == pytest.approx(expected, rel=1e-3)
    assert after.confidence == pytest.approx(before.confidence, rel=1e-3)
    assert after.predict_latency(16.0) > 5.0, "the build measured 1 ms"


def test_an_unproven_target_begins_afresh(tmp_path: Path) -> None:
    """What nobody has measured yet is not inherited."""
    Instance(tmp_path).keep({"a": learned()})
    assert set(Instance(tmp_path).profiles) == {"a"}


def test_files_belong_to_their_user_alone(tmp_path: Path) -> None:
    """Directory 0700, file 0600, whatever the umask; and names that no model can leave the directory with."""
    previous = os.umask(0)
    try:
        instance = Instance(tmp_path / "deep" / "state")
        instance.keep({"a": learned()})
    finally:
        os.umask(previous)
    assert instance.directory.path.stat().st_mode & 0o777 == 0o700
    (file,) = instance.directory.path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent == tmp_path / "deep" / "state"


def test_nothing_new_is_not_written_again(tmp_path: Path) -> None:
    """An idle model does not wear out the disk."""
    instance = Instance(tmp_path)
    instance.keep({"a": learned()})
    instance.directory.file.unlink()
    instance.keeper.save()
    assert not instance.directory.file.exists()


def spoilt(change: Callable[[dict[str, Any]], object]) -> bytes:
    """Return a good snapshot's bytes after a change of its document."""
    document = snapshot({"a": learned()}).model_dump(mode="json")
    change(document)
    return json.dumps(document).encode()


GOOD = spoilt(lambda _: None)
BAD: dict[str, bytes] = {
    "empty": b"",
    "cut short": GOOD[: len(GOOD) // 2],
    "not UTF-8": b"\xff\xfe" + GOOD,
    "another document": b"[]",
    "nested beyond the stack": b"[" * 200_000,
    "too large": b" " * (MAX_BYTES + 1),
    "NaN": GOOD.replace(b'"written_at": 1.0', b'"written_at": NaN'),
    "infinite": GOOD.replace(b'"written_at": 1.0', b'"written_at": 1e999'),
    "endless digits": GOOD.replace(b'"written_at": 1.0', b'"written_at": ' + b"9" * 10_000),
    "of a newer version": spoilt(lambda d: d.update(schema_version=99)),
    "of another model": spoilt(lambda d: d.update(model="another")),
    "unknown key": spoilt(lambda d: d.update(code="import os")),
    "no origin": spoilt(lambda d: d.update(origins=[])),
    "profile of another kind": spoilt(lambda d: d["targets"]["a"].update(profile={"x": 1})),
    "hostile direction of a drift": spoilt(lambda d: d["targets"]["a"]["profile"].update(last_drift=[[], 2.0, 3])),
    "hostile number in a profile": spoilt(lambda d: d["targets"]["a"]["profile"]["model"].update(spread=1e300)),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_set_aside_and_said(tmp_path: Path, name: str) -> None:
    """The file gets another name, the log says why and what to do, and learning starts afresh and is kept."""
    place = StateDirectory(tmp_path, MODEL, "host").file
    place.write_bytes(BAD[name])
    instance = Instance(tmp_path)
    assert instance.profiles == {}
    (said,) = instance.said
    assert "corrupt-1" in said
    assert "learning starts afresh" in said
    assert instance.keeper.errors == 1
    assert not place.exists()
    assert place.with_name(f"{place.name}.corrupt-1").read_bytes() == BAD[name]
    instance.keep({"a": learned()})
    assert set(Instance(tmp_path).profiles) == {"a"}


@pytest.mark.parametrize("name", BAD)
def test_learning_goes_on_from_the_last_good_one(tmp_path: Path, name: str) -> None:
    """When the snapshot has been spoilt, or is of a newer version, the one before it is taken, and the log says so."""
    first = Instance(tmp_path)
    first.keep({"a": learned(slow=3.0)})
    first.keep({"a": learned(slow=9.0)})
    place = first.directory.file
    place.write_bytes(BAD[name])
    instance = Instance(tmp_path)
    assert 2.0 < instance.profiles["a"].predict_latency(16.0) < 6.0, "the one before, in which it took a third"
    (said,) = instance.said
    assert "learning goes on from the one before it" in said
    assert instance.keeper.errors == 1
    (shown,) = instance.keeper.status()["remarks"]
    assert shown in said
    assert place.with_name(f"{place.name}.corrupt-1").read_bytes() == BAD[name]
    instance.keep({"a": learned(slow=9.0)})
    assert Instance(tmp_path).said == []


def test_a_disk_without_links_keeps_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network and removable disks have none: snapshots are written all the same."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("pathlib.Path.hardlink_to", refuse)
    instance = Instance(tmp_path)
    instance.keep({"a": learned()})
    instance.keep({"a": learned(slow=2.0)})
    assert list(tmp_path.iterdir()) == [instance.directory.file]
    assert instance.keeper.status()["problem"] == ""


def test_the_good_one_of_these_is_good(tmp_path: Path) -> None:
    """The table above is about what it changes: unchanged, it is taken over."""
    StateDirectory(tmp_path, MODEL, "host").file.write_bytes(GOOD)
    assert set(Instance(tmp_path).profiles) == {"a"}


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_only_regular_files_are_read(tmp_path: Path, kind: str) -> None:
    """A link may lead anywhere, and a pipe would keep the model from loading for ever."""
    place = StateDirectory(tmp_path, MODEL, "host").file
    if kind == "link":
        (tmp_path / "elsewhere").write_bytes(GOOD)
        place.symlink_to(tmp_path / "elsewhere")
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.mkdir()
    instance = Instance(tmp_path)
    assert instance.profiles == {}
    assert len(instance.said) == 1


def test_what_is_set_aside_is_bounded(tmp_path: Path) -> None:
    """However often a file is spoilt, a few are kept."""
    for _ in range(MAX_SET_ASIDE + 3):
        StateDirectory(tmp_path, MODEL, "host").file.write_bytes(b"broken")
        Instance(tmp_path)
    assert len(list(tmp_path.iterdir())) == MAX_SET_ASIDE


@given(data=st.data())
def test_a_spoilt_byte_never_raises_anything_else(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever the bytes are, they are a snapshot, or refused by name."""
    at = data.draw(st.integers(0, len(GOOD) - 1))
    path = tmp_path_factory.getbasetemp() / "spoilt.json"
    path.write_bytes(GOOD[:at] + bytes([data.draw(st.integers(0, 255))]) + GOOD[at + 1 :])
    with contextlib.suppress(InvalidInputError):
        inherit([read_snapshot(path)], TARGETS, None)


@pytest.mark.parametrize(
    "change",
    [
        {"model": "m-other"},
        {"version": 2},
        {"backend": "gpu"},
        {"variant": "pt2"},
        {"measured_latency": [{"work": 16, "latency_ms": 2.0}]},
    ],
)
def test_another_model_inherits_nothing(change: dict[str, Any]) -> None:
    """Model, version, backend, variant and build have to be the same; the log says which target is not."""
    inheritance = inherit([snapshot_of_version(1)], [target_a(**{"version": 1, **change})], MACHINE)
    assert inheritance.profiles == {}
    assert "'a' is another model" in inheritance.left[0]


@pytest.mark.parametrize(("before", "now"), [(None, 1), (1, None), (None, None), (1, 1)])
def test_a_version_written_down_or_no_more_inherits(before: int | None, now: int | None) -> None:
    """No version is whichever is served: to pin it, as a rollout begins by, forgets nothing."""
    inheritance = inherit([snapshot_of_version(before)], [target_a(version=now)], MACHINE)
    assert (set(inheritance.profiles), inheritance.left) == ({"a"}, [])


def target_a(**change: Any) -> TargetConfig:
    point = {"measured_latency": [{"work": 16, "latency_ms": 1.0}]}
    return TargetConfig.model_validate({"name": "a", "model": "m-a", **point, **change})


def snapshot_of_version(version: int | None) -> Snapshot:
    state = TargetState(identity=identity_of(target_a(version=version)), profile=learned().state())
    return snapshot({}, targets={"a": state})


def test_another_machine_inherits_nothing() -> None:
    """What a faster machine took says nothing here."""
    inheritance = inherit([snapshot({"a": learned()})], TARGETS, "aarch64 test, 8 cores")
    assert inheritance.profiles == {}
    assert "another machine" in inheritance.left[0]


def test_two_instances_learn_as_one(tmp_path: Path) -> None:
    """An instance without a snapshot begins with what all others learned, added up."""
    for name in ("one", "two"):
        Instance(tmp_path / name, name=name).keep({"a": learned(slow=3.0, count=40)})
        (file,) = (tmp_path / name).iterdir()
        (tmp_path / "shared").mkdir(exist_ok=True)
        file.rename(tmp_path / "shared" / file.name)
    third = Instance(tmp_path / "shared", name="three")
    assert third.profiles["a"].observations == 80
    third.keep(third.profiles)
    # The third's snapshot holds what the first two know: a fourth counts that once.
    fourth = Instance(tmp_path / "shared", name="four")
    assert fourth.profiles["a"].observations == 80
    assert sum("in another snapshot already" in line for line in fourth.said) == 2


def test_snapshots_that_would_fill_the_memory_are_left_out_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what others wrote into a shared directory only so many bytes are read; the instance's own come first."""
    Instance(tmp_path, name="own").keep({"a": learned()})
    for number in range(6):
        Instance(tmp_path, name=f"other-{number}").keep({"a": learned()})
    size = StateDirectory(tmp_path, MODEL, "own").file.stat().st_size
    monkeypatch.setattr(state_directory, "MAX_READ_BYTES", 3 * size + size // 2)
    found = StateDirectory(tmp_path, MODEL, "own").find()
    assert found.own is not None
    assert len(found.others) < 4
    assert ["older ones are left out" in problem for problem in found.problems] == [True]


def test_instances_that_come_and_go_fill_neither_directory_nor_file(tmp_path: Path) -> None:
    """Containers have a new name at every start: the oldest snapshots are removed, and origins are bounded."""
    for number in range(MAX_INSTANCES + 20):
        instance = Instance(tmp_path, name=f"pod-{number}")
        instance.keeper._origins = (*instance.keeper._origins, *(f"{number}-{at}" for at in range(20)))[:MAX_ORIGINS]
        instance.keep({"a": learned(count=9 + number)})
        os.utime(instance.directory.file, (number, number))
    assert len(list(tmp_path.iterdir())) <= MAX_INSTANCES + 1
    last = Instance(tmp_path, name="last")
    assert last.keeper.errors == 0
    assert len(last.keeper._origins) <= MAX_ORIGINS
    last.keep({"a": learned(count=500)})
    assert last.keeper.status()["problem"] == ""
    assert StateDirectory(tmp_path, MODEL, "pod-3").file not in set(tmp_path.iterdir())


_WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.unit.telemetry.test_snapshots import MODEL, learned, snapshot
from triton_router.telemetry.state_directory import StateDirectory
directory = StateDirectory(Path(sys.argv[1]), MODEL, "host")
profiles = {"a": learned(), "b": learned()}
number = 0
while True:
    number += 1
    directory.save(snapshot(profiles, written_at=float(number)))
    print(number, flush=True)
"""


def test_a_killed_writer_leaves_a_whole_snapshot(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """Killed at any moment of a loop that does nothing but write: what was written last is there, or even the next."""
    rng = random.Random(11)
    directory = StateDirectory(tmp_path, MODEL, "host")
    for _ in range(6):
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tmp_path), str(pytestconfig.rootpath)], stdout=subprocess.PIPE
        )
        try:
            assert writer.stdout is not None
            first = writer.stdout.readline()
            time.sleep(rng.uniform(0.0, 0.05))
        finally:
            writer.kill()
            rest, _ = writer.communicate()
        last = int((first + rest).split(b"\n")[-2])
        found = directory.find()
        assert found.problems == []
        assert found.own is not None
        assert found.own.written_at in {last, last + 1}
        if last > 1:
            assert read_snapshot(directory.previous).written_at in {last - 1, last}
    leftover = [path for path in tmp_path.iterdir() if path.suffix == ".tmp"]
    for path in leftover:
        os.utime(path, (0, 0))
    directory.find()
    assert set(tmp_path.iterdir()) == {directory.file, directory.previous}, "half-written files go once they are old"


def test_a_full_disk_disturbs_nothing_and_is_said_once(tmp_path: Path) -> None:
    """Writing fails as on a full disk; the old snapshot stays whole, and writing goes on when there is room again."""
    instance = Instance(tmp_path)
    profile = learned()
    instance.keep({"a": profile})
    whole = instance.directory.file.read_bytes()
    state: dict[str, TargetProfile] = {"a": profile, "b": TargetProfile()}
    instance.keeper._state = lambda: {name: one.state() for name, one in state.items()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))
    try:
        for count in (70, 80, 90):
            state["a"] = learned(count=count)
            instance.keeper.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert instance.keeper.errors == 3
    assert len(instance.said) == 1
    assert "File too large" in instance.keeper.status()["problem"]
    assert instance.directory.file.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [instance.directory.file]
    instance.keeper.save()
    assert instance.keeper.status()["problem"] == ""
    assert "written again" in instance.said[1]
    assert instance.directory.file.read_bytes() != whole


def unwritable(tmp_path: Path) -> Sequence[Path]:
    """Return places in which nobody, not even root, can make a file."""
    (tmp_path / "file").write_text("")
    return [tmp_path / "file" / "state", *([tmp_path.joinpath("/proc/state")] if sys.platform == "linux" else [])]


def test_a_directory_that_cannot_be_written_disturbs_nothing(tmp_path: Path) -> None:
    """Nor one that cannot be read: serving goes on, and the log and the status say so."""
    for place in unwritable(tmp_path):
        instance = Instance(place)
        assert instance.profiles == {}
        instance.keep({"a": learned()})
        assert "cannot be written" in instance.keeper.status()["problem"]
        assert any("serving goes on" in line for line in instance.said)


_AS_NOBODY = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.unit.telemetry.test_snapshots import Instance, learned
if os.geteuid() == 0:
    os.setegid(65534)
    os.seteuid(65534)
instance = Instance(Path(sys.argv[1]))
instance.keep({"a": learned()})
print(*instance.said, sep="\\n")
"""


def test_a_read_only_directory_is_still_read(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """A user without the right to write there gets what lies there, and is told once that nothing will be kept."""
    for parent in (tmp_path, *tmp_path.parents[:3]):
        parent.chmod(0o755)
    Instance(tmp_path).keep({"a": learned()})
    StateDirectory(tmp_path, MODEL, "host").file.chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        done = subprocess.run(
            [sys.executable, "-c", _AS_NOBODY, str(tmp_path), str(pytestconfig.rootpath)],
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        tmp_path.chmod(0o755)
    said = done.stdout
    assert said.count("\n") == 1, said
    assert "Permission denied" in said
