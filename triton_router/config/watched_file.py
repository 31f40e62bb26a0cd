"""A file that may change at any time: says when it has come to rest with another content.

Nothing is asked of whoever changes it. Renaming another file over it, swapping the link that leads to it (as Kubernetes
does with ConfigMaps) and writing it in place are all noticed; a file that somebody still writes is left until it
is whole.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import sys
from typing import TYPE_CHECKING, NamedTuple

from triton_router.errors import ConfigError, NotFoundError
from triton_router.files import open_regular

if TYPE_CHECKING:
    from pathlib import Path

RESTING_LOOKS = 4
"""Looks in a row at which a file that is missing, or whose writers nobody can tell, has to be the same."""
_PATIENT_LOOKS = 20
"""Likewise one that stays open for writing, before that is said."""


class _Sighting(NamedTuple):
    """What changes whenever a file's content may have."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


class WatchedFile:
    """One file, looked at by one thread on a timer.

    Args:
        path: The file, or a link that leads to it.
        max_bytes: What a file may have at most.
    """

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._known = self._pending = self._sighting()
        self._rests = 0

    def look(self) -> bytes | None:
        """Return the file's content, if it may be another than at the last look and nobody is writing it.

        Raises:
            NotFoundError: The file is gone; said once.
            ConfigError: It cannot be read, is too large, or has been open for writing for long; said once.
        """
        found = self._sighting()
        if found == self._known:
            self._pending = found
            return None
        if found != self._pending:
            self._pending, self._rests = found, 0
            return None
        self._rests += 1
        if found is None:
            return self._gone()
        try:
            return self._content(found)
        except OSError as error:
            self._known = found
            raise ConfigError(f"{self._path} cannot be read: {error.strerror}", hint="check its permissions") from error

    def _content(self, found: _Sighting) -> bytes | None:
        with open_regular(self._path) as file:
            descriptor = file.fileno()
            being_written = _is_being_written(descriptor)
            if being_written or (being_written is None and self._rests < RESTING_LOOKS):
                return self._unfinished() if being_written else None
            content = file.read(self._max_bytes + 1)
            if _sighting_of(os.fstat(descriptor)) != found:
                return None
        self._known = found
        if len(content) > self._max_bytes:
            raise ConfigError(
                f"{self._path} has more than {self._max_bytes} bytes",
                hint="such a file is a few kilobytes; is it the right one?",
            )
        return content

    def _gone(self) -> None:
        if self._rests < RESTING_LOOKS:
            return
        self._known = None
        raise NotFoundError(f"{self._path} is gone", hint="put it back")

    def _unfinished(self) -> None:
        if self._rests == _PATIENT_LOOKS:
            raise ConfigError(
                f"{self._path} has changed, and some process still has it open for writing",
                hint="it is taken as soon as that process closes it",
            )

    def _sighting(self) -> _Sighting | None:
        try:
            return _sighting_of(self._path.stat())
        except OSError:  # whatever keeps it from being seen, it is not there to be read
            return None


def fingerprint(content: bytes) -> str:
    """Return what tells a file's content from any other."""
    return hashlib.sha256(content).hexdigest()


def _sighting_of(stat: os.stat_result) -> _Sighting:
    return _Sighting(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def _is_being_written(descriptor: int) -> bool | None:
    """Whether any process has the file open for writing; None where the system cannot tell.

    Linux grants a lease for reading only while nobody has. It tells the holder by a signal when somebody wants to
    write: SIGURG, which does nothing, instead of SIGIO, which would end this process. The lease is given back at once.
    """
    if sys.platform != "linux":
        return None
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except OSError:  # another user's file, or a file system without leases
        return None
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
