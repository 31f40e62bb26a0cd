"""Where what is learned on this machine is kept, unless the user says otherwise."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from triton_router.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")


def default_state_directory(repositories: Sequence[Path], variables: Mapping[str, str] | None = None) -> Path:
    """Return the state directory of these repositories: one of its own for each place they lie in.

    It follows the XDG Base Directory specification: under ``$XDG_STATE_HOME``, or ``~/.local/state``.

    Args:
        repositories: At least one.
        variables: The environment's; those of the process by default.

    Raises:
        InvalidInputError: Nothing says where that is, as in a container whose user has no home.
    """
    found = os.environ if variables is None else variables
    base = Path(found.get("XDG_STATE_HOME", ""))
    if not base.is_absolute():  # as the specification wants it
        base = _home() / ".local" / "state"
    places = [path.resolve() for path in repositories]
    digest = hashlib.sha256("\0".join(str(place) for place in places).encode()).hexdigest()[:8]
    name = _UNSAFE.sub("_", places[0].name)[:64] or "models"
    return base / "triton-router" / f"{name}-{digest}"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError as error:
        raise InvalidInputError(
            "there is no home directory, so no place for what is learned",
            hint="pass --state DIR, or set XDG_STATE_HOME or HOME",
        ) from error
