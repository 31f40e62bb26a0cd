"""Edit ``router.yaml`` for a user: the change alone, validated first, in one step, and nobody else's change lost.

Editors of this project take turns by a lock on the file's directory, which leaves nothing behind. An editor that knows
nothing of it is noticed: the file is compared once more before the new one takes its place, which keeps its permissions
and its owner.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from typing import TYPE_CHECKING, NamedTuple

from triton_router.config.loading import parse_yaml, read_text
from triton_router.config.router_config import validate_router_config
from triton_router.config.splicing import Splice
from triton_router.errors import UnavailableError, UnsupportedError
from triton_router.files import TEMPORARY_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    Change = Callable[[Splice], object]
    """What is to be changed; called again where the file was changed by another editor meanwhile."""

_PATIENCE_S = 10.0
_POLL_S = 0.05
_ATTEMPTS = 5
"""Times that an edit is begun anew because somebody else has changed the file."""


class Edit(NamedTuple):
    """What a file said before an edit, and after it."""

    before: str
    after: str


class _ChangedMeanwhileError(Exception):
    """The file is not the one that was read."""


def edited_router_file(path: Path, change: Change) -> str:
    """Return what an edit would make of a ``router.yaml``; nothing is written.

    Raises:
        NotFoundError: There is no such file.
        ConfigError: It, or what would become of it, is not valid.
    """
    return _edited(path, read_text(path), change)


def edit_router_file(path: Path, change: Change) -> Edit:
    """Edit a ``router.yaml`` in place. Errors as `edited_router_file`, and:

    Raises:
        UnsupportedError: It cannot be replaced here (`why_not_in_place`).
        UnavailableError: Somebody else keeps editing it.
    """
    obstacle = why_not_in_place(path)
    if obstacle:
        raise UnsupportedError(f"{path} cannot be edited in place: {obstacle}", hint="change it where it comes from")
    with _turn(path.parent):
        for _ in range(_ATTEMPTS):
            before = read_text(path)
            after = _edited(path, before, change)
            if after == before:
                return Edit(before, after)
            with contextlib.suppress(_ChangedMeanwhileError):
                _replace(path, before, after)
                return Edit(before, after)
    raise UnavailableError(
        f"{path} was changed {_ATTEMPTS} times while it was edited; nothing was written",
        hint="wait for whoever does that, and run this again",
    )


def replace_text(path: Path, before: str, after: str) -> None:
    """Put a text in the place of a file that says ``before``, in one step.

    Raises:
        UnavailableError: It says something else by now.
        UnsupportedError: It cannot be replaced here.
    """
    obstacle = why_not_in_place(path)
    if obstacle:
        raise UnsupportedError(f"{path} cannot be edited in place: {obstacle}", hint="change it where it comes from")
    with _turn(path.parent):
        try:
            _replace(path, before, after)
        except _ChangedMeanwhileError:
            raise UnavailableError(
                f"{path} was changed by somebody else meanwhile; nothing was written", hint="run this again"
            ) from None


def why_not_in_place(path: Path) -> str:
    """Return why a file cannot be replaced by another one; empty if it can."""
    if path.is_symlink():
        return f"it is a link to {path.readlink()}, as in a Kubernetes ConfigMap; whoever owns that has to change it"
    if path.exists() and path.is_mount():
        return "it is mounted there by itself, as a ConfigMap with a subPath is; whoever owns that has to change it"
    if path.exists() and not os.access(path.parent, os.W_OK | os.X_OK):
        return f"{path.parent} is read-only for this user"
    return ""


def _edited(path: Path, text: str, change: Change) -> str:
    splice = Splice(text, source=str(path))
    change(splice)
    validate_router_config(parse_yaml(splice.text, source=f"{path} as it would be"))
    return splice.text


def _replace(path: Path, before: str, after: str) -> None:
    """Rename a file of ``after`` over one of ``before``.

    Raises:
        _ChangedMeanwhileError: It says something else.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        known = path.stat()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
            _keep_owner(file.fileno(), known)
            os.fchmod(file.fileno(), known.st_mode & 0o7777)
            file.write(after.encode())
            file.flush()
            os.fsync(file.fileno())
        now = path.stat()
        if (now.st_ino, now.st_mtime_ns) != (known.st_ino, known.st_mtime_ns) or read_text(path) != before:
            raise _ChangedMeanwhileError
        temporary.replace(path)
    except OSError as error:
        raise UnsupportedError(
            f"{path} cannot be replaced: {error.strerror}", hint="nothing has changed; edit it where it comes from"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it is in place; some file systems flush no directories
        _flush(path.parent)


def _keep_owner(descriptor: int, known: os.stat_result) -> None:
    made = os.fstat(descriptor)
    if (made.st_uid, made.st_gid) != (known.st_uid, known.st_gid):
        os.fchown(descriptor, known.st_uid, known.st_gid)


def _flush(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _turn(directory: Path) -> Generator[None]:
    """Hold the lock of a directory.

    Raises:
        UnavailableError: Another editor does not let go of it.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + _PATIENCE_S
        while not _locked(descriptor):
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"another triton-router edits {directory} and has not finished for {_PATIENCE_S:g} s",
                    hint="wait until it has",
                )
            time.sleep(_POLL_S)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: comparing before the rename has to do
        return True
    return True
