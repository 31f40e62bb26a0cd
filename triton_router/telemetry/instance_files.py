"""What the instances of a routed model know, in the state directory: a file of one kind for each of them.

Each instance writes a file of its own and reads those of the others. It takes the first one on its host that no living
process holds: who is started again goes on where the one before it was, however that ended.
"""

from __future__ import annotations

import fcntl
import json
import os
from typing import TYPE_CHECKING, Annotated, Generic, NamedTuple, TypeVar

from pydantic import Field

from triton_router.config.printable import printable
from triton_router.files import FILE_MODE, make_private_directory, replace_private
from triton_router.telemetry.snapshot_file import SCHEMA, StatePart, in_a_line, read_state
from triton_router.telemetry.state_directory import previous_kept, previous_of, safe, set_aside_file, stem_of

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES = 4 << 20
MOST_INSTANCES = 64
"""Of a routed model on one host; and most files of others that are read, the newest."""

_ShortText = Annotated[str, Field(max_length=512)]


class InstanceState(StatePart):
    """What one instance knows.

    Attributes:
        model: Name of the routed model.
        written_at: Seconds since 1970.
    """

    schema_version: Annotated[int, Field(ge=1)] = SCHEMA
    model: _ShortText
    written_at: Annotated[float, Field(ge=0)]


_State = TypeVar("_State", bound=InstanceState)


class _Read(NamedTuple, Generic[_State]):
    version: tuple[int, int, int]
    state: _State | None


class InstanceFiles(Generic[_State]):
    """The files of one instance.

    Args:
        kind: What they say.
        suffix: What their names end with, which is nobody else's.
        path: The state directory; made when it is needed.
        model: Name of the routed model.
        host: Name of this host.

    Attributes:
        problems: What could not be used of what lies there, each a sentence; whoever says it empties this.
    """

    def __init__(self, kind: type[_State], suffix: str, path: Path, model: str, host: str) -> None:
        self._kind = kind
        self._suffix = suffix
        self.path = path
        self.problems: list[str] = []
        self._model = model
        self._stem = stem_of(model)
        self._host = safe(host)
        self._file: Path | None = None
        self._lock = -1
        self._unread = ""
        self._passed_over: set[Path] = set()
        self._read: dict[str, _Read[_State]] = {}

    @property
    def is_claimed(self) -> bool:
        """Whether this instance has a file."""
        return self._file is not None

    def claim(self) -> _State | None:
        """Take a file that no other process holds, and return what it says; None where it says nothing.

        A lock that lies there and cannot be opened, as another user's, is passed over, which is a problem to tell.

        Raises:
            OSError: None can be had.
        """
        make_private_directory(self.path)
        for number in range(MOST_INSTANCES):
            file = self.path / f"{self._stem}@{self._host}-{number}{self._suffix}"
            descriptor = self._opened(file.with_name(f"{file.name}.lock"))
            if descriptor is not None and _is_held(descriptor):
                self._file, self._lock = file, descriptor
                return self._own(file)
        raise BlockingIOError(f"none of the {MOST_INSTANCES} that one host may have is free")

    def save(self, state: _State, *, twice: bool = False) -> None:
        """Replace this instance's file.

        Args:
            state: What it is to hold.
            twice: Whether what is kept beside it, should a disk spoil it, is to hold that as well.

        Raises:
            OSError: It cannot be written; the old one is still whole.
            ValueError: It is too large.
        """
        if self._file is None:
            return
        data = json.dumps(state.model_dump(mode="json"), allow_nan=False, separators=(",", ":")).encode()
        if len(data) > MAX_BYTES:
            raise ValueError(f"it would have {len(data)} bytes, {MAX_BYTES} at most")
        make_private_directory(self.path)
        for _ in range(2 if twice else 1):
            with previous_kept(self._file):
                replace_private(self._file, data)

    def others(self) -> list[_State]:
        """Return what the other instances know, those that have ended included: what they saw counts on."""
        try:
            files = self._files_of_others()
        except OSError as error:
            if str(error) != self._unread:  # once, however often this is asked
                self._unread = str(error)
                self.problems.append(f"{self.path} cannot be read: {error.strerror}")
            return []
        self._unread = ""
        before, self._read = self._read, {}
        for name, (version, file) in files.items():
            known = before.get(name)
            self._read[name] = known if known is not None and known.version == version else self._fresh(version, file)
        return [read.state for read in self._read.values() if read.state is not None]

    def close(self) -> None:
        """Leave the file to the next."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
            self._file = None

    def _opened(self, lock: Path) -> int | None:
        """Return a lock as an open file; None where what lies there cannot be opened."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            return os.open(lock, flags, FILE_MODE)
        except OSError as error:
            if not os.path.lexists(lock):  # none can be made, whatever its number
                raise
            if lock not in self._passed_over:
                self._passed_over.add(lock)
                self.problems.append(_in_the_way(lock, error))
            return None

    def _own(self, file: Path) -> _State | None:
        try:
            return self._usable(file)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            problem = f"{file} cannot be used: {_in_words(error)}; {set_aside_file(file)}"
        try:
            state = self._usable(previous_of(file))
        except (OSError, ValueError, RecursionError):
            self.problems.append(f"{problem}; what it knew is lost")
            return None
        self.problems.append(f"{problem}; the one before it is taken")
        return state

    def _fresh(self, version: tuple[int, int, int], file: Path) -> _Read[_State]:
        try:
            return _Read(version, self._usable(file))
        except FileNotFoundError:
            return _Read(version, None)
        except (OSError, ValueError, RecursionError) as error:
            self.problems.append(f"{file} cannot be used, and is left out: {_in_words(error)}")
            return _Read(version, None)

    def _usable(self, file: Path) -> _State:
        state = read_state(file, self._kind, MAX_BYTES)
        if state.model != self._model:
            raise ValueError(f"it is of another model, {printable(state.model)}")
        return state

    def _files_of_others(self) -> dict[str, tuple[tuple[int, int, int], Path]]:
        found: list[tuple[tuple[int, int, int], Path]] = []
        with os.scandir(self.path) as entries:
            for entry in entries:
                if not entry.name.startswith(f"{self._stem}@") or not entry.name.endswith(self._suffix):
                    continue
                if self._file is not None and entry.name == self._file.name:
                    continue
                try:
                    at = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                found.append(((at.st_mtime_ns, at.st_ino, at.st_size), self.path / entry.name))
        found.sort(reverse=True)
        return {file.name: (version, file) for version, file in found[:MOST_INSTANCES]}


def _is_held(descriptor: int) -> bool:
    """Take an open lock, or close it where another process has it. It is free as soon as that one has ended."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    except OSError:
        os.close(descriptor)
        raise
    return True


def _in_the_way(lock: Path, error: OSError) -> str:
    owner = lock.lstat().st_uid
    return (
        f"{lock} cannot be opened: {error.strerror}; it belongs to user {owner}, and this is user {os.geteuid()}. It "
        "is passed over, with what was known beside it: give both to this user, or remove them"
    )


def _in_words(error: BaseException) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else in_a_line(error)
