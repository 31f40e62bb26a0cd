"""What instances have found of their targets' answers, on disk: kept, shared, and believed whole or not at all."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from triton_router.telemetry.verdict_files import VerdictFiles

if TYPE_CHECKING:
    from pathlib import Path

VERDICTS = {"int8": {"identity": "x", "runs": [[1, 2]]}}


def test_what_is_kept_is_there_for_the_next(tmp_path: Path) -> None:
    """For this user alone, and for the next process on the host, not for another model."""
    first = VerdictFiles(tmp_path / "state", "m", "host")
    assert first.claim() == {}
    first.save(VERDICTS)
    first.close()
    (file,) = (tmp_path / "state").glob("*.verdicts")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert VerdictFiles(tmp_path / "state", "m", "host").claim() == VERDICTS
    assert VerdictFiles(tmp_path / "state", "other", "host").claim() == {}


def test_instances_read_each_other_and_not_themselves(tmp_path: Path) -> None:
    """Two that live at once have a file each."""
    one, two = VerdictFiles(tmp_path, "m", "host"), VerdictFiles(tmp_path, "m", "host")
    one.claim()
    two.claim()
    one.save(VERDICTS)
    assert two.others() == [VERDICTS]
    assert one.others() == []


def test_a_spoilt_file_is_set_aside_and_told(tmp_path: Path) -> None:
    """Nothing of it is believed, and the instance begins anew."""
    first = VerdictFiles(tmp_path, "m", "host")
    first.claim()
    first.save(VERDICTS)
    first.close()
    (file,) = tmp_path.glob("*.verdicts")
    file.write_text('{"format": "triton-router verdicts", "verdicts": []}')
    again = VerdictFiles(tmp_path, "m", "host")
    assert again.claim() == {}
    assert any(str(file) in problem for problem in again.problems())
    assert again.problems() == []
