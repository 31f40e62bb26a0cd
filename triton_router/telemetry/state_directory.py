"""The state directory: where the snapshots of routed models lie, one file for each model and instance.

What cannot be used is set aside under a new name and reported, and never trusted.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from triton_router.config.printable import printable
from triton_router.errors import TritonRouterError
from triton_router.files import TEMPORARY_SUFFIX, make_private_directory
from triton_router.telemetry.inheritance import profiles_in
from triton_router.telemetry.snapshot_file import MAX_BYTES, Snapshot, read_snapshot, write_snapshot

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from pathlib import Path

STATE_VARIABLE = "TRITON_ROUTER_STATE_DIR"
"""Environment variable that tells the router models of a server where the directory is; without it nothing is kept."""
MAX_SET_ASIDE = 4
"""Most unusable files that are kept for one snapshot; further ones replace the last."""
MAX_INSTANCES = 64
"""Most snapshots of one model that are kept, the newest: containers have a new name at every start."""
MAX_READ_BYTES = 32 << 20
"""Most that is read of all snapshots of one model together, this instance's and then the newest: what is read takes up
to sixteen times as much memory, in the process that is to serve."""
_STALE_S = 60.0
"""A half-written file that is older belongs to a process that was killed."""
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")


class Found(NamedTuple):
    """What lay there.

    Attributes:
        own: This instance's snapshot, if there is one.
        others: Other instances' of the same model, newest first.
        problems: What could not be used, each a sentence with what was done about it.
    """

    own: Snapshot | None
    others: list[Snapshot]
    problems: list[str]

    @property
    def to_begin_with(self) -> list[Snapshot]:
        """What a starting instance takes over: its own, which holds what it once took over; else everybody's."""
        return [self.own] if self.own else self.others


class StateDirectory:
    """The files of one instance of one routed model.

    Args:
        path: The directory; made on the first write.
        model: Name of the routed model.
        instance: What keeps this instance's file apart from those of others, such as the host's name.
    """

    def __init__(self, path: Path, model: str, instance: str) -> None:
        self.path = path
        self._model = model
        self._stem = stem_of(model)
        self.file = path / f"{self._stem}@{safe(instance)}.json"
        self.previous = previous_of(self.file)

    def find(self, *, set_aside: bool = True) -> Found:
        """Read what lies there.

        Args:
            set_aside: Whether files that cannot be used are given another name, and superfluous ones removed; else
                nothing is changed.
        """
        problems: list[str] = []
        own: Snapshot | None = None
        others: list[Snapshot] = []
        try:
            files = self._files()
            if set_aside:
                self._clear(files[MAX_INSTANCES:])
        except OSError as error:
            return Found(None, [], [f"{self.path} cannot be read: {error.strerror}; learning starts afresh"])
        size = 0
        for file in files[:MAX_INSTANCES]:
            size += min(_size_of(file), MAX_BYTES)
            if size > MAX_READ_BYTES:
                problems.append(
                    f"{self.path} holds snapshots of more than {MAX_READ_BYTES} bytes; {printable(file.name)} and "
                    "older ones are left out"
                )
                break
            try:
                snapshot = self._usable(file)
            except TritonRouterError as error:
                done = set_aside_file(file) if set_aside else "it is left out"
                own = self._last_good() if file == self.file else own
                resumed = "goes on from the one before it" if file == self.file and own else "starts afresh"
                problems.append(f"{error.message}; {done}; learning {resumed}")
                continue
            if file == self.file:
                own = snapshot
            else:
                others.append(snapshot)
        others.sort(key=lambda snapshot: snapshot.written_at, reverse=True)
        return Found(own, others, problems)

    def save(self, snapshot: Snapshot) -> None:
        """Replace this instance's snapshot; the one before it stays beside it, should a disk spoil this one.

        Raises:
            OSError: It cannot be written; the old one is still whole.
            ValueError: It is too large.
        """
        make_private_directory(self.path)
        with previous_kept(self.file):
            write_snapshot(self.file, snapshot)

    def _last_good(self) -> Snapshot | None:
        try:
            return self._usable(self.previous)
        except TritonRouterError:
            return None

    def _files(self) -> list[Path]:
        if not self.path.exists():
            return []
        files = [path for path in self.path.iterdir() if self._is_ours(path)]
        files.sort(key=lambda path: (path == self.file, _modified_at(path)), reverse=True)
        return files

    def _is_ours(self, path: Path) -> bool:
        return path.name.startswith(f"{self._stem}@") and path.suffix == ".json"

    def _clear(self, superfluous: Iterable[Path]) -> None:
        temporary = self.path.glob(f".{self.file.name}.*{TEMPORARY_SUFFIX}")
        half_written = [path for path in temporary if time.time() - _modified_at(path) > _STALE_S]
        gone = [path for file in superfluous for path in (file, previous_of(file))]
        for path in (*half_written, *gone):
            with suppress(OSError):  # another process may remove it too; a read-only directory keeps it
                path.unlink()

    def _usable(self, file: Path) -> Snapshot:
        snapshot = read_snapshot(file)
        profiles_in(snapshot, expected_model=self._model)
        return snapshot


@contextmanager
def previous_kept(file: Path) -> Generator[None]:
    """Keep what a file held beside it, should a disk spoil what it is replaced with meanwhile."""
    held = file.with_name(f".{file.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    with suppress(OSError):  # there is none yet, or the disk knows no links: then there is only one
        held.unlink(missing_ok=True)
        held.hardlink_to(file)
    try:
        yield
        with suppress(FileNotFoundError):
            held.replace(previous_of(file))
    finally:
        held.unlink(missing_ok=True)


def previous_of(file: Path) -> Path:
    """Return where what a file held before it was replaced lies."""
    return file.with_name(f"{file.name}.previous")


def _modified_at(path: Path) -> float:
    """Return seconds since 1970; 0 for a file that another process has just removed."""
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0


def _size_of(path: Path) -> int:
    """Return bytes; 0 for a file that another process has just removed."""
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def stem_of(model: str) -> str:
    """Return how the names of a routed model's files begin."""
    # Models may be called anything; a digest keeps two apart whose names look alike as files.
    digest = hashlib.sha256(model.encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{safe(model)}-{digest}"


def set_aside_file(file: Path) -> str:
    """Give an unusable file another name and return what was done, for the log."""
    numbers = range(1, MAX_SET_ASIDE + 1)
    names = [file.with_name(f"{file.name}.corrupt-{number}") for number in numbers]
    place = next((name for name in names if not name.exists()), names[-1])
    try:
        file.replace(place)
    except OSError as error:
        return f"it cannot be set aside ({error.strerror}): remove it"
    return f"set aside as {printable(place.name)}, to be looked at or removed"


def safe(name: str) -> str:
    """Return a name as a part of a file's name."""
    return _UNSAFE.sub("_", name)[:80] or "_"
