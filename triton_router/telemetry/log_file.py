"""An append-only file of whole lines that no other process writes, of bounded size."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_LONGEST_LINE = 1 << 20
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class LogFile:
    """An append-only file of whole lines, for its owner only, with one predecessor.

    Args:
        path: Where it lies.
        head: First line of every file.
        max_bytes: Size from which on a new one is begun.
        durable: Whether lines are on the disk before `append` returns.

    Attributes:
        head: As passed; it may be changed, for the files that are begun from then on.
    """

    def __init__(self, path: Path, head: str, max_bytes: int, *, durable: bool = False) -> None:
        self.path = path
        self.head = head
        self._max_bytes = max_bytes
        self._durable = durable
        self._fd = -1
        self._size = 0

    def append(self, lines: str) -> None:
        """Write lines, all or none.

        Raises:
            OSError: They could not be written, or another process writes this file.
        """
        data = lines.encode()
        if self._fd >= 0 and not self._is_in_place():
            self.close()
        if self._fd >= 0 and self._size + len(data) > self._max_bytes and self._size > len(self.head):
            self.close()
            self.path.replace(self.path.with_name(f"{self.path.name}.1"))
        if self._fd < 0:
            self._open()
        if not self._size and not lines.startswith(self.head):
            data = self.head.encode() + data
        try:
            self._write(data)
        except OSError:
            with suppress(OSError):  # then whoever opens it next cuts the half line off
                os.ftruncate(self._fd, self._size)
            self.close()
            raise
        self._size += len(data)

    def hold(self) -> bool:
        """Open the file, so that no other process writes it; False if another one holds it.

        Raises:
            OSError: It cannot be opened.
        """
        if self._fd >= 0 and not self._is_in_place():
            self.close()
        if self._fd < 0:
            try:
                self._open()
            except BlockingIOError:
                return False
        return True

    def close(self) -> None:
        """Let the file go."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _is_in_place(self) -> bool:
        """Whether the open file still lies at its path: someone may have moved or deleted it."""
        try:
            at_path = self.path.lstat()
        except FileNotFoundError:
            return False
        return os.path.samestat(at_path, os.fstat(self._fd))

    def _open(self) -> None:
        # A symbolic link at that place would have the server write wherever another user likes.
        fd = os.open(self.path, _FLAGS, 0o600)
        try:
            _refuse_device(fd)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.fchmod(fd, 0o600)
            self._size = _whole_lines(fd)
        except OSError:
            os.close(fd)
            raise
        self._fd = fd

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        if self._durable:
            os.fsync(self._fd)


def _refuse_device(fd: int) -> None:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")


def _whole_lines(fd: int) -> int:
    """Cut off what a crash left of a last line; return the size that remains."""
    size = os.fstat(fd).st_size
    begin = max(0, size - _LONGEST_LINE)
    tail = os.pread(fd, size - begin, begin)
    if tail and not tail.endswith(b"\n"):
        size = begin + tail.rfind(b"\n") + 1
        os.ftruncate(fd, size)
    return size
