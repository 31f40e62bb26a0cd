"""Files of our own are for our user alone, and files of others are opened without trust."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from triton_router.files import make_private_directory, open_regular, replace_private
from triton_router.hardware import calibration
from triton_router.hardware.calibration import CALIBRATION_FILE, Calibration, keep_calibrated
from triton_router.telemetry.log_file import LogFile
from triton_router.telemetry.snapshot_file import Snapshot
from triton_router.telemetry.state_directory import StateDirectory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UMASKS = [0o000, 0o022, 0o077, 0o277]


@pytest.fixture(params=UMASKS, ids=[f"umask {umask:03o}" for umask in UMASKS])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    former = os.umask(request.param)
    yield request.param
    os.umask(former)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("umask")
def test_everything_in_a_state_directory_is_for_its_owner_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Snapshots, calibration, decision log and the directories above them, under any umask."""
    monkeypatch.setattr(calibration, "calibrate", lambda: Calibration("m", 1.0, 1.0))
    place = tmp_path / "state" / "triton-router" / "models-1234"
    keep_calibrated(place)
    directory = StateDirectory(place, "model", "host")
    directory.save(Snapshot(model="model", instance="host", machine="m", origins=("o",), written_at=1.0, targets={}))
    log = LogFile(place / "decisions.jsonl", "{}\n", 1_000_000)
    log.append("{}\n")
    log.close()
    assert {path.name for path in place.iterdir()} == {CALIBRATION_FILE, directory.file.name, "decisions.jsonl"}
    assert {_mode(path) for path in place.iterdir()} == {0o600}
    assert [_mode(path) for path in (place, place.parent, place.parent.parent)] == [0o700] * 3


def test_no_byte_is_ever_written_where_another_user_could_read_it(tmp_path: Path) -> None:
    """Modes as the kernel is asked for them, at the very creation: none is set only afterwards."""
    script = (
        "import os, sys, pathlib\n"
        "from triton_router.files import make_private_directory, replace_private\n"
        "os.umask(0)\n"
        "def audit(event, args):\n"
        "    if event == 'open' and isinstance(args[0], str) and args[0].endswith('.tmp'): print('open', os.stat(\n"
        "        os.path.dirname(args[0])).st_mode & 0o777 == 0o700, bool(args[2] & os.O_EXCL))\n"
        "    if event == 'os.mkdir': print('mkdir', oct(args[1]))\n"
        "sys.addaudithook(audit)\n"
        "real = os.open\n"
        "def opened(path, flags, mode=0o777, **more):\n"
        "    made = real(path, flags, mode, **more)\n"
        "    if flags & os.O_CREAT: print('made', oct(os.fstat(made).st_mode & 0o777))\n"
        "    return made\n"
        "os.open = opened\n"
        "place = pathlib.Path(sys.argv[1]) / 'a' / 'b'\n"
        "make_private_directory(place)\n"
        "replace_private(place / 'file', b'secret')\n"
    )
    told = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines() == ["mkdir 0o700", "mkdir 0o700", "open True True", "made 0o600"]


def test_an_existing_directory_keeps_its_mode(tmp_path: Path) -> None:
    """Its owner has decided who shares it, such as the instances on several machines."""
    tmp_path.chmod(0o770)
    make_private_directory(tmp_path / "inner")
    make_private_directory(tmp_path / "inner")
    assert (_mode(tmp_path), _mode(tmp_path / "inner")) == (0o770, 0o700)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"exists|Not a directory"):
        make_private_directory(tmp_path / "file")


def test_a_planted_link_is_replaced_and_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a directory that others may write to: at the place itself, and at the name of what is being written."""
    victim = tmp_path / "victim"
    victim.write_text("whole")
    (tmp_path / "file").symlink_to(victim)
    replace_private(tmp_path / "file", b"new")
    assert not (tmp_path / "file").is_symlink()
    monkeypatch.setattr("triton_router.files.secrets.token_hex", lambda _: "guessed")
    (tmp_path / f".file.{os.getpid()}-guessed.tmp").symlink_to(victim)
    with pytest.raises(FileExistsError):
        replace_private(tmp_path / "file", b"newer")
    assert (victim.read_text(), (tmp_path / "file").read_bytes()) == ("whole", b"new")


def test_only_regular_files_are_opened_and_links_only_where_they_may_be(tmp_path: Path) -> None:
    """A pipe without a writer would keep its reader waiting; a device may never end."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(OSError, match="not a regular file"):
            open_regular(path)
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(type(tmp_path)("/dev/zero"))
    (tmp_path / "file").write_bytes(b"text")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with open_regular(tmp_path / "link") as file:
        assert file.read() == b"text"
    with pytest.raises(OSError, match="symbolic links"):
        open_regular(tmp_path / "link", follow_links=False)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the disk is full."""
    replace_private(tmp_path / "file", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("triton_router.files.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace_private(tmp_path / "file", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]
