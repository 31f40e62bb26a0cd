"""Where the instances of a routed model find what they share: the same for all of one model, on one host."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from triton_router.files import DIRECTORY_MODE
from triton_router.sharing.layout import VERSION

if TYPE_CHECKING:
    from triton_router.sharing.owners import Owner

MEMORY = Path("/dev/shm")  # noqa: S108 - a directory for this user alone is made in it, and what lies there is checked
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")


def shared_place(model: str, state: Path | None, server: Owner, *, memory: Path = MEMORY) -> Path:
    """Return the file's path.

    Args:
        model: The routed model.
        state: The server's state directory: who has the same one shares, in several servers too.
        server: The server, whose instances share where it has no state directory.
        memory: Where files lie in memory.
    """
    # A path, and not what lies there: the directory is made when something is first written to it.
    group = f"state {os.path.realpath(state)}" if state is not None else f"server {server.pid} {server.started}"
    digest = sha256(f"{group}\0{model}".encode(errors="surrogateescape")).hexdigest()[:16]
    return own_directory(memory) / f"{safe_name(model)}-{digest}.v{VERSION}"


def own_directory(memory: Path) -> Path:
    """Return where this user's files lie in memory."""
    return memory / f"triton-router-{os.geteuid()}"


def safe_name(model: str) -> str:
    """Return a model's name as a part of a file's."""
    return _UNSAFE.sub("_", model)[:80] or "_"


def make_directory(path: Path) -> None:
    """Make the directory, for this user alone. Anybody may have put something else in its place.

    Raises:
        OSError: It cannot be made, or is not this user's alone.
    """
    with suppress(FileExistsError):
        path.mkdir(mode=DIRECTORY_MODE)
        path.chmod(DIRECTORY_MODE)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError(0, f"{path} is not a directory for this user alone")
