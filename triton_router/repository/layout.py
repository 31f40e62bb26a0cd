"""Put finished directories into a model repository so that Triton sees all of a model or nothing.

Everything is built in a staging directory beside the repository (inside, Triton would load it), on the same file
system, so that each step of the installation is one atomic rename. Steps are undone in reverse order when a
later one fails or the user presses Ctrl-C.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from triton_router.errors import InvalidInputError, UnavailableError, UnsupportedError
from triton_router.repository import manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import TracebackType

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_DIRECTORY_MODE = 0o755
_FILE_MODE = 0o644
"""Readable by the server's user, whatever umask the build ran under; nothing here is executed."""


def check_name(name: str) -> str:
    """Return ``name`` if it is safe as a directory and as a Triton model name.

    Raises:
        InvalidInputError: It is not.
    """
    if not NAME.fullmatch(name):
        raise InvalidInputError(
            f"{name!r} is not a usable model name",
            hint="use letters, digits, dots, hyphens and underscores, beginning with a letter or digit",
        )
    return name


@contextlib.contextmanager
def locked(repository: Path) -> Generator[None]:
    """Hold the repository's lock, creating the repository if need be.

    Raises:
        UnavailableError: Another process is adding a model.
    """
    created = [path for path in (repository, *repository.parents) if not path.exists()]
    try:
        repository.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInputError(
            f"the repository {repository} cannot be created: {error.strerror}", hint="give a directory"
        ) from error
    # The directory itself is locked: no lock file is left for Triton or git to stumble over.
    descriptor = os.open(repository, os.O_RDONLY)
    try:
        _lock(descriptor, repository)
        yield
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):  # not empty: something was installed
            for path in created:
                path.rmdir()


def _lock(descriptor: int, repository: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UnavailableError(
            f"another triton-router add is working on {repository}", hint="wait until it has finished"
        ) from error


@contextlib.contextmanager
def staging(repository: Path) -> Generator[Path]:
    """Yield an empty directory beside the repository; it is gone afterwards, however the block ends.

    What a killed run left there is removed first; the caller holds the lock.

    Raises:
        UnsupportedError: The repository is a file system of its own, so that nothing beside it can be renamed in.
    """
    parent = repository.resolve().parent
    prefix = f".{repository.resolve().name}.staging-"
    if parent.stat().st_dev != repository.stat().st_dev:
        raise UnsupportedError(
            f"{repository} is the root of a file system, so models cannot be moved into it atomically",
            hint="use a subdirectory of it as the repository",
        )
    for left in parent.glob(prefix + "*"):
        shutil.rmtree(left, ignore_errors=True)
    try:
        path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    except OSError as error:
        raise UnsupportedError(
            f"no staging directory can be made in {parent}: {error.strerror}",
            hint="models are built beside the repository; make its parent directory writable, or use another",
        ) from error
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def require_ours(repository: Path, name: str, owner: str) -> None:
    """Refuse to touch a model directory that was not made for the routed model ``owner``.

    Raises:
        InvalidInputError: There is one without a manifest, or with another model's.
    """
    directory = repository / name
    if not directory.exists():
        return
    found = manifest.read(directory)
    if found is None:
        raise InvalidInputError(
            f"{directory} exists and was not made by triton-router (it has no {manifest.MANIFEST_FILE})",
            hint="choose another --name, or move that directory away",
        )
    if found.get("model") != owner or (name == owner) != ("target" not in found):
        raise InvalidInputError(
            f"{directory} belongs to the routed model {found.get('model')!r}", hint="choose another --name"
        )


class Installation:
    """A series of steps that either all happen or are all undone.

    Args:
        repository: The model repository.
        trash: Directory on the same file system for what is replaced.
    """

    def __init__(self, repository: Path, trash: Path) -> None:
        self._repository = repository
        self._trash = trash
        self._undo: list[Callable[[], object]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            while self._undo:
                self._undo.pop()()

    def install(self, name: str, staged: Path, version: int) -> None:
        """Move a staged model directory into the repository.

        A new model is one rename. For an existing one its version directory comes first and the files beside it
        afterwards, so that a server polling in between never sees a configuration without its version.

        Args:
            name: The Triton model's name.
            staged: Directory with ``config.pbtxt``, ``manifest.json`` and the version directory.
            version: The version that is new.
        """
        for path in (staged, *staged.rglob("*")):
            path.chmod(_DIRECTORY_MODE if path.is_dir() else _FILE_MODE)
        target = self._repository / name
        if not target.exists():
            self._move(staged, target)
            return
        entries = sorted(
            staged.iterdir(), key=lambda path: (path.name == manifest.MANIFEST_FILE, not path.is_dir(), path.name)
        )
        for entry in entries:
            if entry.is_dir() and entry.name != str(version):
                self._merge(entry, target / entry.name)
            else:
                self._move(entry, target / entry.name)

    def _merge(self, source: Path, target: Path) -> None:
        """Move what is in a directory (``artifacts``) into the existing one of that name."""
        if not target.exists():
            self._move(source, target)
            return
        for entry in source.iterdir():
            self._move(entry, target / entry.name)

    def _move(self, source: Path, target: Path) -> None:
        """Rename, keeping what was there for the way back; the undo is noted before the step is taken."""
        kept: Path | None = None
        if target.exists():
            kept = self._trash / f"{len(self._undo)}-{target.name}"
        self._undo.append(lambda: _restore(target, source, kept))
        if kept is not None and target.is_dir():
            target.rename(kept)
        elif kept is not None:
            shutil.copy2(target, kept)
        source.replace(target)


def _restore(target: Path, source: Path, kept: Path | None) -> None:
    """Undo one move at whatever point it stopped."""
    if not source.exists() and target.exists():
        target.rename(source)
    if kept is not None and kept.exists():
        kept.replace(target)
