"""Files that anybody may have put there, opened without trust; files of our own, for our user alone.

What is opened is a regular file and nothing else: a pipe would keep its reader waiting, a device may never end. What
is written appears whole or not at all, and from its first byte on nobody else may read it, whatever the umask is.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from pathlib import Path

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
TEMPORARY_SUFFIX = ".tmp"


def open_regular(path: Path, *, follow_links: bool = True) -> BinaryIO:
    """Return the file at ``path``, open for reading.

    Args:
        path: Where it lies.
        follow_links: Whether ``path`` itself may be a symbolic link; in a directory that others write to, it may not.

    Raises:
        OSError: It cannot be opened, or is not a regular file.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow_links else os.O_NOFOLLOW)
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file")
    return os.fdopen(descriptor, "rb")


def make_private_directory(path: Path) -> None:
    """Make a directory, and those above it that are missing, for this user alone; one that exists stays as it is.

    Raises:
        OSError: It cannot be made, or something else is in its place.
    """
    missing = [place for place in (path, *path.parents) if not place.is_dir()]
    for place in reversed(missing):
        try:
            place.mkdir(mode=DIRECTORY_MODE)
        except FileExistsError:
            if not place.is_dir():  # or else another process has made it at the same time
                raise
        else:
            place.chmod(DIRECTORY_MODE)  # a umask may have taken even the owner's rights


def replace_private(path: Path, data: bytes) -> None:
    """Put a file of these bytes in the place of the one at ``path``, on the disk before this returns.

    Raises:
        OSError: It cannot be written; the old one is still whole.
    """
    # Nobody else can know the name, and what lies there nevertheless is neither followed nor written to.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        _write(temporary, data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush_directory(path.parent)


def _write(path: Path, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, FILE_MODE), "wb") as file:
        os.fchmod(file.fileno(), FILE_MODE)  # a umask may have taken even the owner's rights
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _flush_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
