"""Where the sequences of one routed model are, in a file in memory that outlives the processes which serve it.

A routed model that is loaded afresh, or whose process was killed, finds the running sequences' targets here. The file
is a table of buckets: a sequence has its bucket by the digest of its correlation id, and in a full one the oldest makes
room. It is read where a sequence is not known and written where one begins or ends, about five microseconds each, and
not mapped: a page that cannot be had is then an error, and not the end of the process.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from hashlib import blake2b
from struct import Struct
from threading import Lock
from typing import TYPE_CHECKING

from triton_router.files import FILE_MODE
from triton_router.sharing.owners import Owner, is_there
from triton_router.sharing.place import make_directory, own_directory, safe_name

if TYPE_CHECKING:
    from pathlib import Path

VERSION = 1
"""Stands in the file's name: what another version writes is never read."""
_RECORD = Struct("=16sQQ")
_WAYS = 8
_BUCKETS = 4096
"""32,768 sequences, 1 MB; with half as many at once, one in fifty finds its bucket full."""
_BUCKET_BYTES = _WAYS * _RECORD.size
_EMPTY = _RECORD.pack(bytes(16), 0, 0)
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class SequenceFile:
    """One process's view of the file, which is made when the first sequence begins. Safe to use from several threads.

    Each method raises `OSError` if the file cannot be used.

    Args:
        path: Where it lies.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._lock = Lock()

    def find(self, correlation_id: int | str) -> int | None:
        """Return the key of the target that holds a sequence's state; None if it is not known."""
        digest = _digest(correlation_id)
        with self._lock:
            descriptor = self._opened()
            bucket = b"" if descriptor is None else _bucket(descriptor, _place(digest))
        at = bucket.find(digest)
        return None if at < 0 else _RECORD.unpack_from(bucket, at)[1]

    def put(self, correlation_id: int | str, key: int, now_ns: int) -> None:
        """Note where a sequence is; ``now_ns`` is the monotonic clock's."""
        digest = _digest(correlation_id)
        place = _place(digest)
        with self._lock:
            descriptor = self._opened()
            if descriptor is None:
                make_directory(self._path.parent)
                descriptor = self._open(_FLAGS | os.O_CREAT)
            bucket = _bucket(descriptor, place)
            at = bucket.find(digest)
            os.pwrite(descriptor, _RECORD.pack(digest, key, now_ns), place + (at if at >= 0 else _oldest(bucket)))

    def drop(self, correlation_id: int | str) -> None:
        """Forget a sequence."""
        digest = _digest(correlation_id)
        place = _place(digest)
        with self._lock:
            descriptor = self._opened()
            if descriptor is None:
                return
            at = _bucket(descriptor, place).find(digest)
            if at >= 0:
                os.pwrite(descriptor, _EMPTY, place + at)

    def close(self) -> None:
        """Let go of the file; one in which no sequence is left is removed."""
        with self._lock:
            descriptor = self._opened()
            if descriptor is None:
                return
            try:
                if not any(os.pread(descriptor, os.fstat(descriptor).st_size, 0)):
                    self._path.unlink(missing_ok=True)
            finally:
                os.close(descriptor)
                self._descriptor = None

    def _opened(self) -> int | None:
        """Return the file as it lies there now; None if there is none."""
        if self._descriptor is not None:
            if os.fstat(self._descriptor).st_nlink:
                return self._descriptor
            os.close(self._descriptor)  # another instance has removed it
            self._descriptor = None
        try:
            return self._open(_FLAGS)
        except FileNotFoundError:
            return None

    def _open(self, flags: int) -> int:
        descriptor = os.open(self._path, flags, FILE_MODE)
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            os.close(descriptor)
            raise PermissionError(0, f"{self._path} is not a file of this user")
        self._descriptor = descriptor
        return descriptor


def sequence_place(model: str, server: Owner, memory: Path) -> Path:
    """Return the path of a routed model's file.

    Args:
        model: The routed model.
        server: The process whose models hold the sequences' state: what is remembered is worth nothing without it.
        memory: Where files lie in memory.
    """
    digest = blake2b(model.encode(errors="surrogateescape"), digest_size=8).hexdigest()
    owner = f"{server.pid}-{server.started}-{server.namespace}"
    return own_directory(memory) / f"{safe_name(model)}-{digest}.sequences{VERSION}.{owner}"


def sweep(directory: Path, me: Owner) -> None:
    """Remove the files of servers that are gone, as far as this process can tell."""
    with suppress(OSError):  # there is no such directory, or somebody else removes them too
        for path in directory.glob("*.sequences*.*"):
            numbers = path.name.rpartition(".")[2].split("-")
            if len(numbers) == len(("pid", "started", "namespace")) and all(map(str.isdecimal, numbers)):
                server = Owner(*map(int, numbers))
                if is_there(server, me) is False:
                    path.unlink(missing_ok=True)


def _digest(correlation_id: int | str) -> bytes:
    # A number and a text that looks like it are two sequences.
    return blake2b(repr(correlation_id).encode(), digest_size=16).digest()


def _place(digest: bytes) -> int:
    return int.from_bytes(digest[:4], "little") % _BUCKETS * _BUCKET_BYTES


def _bucket(descriptor: int, place: int) -> bytes:
    """Return a bucket's records; where the file is not that long yet, empty ones."""
    return os.pread(descriptor, _BUCKET_BYTES, place).ljust(_BUCKET_BYTES, b"\0")


def _oldest(bucket: bytes) -> int:
    """Return where in its bucket the oldest record lies, or an empty one, which is older than all."""
    began = [began_ns for _, _, began_ns in _RECORD.iter_unpack(bucket)]
    return began.index(min(began)) * _RECORD.size
