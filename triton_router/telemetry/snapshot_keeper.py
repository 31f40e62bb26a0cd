"""Keeps what a routed model learns on disk: read at the start, written by one thread on a timer and at the end.

A disk that is full or cannot be written never disturbs serving: it is said once in the server's log, counted, and
shown by ``triton-router status`` until it is over.
"""

from __future__ import annotations

import secrets
import time
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any

from triton_router.rounds import Rounds
from triton_router.telemetry.inheritance import inherit
from triton_router.telemetry.snapshot_file import MAX_ORIGINS, Snapshot, TargetState, identity_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from triton_router.config.router_config import TargetConfig
    from triton_router.profiling.profile import TargetProfile
    from triton_router.telemetry.state_directory import StateDirectory

    State = Callable[[], dict[str, dict[str, object]]]


class SnapshotKeeper:
    """Reads and writes the snapshots of one instance of one routed model.

    Args:
        directory: Where they lie.
        targets: As configured.
        machine: The kind of machine this is.
        identity: Names of the routed model and of this instance.
        warn: Writes a line to the server's log.

    Attributes:
        errors: Snapshots that could not be read or written.
    """

    def __init__(
        self,
        directory: StateDirectory,
        targets: Sequence[TargetConfig],
        machine: str,
        identity: tuple[str, str],
        warn: Callable[[str], None],
    ) -> None:
        self.errors = 0
        self._directory = directory
        self._identities = {settings.name: identity_of(settings) for settings in targets}
        self._targets = targets
        self._machine = machine
        self._model, self._instance = identity
        self._warn = warn
        self._origins: tuple[str, ...] = (secrets.token_hex(8),)
        self._lock = Lock()
        self._rounds = Rounds("snapshots", self.save)
        self._state: State | None = None
        self._last: dict[str, TargetState] = {}
        self._problem = ""
        self._saved_at = 0.0
        self._inherited: list[str] = []
        self._remarks: list[str] = []

    def inherited(self) -> dict[str, TargetProfile]:
        """Return the profiles to begin with: this instance's own, else what other instances learned, added up.

        What cannot be used is set aside and said in the server's log.
        """
        found = self._directory.find()
        self.errors += len(found.problems)
        self._remarks = found.problems
        for problem in found.problems:
            self._say(problem)
        inheritance = inherit(found.to_begin_with, self._targets, self._machine)
        for reason in inheritance.left:
            self._say(f"not taken over: {reason}")
        if found.own and found.own.origins and inheritance.profiles:
            self._origins = found.own.origins
        else:
            self._origins = (*self._origins, *inheritance.origins)[:MAX_ORIGINS]
        self._inherited = sorted(inheritance.profiles)
        return inheritance.profiles

    def start(self, state: State, interval_s: float) -> None:
        """Begin to write.

        Args:
            state: Returns the state of each target's profile.
            interval_s: Seconds between two snapshots.
        """
        self._state = state
        self._rounds.every_s = interval_s
        try:
            self._rounds.start()
        except RuntimeError as error:
            self._fail(f"no thread writes snapshots: {error}")

    def known_of(self, targets: Sequence[TargetConfig]) -> dict[str, TargetProfile]:
        """Return what this instance's snapshots, or else others', hold of targets that were not there at the start."""
        if not targets:
            return {}
        found = self._directory.find(set_aside=False)
        return inherit(found.to_begin_with, targets, self._machine).profiles

    @contextmanager
    def changing(self, targets: Sequence[TargetConfig], interval_s: float) -> Generator[None]:
        """Write nothing while the targets change; then write about these, in such intervals."""
        with self._lock:
            yield
            self._targets = targets
            self._identities = {settings.name: identity_of(settings) for settings in targets}
            self._rounds.every_s = interval_s

    def close(self) -> None:
        """Stop, and write once more."""
        self._rounds.close()
        self.save()

    def save(self) -> None:
        """Write a snapshot now, if anything has been learned since the last one. Never raises for what a disk does."""
        if self._state is None:
            return
        with self._lock:
            states = self._state()
            targets = {
                name: TargetState(identity=identity, profile=states[name])
                for name, identity in self._identities.items()
                if name in states
            }
            if targets == self._last:
                return
            self._write(targets)

    def status(self) -> dict[str, Any]:
        """Return what ``triton-router status`` shows."""
        return {
            "directory": str(self._directory.path),
            "inherited": self._inherited,
            "saved_at": self._saved_at,
            "errors": self.errors,
            "problem": self._problem,
            "remarks": self._remarks,
        }

    def _write(self, targets: dict[str, TargetState]) -> None:
        now = time.time()
        try:
            self._directory.save(
                Snapshot(
                    model=self._model,
                    instance=self._instance,
                    machine=self._machine,
                    origins=self._origins,
                    written_at=now,
                    targets=targets,
                )
            )
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self._fail(f"{self._directory.file} cannot be written: {reason}")
            return
        self._last = targets
        self._saved_at = now
        if self._problem:
            self._problem = ""
            self._say("snapshots are written again")

    def _fail(self, problem: str) -> None:
        self.errors += 1
        if problem != self._problem:
            self._problem = problem
            self._say(
                f"{problem}; serving goes on, and what was learned is lost with this process unless the directory "
                f"{self._directory.path} can be written again"
            )

    def _say(self, message: str) -> None:
        self._warn(f"routed model {self._model!r}: {message}")
