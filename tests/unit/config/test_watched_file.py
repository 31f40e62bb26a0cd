"""A watched file is taken whole, once, however it was changed; never while somebody writes it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from triton_router.config import watched_file
from triton_router.config.watched_file import RESTING_LOOKS, WatchedFile
from triton_router.errors import ConfigError, NotFoundError

if TYPE_CHECKING:
    from pathlib import Path

MOST = 1000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that says ``old``."""
    place = tmp_path / "router.yaml"
    place.write_text("old")
    return place


def contents(watched: WatchedFile, looks: int = 2) -> list[bytes]:
    """Return what so many looks return."""
    return [content for _ in range(looks) if (content := watched.look()) is not None]


def test_what_does_not_change_is_not_read(path: Path) -> None:
    """However often one looks."""
    assert contents(WatchedFile(path, max_bytes=MOST), looks=50) == []


def test_a_rename_is_noticed_once(path: Path) -> None:
    """At the second look that finds it, and then no more."""
    watched = WatchedFile(path, max_bytes=MOST)
    other = path.with_name("new")
    other.write_text("new")
    other.replace(path)
    assert watched.look() is None
    assert watched.look() == b"new"
    assert contents(watched, looks=10) == []


def test_a_write_in_place_of_the_same_length_is_noticed(path: Path) -> None:
    """Neither inode nor size say that anything changed."""
    os.utime(path, ns=(1, 1))  # or it is written twice within one tick of the clock that files are stamped by
    watched = WatchedFile(path, max_bytes=MOST)
    path.write_text("new")
    assert contents(watched) == [b"new"]


def test_a_swapped_link_is_noticed(tmp_path: Path) -> None:
    """As Kubernetes updates a ConfigMap: router.yaml -> ..data/router.yaml, ..data -> another directory."""
    for version in ("old", "new"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "router.yaml").write_text(version)
    (tmp_path / "..data").symlink_to("old")
    path = tmp_path / "router.yaml"
    path.symlink_to("..data/router.yaml")
    watched = WatchedFile(path, max_bytes=MOST)
    (tmp_path / "..data_tmp").symlink_to("new")
    (tmp_path / "..data_tmp").replace(tmp_path / "..data")
    assert contents(watched) == [b"new"]


def test_a_half_written_file_is_left_until_it_is_closed(path: Path) -> None:
    """However long the writer pauses: half of a file may be valid. After a while that is said, once."""
    watched = WatchedFile(path, max_bytes=MOST)
    with path.open("w") as file:
        file.write("ne")
        file.flush()
        assert contents(watched, looks=20) == []
        with pytest.raises(ConfigError, match="open for writing"):
            watched.look()
        assert contents(watched, looks=20) == []
        file.write("w")
    assert contents(watched) == [b"new"]


def test_where_nobody_can_tell_the_file_must_rest_longer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without leases: the file is taken when it has been the same for several looks."""
    monkeypatch.setattr(watched_file, "_is_being_written", lambda _: None)
    watched = WatchedFile(path, max_bytes=MOST)
    for text in ("n", "ne", "new"):
        path.write_text(text)
        assert contents(watched, looks=RESTING_LOOKS) == []
        os.utime(path, ns=(1, 1))  # still at work
    assert contents(watched, looks=RESTING_LOOKS + 1) == [b"new"]


def test_a_file_that_is_gone_is_said_once_and_taken_when_it_is_back(path: Path) -> None:
    """A gap between removing and writing again is no news."""
    watched = WatchedFile(path, max_bytes=MOST)
    path.unlink()
    assert contents(watched, looks=RESTING_LOOKS) == []
    with pytest.raises(NotFoundError, match="is gone"):
        watched.look()
    assert contents(watched, looks=10) == []
    path.write_text("back")
    assert contents(watched) == [b"back"]


def test_a_file_too_large_or_unreadable_is_said_once(path: Path) -> None:
    """No more than the bound is read, a directory is no file, and a pipe holds nobody up."""
    watched = WatchedFile(path, max_bytes=MOST)
    path.write_bytes(b"x" * (MOST + 1))
    with pytest.raises(ConfigError, match="more than 1000 bytes"):
        contents(watched)
    assert contents(watched, looks=10) == []
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        contents(watched)
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="it is not a regular file"):
        contents(watched, looks=RESTING_LOOKS + 1)
