"""The audit log of a routed model's rollouts: who changed what, when, why, and by which figures.

One line of JSON for each change; lines are only ever added. Of several instances of a routed model one writes it: the
one that holds the file, which the next may take as soon as that process has ended.
"""

from __future__ import annotations

import json
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from triton_router.config.printable import shortened
from triton_router.files import make_private_directory, open_regular
from triton_router.telemetry.log_file import LogFile

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from triton_router.experiments.rollout_plan import Transition

SCHEMA = 1
MAX_BYTES = 16 << 20
"""Size from which on a new file is begun: some ten thousand changes. The one before it is kept."""
LONGEST_LINE = 16_384
"""In bytes; a longer one leaves its figures out."""
_LONGEST_TEXT = 1000
_MOST_WAITING = 256


class AuditLog:
    """Writes the changes of one routed model's rollouts, if no other instance does.

    Args:
        path: The file.
        model: Name of the routed model.
        instance: Name of this one.
    """

    def __init__(self, path: Path, model: str, instance: str) -> None:
        self.path = path
        self._file = LogFile(path, "", MAX_BYTES, durable=True)
        self._model = model
        self._instance = instance
        self._waiting: deque[str] = deque(maxlen=_MOST_WAITING)

    @property
    def has_waiting(self) -> bool:
        """Whether changes could not be written yet."""
        return bool(self._waiting)

    def write(self, rollout: str, changes: Iterable[Transition]) -> bool:
        """Write changes, and those that could not be written before; on the disk before this returns.

        Returns:
            Whether this instance is the one that writes; from then on it is.

        Raises:
            OSError: They cannot be written. They are tried again with the next ones, which may be none.
        """
        self._waiting.extend(self._line(rollout, change) for change in changes)
        make_private_directory(self.path.parent)
        if not self._file.hold():
            self._waiting.clear()
            return False
        if self._waiting:
            self._file.append("".join(self._waiting))
            self._waiting.clear()
        return True

    def close(self) -> None:
        """Leave the file to another instance."""
        self._file.close()

    def _line(self, rollout: str, change: Transition) -> str:
        entry: dict[str, Any] = {
            "schema": SCHEMA,
            "at": round(change.at, 3),
            "model": self._model,
            "instance": self._instance,
            "rollout": rollout,
            "by": shortened(change.by, _LONGEST_TEXT),
            "event": change.event,
            "before": change.before,
            "after": change.after,
            "reason": shortened(change.reason, _LONGEST_TEXT),
            "figures": change.figures,
        }
        line = json.dumps(entry) + "\n"
        return line if len(line) <= LONGEST_LINE else json.dumps(entry | {"figures": {}}) + "\n"


def read_audit_log(path: Path, *, last: int = 1000) -> list[dict[str, Any]]:
    """Return the last entries of an audit log, oldest first; none if there is no log. Lines that are none are left out.

    Raises:
        OSError: It cannot be read.
    """
    entries: deque[dict[str, Any]] = deque(maxlen=last)
    try:
        with open_regular(path, follow_links=False) as file:
            for line in islice(iter(lambda: file.readline(LONGEST_LINE + 1), b""), MAX_BYTES):
                entry = _entry(line)
                if entry is not None:
                    entries.append(entry)
    except FileNotFoundError:
        return []
    return list(entries)


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        entry: object = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", entry) if isinstance(entry, dict) else None
