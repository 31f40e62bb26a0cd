"""Which file an instance takes where not every one of them can be had."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path

import pytest

from triton_router.telemetry.trial_files import TrialFiles, TrialState


def _locks(place: Path) -> list[Path]:
    return sorted(place.glob("*.lock"))


def _not_ours(lock: Path) -> None:
    """Make a lock one that this user cannot open; root can open everything but a directory."""
    if os.geteuid():
        lock.chmod(0)
    else:
        lock.unlink()
        lock.mkdir()


def test_a_lock_of_another_user_is_passed_over_and_told(tmp_path: Path) -> None:
    """As after a run as root: the next number is had, and what is kept there is found again by the next process."""
    with closing(TrialFiles(tmp_path, "m", "host")) as first:
        first.claim()
    (lock,) = _locks(tmp_path)
    _not_ours(lock)
    for expected in (None, {"v2": {"share": 0.5}}):
        with closing(TrialFiles(tmp_path, "m", "host")) as files:
            state = files.claim()
            assert (state.rollouts if state else None) == expected
            (problem,) = files.problems
            assert str(lock) in problem
            assert f"user {os.geteuid()}" in problem
            files.save(TrialState(model="m", written_at=1.0, rollouts={"v2": {"share": 0.5}}))


@pytest.mark.skipif(sys.platform != "linux", reason="a directory that not even root makes files in")
def test_where_no_lock_can_be_made_that_is_an_error() -> None:
    """One of the place as a whole, told by whoever asks, and not once for each number."""
    files = TrialFiles(Path("/proc"), "m", "host")
    with pytest.raises(FileNotFoundError):
        files.claim()
    assert not files.problems
