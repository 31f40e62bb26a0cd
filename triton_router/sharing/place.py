"""Which file the instances of a routed model share: the same for all of one model, on one host, over one state."""

from __future__ import annotations

import os
import re
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

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
    name = _UNSAFE.sub("_", model)[:80] or "_"
    return memory / f"triton-router-{os.geteuid()}" / f"{name}-{digest}.v{VERSION}"
