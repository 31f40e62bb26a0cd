"""The file of sequences: found again by any process, bounded, and removed with the server that it belongs to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from triton_router.sharing.owners import process, this_process
from triton_router.sharing.sequence_file import SequenceFile, sequence_place, sweep

if TYPE_CHECKING:
    from pathlib import Path

MOST_BYTES = 1 << 21


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path / "sequences"


def test_what_one_instance_writes_another_finds(path: Path) -> None:
    """Numbers and texts that look alike are kept apart; what was overwritten or dropped is not found."""
    writer, reader = SequenceFile(path), SequenceFile(path)
    assert reader.find(7) is None
    writer.put(7, 2**64 - 1, 1)
    writer.put("7", 2, 2)
    writer.put("\udcff", 3, 3)
    assert [reader.find(name) for name in (7, "7", "\udcff", 8)] == [2**64 - 1, 2, 3, None]
    writer.put(7, 5, 4)
    writer.drop("7")
    writer.drop("never")
    assert [reader.find(name) for name in (7, "7")] == [5, None]
    writer.close()
    assert reader.find(7) == 5
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_file_is_bounded_and_the_latest_stay(path: Path) -> None:
    """Sequences without number that never end take no more room; those of late are found, with few exceptions."""
    file = SequenceFile(path)
    for number in range(40_000):
        file.put(number, number, number)
    assert path.stat().st_size <= MOST_BYTES
    latest = range(30_000, 40_000)
    assert sum(file.find(number) == number for number in latest) > 0.98 * len(latest)


def test_who_leaves_removes_an_empty_file_only_and_the_others_go_on(path: Path) -> None:
    """One that has it open still writes where the next looks."""
    staying, leaving = SequenceFile(path), SequenceFile(path)
    staying.put(1, 1, 1)
    assert leaving.find(1) == 1
    leaving.close()
    staying.drop(1)
    leaving.put(2, 2, 2)
    leaving.drop(2)
    leaving.close()
    assert not path.exists()
    staying.put(3, 3, 3)
    assert SequenceFile(path).find(3) == 3


def test_files_of_servers_that_are_gone_are_removed(tmp_path: Path) -> None:
    """Those of running ones, of other containers, and what is no such file stay."""
    me = this_process(os.getpid())
    alive = process(os.getpid())._replace(namespace=me.namespace)
    gone, elsewhere = alive._replace(started=alive.started + 1), alive._replace(started=1, namespace=me.namespace + 1)
    kept = [sequence_place("m", owner, tmp_path) for owner in (alive, elsewhere)]
    swept = [sequence_place(model, gone, tmp_path) for model in ("m", "../a b")]
    directory = kept[0].parent
    directory.mkdir()
    strangers = [directory / name for name in ("m-1.v1", "x.sequences1.old", "x.sequences1.1-2-")]
    for place in (*kept, *swept, *strangers):
        assert place.parent == directory
        place.touch()
    sweep(directory, me)
    assert sorted(directory.iterdir()) == sorted([*kept, *strangers])
    sweep(tmp_path / "nowhere", me)
