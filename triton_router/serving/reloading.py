"""Notices that ``router.yaml`` has changed, and has the routed model follow it.

An edit that is not valid, or that a serving model cannot follow, changes nothing: the last good settings stay in force.
It is said once in the server's log, counted, and shown by ``triton-router status`` until a good one comes.
"""

from __future__ import annotations

import time
import traceback
from typing import TYPE_CHECKING, Any

from triton_router.config.loading import MAX_DOCUMENT_BYTES
from triton_router.config.watched_file import WatchedFile, fingerprint
from triton_router.errors import ConfigError, TritonRouterError
from triton_router.files import open_regular
from triton_router.rounds import Rounds

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LOOK_EVERY_S = 0.25
"""An edit is followed at the second look that finds it: within half a second."""


class Reloading:
    """Watches one routed model's settings until closed.

    Args:
        path: The file. It is looked at from now on: read it after this.
        warn: Writes a line to the server's log.

    Attributes:
        followed: Edits that were taken.
        refused: Edits that were not.
    """

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        self.followed = 0
        self.refused = 0
        self._path = path
        self._file = WatchedFile(path, max_bytes=MAX_DOCUMENT_BYTES)
        self._follow: Callable[[str], None] = _nothing
        self._warn = warn
        self._problem = ""
        self._followed_at = time.time()
        self._content = _fingerprint_at(path)
        self._rounds = Rounds("reloading", self.look, LOOK_EVERY_S)

    def start(self, follow: Callable[[str], None]) -> None:
        """Begin to look.

        Args:
            follow: Takes the file's text and has the model follow it. Raises `TritonRouterError` if it cannot, and has
                then changed nothing.
        """
        self._follow = follow
        try:
            self._rounds.start()
        except RuntimeError as error:
            self._refuse(f"no thread watches {self._path}: {error}")

    def close(self) -> None:
        """Look no more. What is being followed is followed to its end."""
        self._rounds.close()

    def status(self) -> dict[str, Any]:
        """Return what ``triton-router status`` shows."""
        return {
            "file": str(self._path),
            "followed_at": self._followed_at,
            "content": self._content,
            "followed": self.followed,
            "refused": self.refused,
            "problem": self._problem,
        }

    def counts(self) -> dict[str, float]:
        """Return the metrics of the whole model that are known here."""
        return {
            "triton_router_settings_followed_total": self.followed,
            "triton_router_settings_refused_total": self.refused,
            "triton_router_settings_problem": bool(self._problem),
        }

    def look(self) -> None:
        """Look once. Never raises: whatever an edit does, the model goes on serving."""
        try:
            content = self._file.look()
            if content is None:
                return
            self._follow(_text(content, self._path))
        except TritonRouterError as error:
            self._refuse(f"{error.message} (hint: {error.hint})")
        except Exception as error:  # noqa: BLE001 - a defect in following must not end the thread that follows the next
            traceback.print_exc()
            self._refuse(f"{self._path} cannot be followed: {type(error).__name__}: {error}")
        else:
            self.followed += 1
            self._followed_at = time.time()
            self._content = fingerprint(content)
            self._problem = ""

    def _refuse(self, problem: str) -> None:
        self.refused += 1
        if problem != self._problem:
            self._problem = problem
            self._warn(f"{problem}; the settings of before stay in force")


def _nothing(_: str) -> None:
    """Before anything follows."""


def _fingerprint_at(path: Path) -> str:
    try:
        with open_regular(path) as file:
            return fingerprint(file.read(MAX_DOCUMENT_BYTES + 1))
    except OSError:  # whoever reads it next says why
        return ""


def _text(content: bytes, path: Path) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error}", hint="save it as UTF-8") from error
