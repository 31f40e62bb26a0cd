"""The processes on this machine that serve one router.yaml, and what they make of an edit of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from triton_router.config.watched_file import fingerprint
from triton_router.errors import ConfigError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PATIENCE_S = 20.0
"""Longest wait until an edit is followed: half a second by itself, more where Triton reloads the model for it."""
_POLL_S = 0.1


def serving(path: Path) -> list[dict[str, Any]]:
    """Return the status of every process of this machine that follows this router.yaml; none if none can be asked."""
    from triton_router.serving.status_socket import read_statuses

    try:
        statuses = read_statuses()
    except UnavailableError:
        return []
    return [status for status in statuses if status["settings"] and _is_same(status["settings"]["file"], path)]


def await_followed(path: Path, holds: Callable[[dict[str, Any]], bool], *, text: str, since: float) -> bool:
    """Wait until every process that serves a router.yaml does so by its edit; False where none can be asked.

    What counts is what the file said after the edit, or says by now: who edits it next goes on from there.

    Args:
        path: The file that was edited.
        holds: Whether a status is that of a process that has followed.
        text: What the file said after that.
        since: When the edit began, in seconds since 1970.

    Raises:
        ConfigError: One refuses to follow it.
        UnavailableError: One does not do so in time.
    """
    deadline = time.monotonic() + PATIENCE_S
    statuses = serving(path)
    if not statuses:
        return False
    # It takes a router two looks to take up an edit: a problem that is shown at once is that of an earlier one.
    refused = {status["server_pid"]: status["settings"]["refused"] for status in statuses}
    while True:
        late = [one for one in statuses if not (_is_in_force(one["settings"], path, text, since) and holds(one))]
        for status in late:
            settings = status["settings"]
            if settings["problem"] and settings["refused"] > refused.get(status["server_pid"], 0):
                raise ConfigError(
                    f"the router does not follow it: {settings['problem']}", hint="see 'triton-router status'"
                )
        if statuses and not late:
            return True
        if time.monotonic() > deadline:
            problems = {status["settings"]["problem"] for status in statuses} - {""}
            raise UnavailableError(
                f"{path} was edited, and what serves it has not followed within {PATIENCE_S:g} s"
                + (f": {min(problems)}" if problems else ""),
                hint="see 'triton-router status', and the server's log",
            )
        time.sleep(_POLL_S)
        statuses = serving(path)


def _is_in_force(settings: dict[str, Any], path: Path, text: str, since: float) -> bool:
    """Whether settings are those of a file's text, or of what it says by now."""
    if not settings["content"]:  # an older router: it can only tell when it followed, and not what
        return settings["followed_at"] >= since
    if settings["content"] == fingerprint(text.encode()):
        return True
    try:
        return settings["content"] == fingerprint(path.read_bytes())
    except OSError:  # it is gone, or being put back
        return False


def versions_called(status: dict[str, Any]) -> dict[str, int | None]:
    """Return which version of its model each target of a process calls; None for whatever Triton takes."""
    return {target["target"]["name"]: target["target"]["version"] for target in status["targets"]}


def _is_same(served: str, path: Path) -> bool:
    try:
        return path.samefile(served)
    except OSError:  # it lies elsewhere, as in a container of its own
        return False
