"""Keeps the rollout and the experiment of a routed model going: judged every second, written down, shared, resumed.

A disk that is full or cannot be written disturbs neither serving nor the gate: that is said once in the server's log,
counted, and shown by ``triton-router status`` until it is over.
"""

from __future__ import annotations

import time
import traceback
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any

from triton_router.experiments.rollout_plan import ENDED
from triton_router.rounds import Rounds
from triton_router.telemetry.audit_log import AuditLog
from triton_router.telemetry.trial_files import MOST_KNOWN, TrialFiles, TrialState

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path

    from triton_router.experiments.rollout_plan import Transition
    from triton_router.experiments.splitting_engine import SplittingEngine, Trials

STEP_S = 1.0
"""Between two looks at what the canary does."""
_WRITE_S = 5.0
"""Between two writings while nothing but figures changes and nobody else wants them."""
_LIVING_S = 10.0
"""An instance that has written within this time is alive, and wants to know."""
_MOST_REMARKS = 8
_ALARMING = frozenset({"rollback", "alarm"})


class TrialKeeper:
    """Keeps the trials of one instance of a routed model.

    Args:
        engine: Knows them.
        place: The state directory; None where nothing is kept.
        identity: Names of the routed model and of this host.
        tell: Writes a line to the server's log.
        warn: Likewise, a warning.
        clock: Wall clock, seconds.

    Attributes:
        errors: What could not be read or written.
        transitions: Changes of rollouts that this instance has written down, by event.
    """

    def __init__(
        self,
        engine: SplittingEngine,
        place: Path | None,
        identity: tuple[str, str],
        *,
        tell: Callable[[str], None],
        warn: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.errors = 0
        self.transitions: dict[str, int] = {}
        self._engine = engine
        self._model, host = identity
        self._tell = tell
        self._warn = warn
        self._clock = clock
        self._files = TrialFiles(place, self._model, host) if place is not None else None
        self._log = AuditLog(self._files.audit_log, self._model, host) if self._files else None
        self._leads = self._log is None
        self._known: dict[str, dict[str, dict[str, object]]] = {"rollouts": {}, "experiments": {}}
        self._others: list[TrialState] = []
        self._written: dict[str, dict[str, dict[str, object]]] = {}
        self._written_at = 0.0
        self._is_urgent = False
        self._problems: dict[str, str] = {}
        self._remarks: list[str] = []
        self._has_said_memory = False
        self._lock = Lock()
        self._rounds = Rounds("trials", self.look, STEP_S, failed=self._tell_of_defect)

    def begin(self) -> None:
        """Go on where this instance, or another one, was; before anything is served.

        What cannot be read is said in the server's log, and begins anew.
        """
        with self._lock:
            if self._files is not None:
                self._claim(self._files)
            self._resume(besides=())
            self._round()

    def start(self) -> None:
        """Look every second from now on."""
        try:
            self._rounds.start()
        except RuntimeError as error:
            self._fail("thread", f"no thread watches over rollouts: {error}")

    @contextmanager
    def following(self, trials: Trials) -> Generator[None]:
        """Have the engine go on with other trials. Its targets are to be changed while this is open."""
        with self._lock:
            self._remember()
            before = self._rollout_id()
            going_on = [state["id"] for _, state in self._states()]
            changes = self._engine.follow(trials, self._clock())
            # At once: that has happened, whatever becomes of the other settings.
            self._note(self._rollout_id() or before, changes)
            self._is_urgent |= bool(changes)
            self._resume(besides=going_on)
            yield
            self._round()

    def look(self) -> None:
        """Look once."""
        with self._lock:
            self._round()

    def close(self) -> None:
        """Stop, write once more, and leave the files to the next."""
        self._rounds.close()
        with self._lock:
            self._save(urgent=True)
            if self._log is not None:
                if self._log.has_waiting:
                    self._write_down(self._log, "", ())
                self._log.close()
            if self._files is not None:
                self._files.close()

    def rollout(self) -> dict[str, object] | None:
        """Return how the rollout stands; None if there is none."""
        return self._engine.rollout_report(self._clock())

    def experiment(self) -> dict[str, object] | None:
        """Return the results of the experiment, those of other instances included; None if there is none."""
        peers = [state for other in self._others for state in other.experiments.values()]
        return self._engine.experiment_report(self._clock(), peers)

    def status(self) -> dict[str, Any]:
        """Return what ``triton-router status`` shows of the keeping itself."""
        return {
            "directory": str(self._files.path) if self._files else "",
            "audit_log": str(self._log.path) if self._log else "",
            "writes_audit_log": self._log is not None and self._leads,
            "errors": self.errors,
            "problem": "; ".join(self._problems.values()),
            "remarks": self._remarks,
        }

    def _tell_of_defect(self, error: Exception) -> None:
        traceback.print_exc()
        self._fail("gate", f"rollouts cannot be judged: {type(error).__name__}: {error}")

    def _claim(self, files: TrialFiles) -> bool:
        """Take a file; whether it says where to go on."""
        try:
            own = files.claim()
        except OSError as error:
            problem = f"no file for rollouts and experiments can be had in {files.path}: {error.strerror or error}"
            self._fail("file", problem)
            return False
        if own is None:
            return False
        self._known = {"rollouts": dict(own.rollouts), "experiments": dict(own.experiments)}
        return True

    def _states(self) -> list[tuple[str, dict[str, object]]]:
        """Return the state of the rollout and that of the experiment, each with what it is."""
        states = (("rollout", self._engine.rollout_state()), ("experiment", self._engine.experiment_state()))
        return [(kind, state) for kind, state in states if state is not None]

    def _resume(self, besides: Sequence[object]) -> None:
        """Give the engine what is known of its trials, but for those that it has gone on with, by id."""
        for kind, state in self._states():
            name = str(state["id"])
            known = self._known[f"{kind}s"].get(name)
            if known is None or name in besides:
                continue
            try:
                self._engine.resume(**{kind: known})
            except ValueError as error:
                self._remark(f"what is known of {kind} {name} cannot be used: {error}; it begins anew")
            else:
                self._tell(f"routed model {self._model!r}: {kind} {name} goes on where it was")

    def _round(self) -> None:
        files = self._files
        if files is not None:
            if not files.is_claimed and self._claim(files):  # as when the disk was full at the start
                # What has come to an end meanwhile knows more than the file: no rollback is taken back.
                self._resume(besides=[state["id"] for _, state in self._states() if state.get("phase") in ENDED])
            self._others = files.others() if self._states() else []
            for problem in files.problems:
                self._remark(problem)
            files.problems.clear()
        peers = [state for other in self._others for state in other.rollouts.values()]
        changes = self._engine.step(self._clock(), peers)
        self._note(self._rollout_id(), changes)
        self._save(urgent=bool(changes))
        self._solve("gate")

    def _rollout_id(self) -> str:
        state = self._engine.rollout_state()
        return str(state["id"]) if state is not None else ""

    def _note(self, rollout: str, changes: Sequence[Transition]) -> None:
        for change in changes:
            say = self._warn if change.event in _ALARMING else self._tell
            say(
                f"routed model {self._model!r}: rollout {rollout}: {change.event} by {change.by}, "
                f"{change.before:.2%} to {change.after:.2%}: {change.reason}"
            )
        if self._files is None and not self._has_said_memory and self._states():
            self._has_said_memory = True
            self._warn(
                f"routed model {self._model!r}: what rollouts and experiments come to is kept in memory only, as there "
                "is no state directory: the next start begins anew, and other instances know nothing of it"
            )
        if self._log is not None and (rollout or self._log.has_waiting):
            self._write_down(self._log, rollout, changes)
        if self._leads:
            for change in changes:
                self.transitions[change.event] = self.transitions.get(change.event, 0) + 1

    def _write_down(self, log: AuditLog, rollout: str, changes: Sequence[Transition]) -> None:
        try:
            self._leads = log.write(rollout, changes)
        except OSError as error:
            self._fail("audit log", f"{log.path} cannot be written: {error.strerror or error}")
        else:
            self._solve("audit log")

    def _remember(self) -> None:
        """Take the state of the trials to what is known; the longest gone are forgotten."""
        for kind, state in self._states():
            name, known = str(state["id"]), self._known[f"{kind}s"]
            latest = {**{other: one for other, one in known.items() if other != name}, name: state}
            self._known[f"{kind}s"] = dict(list(latest.items())[-MOST_KNOWN:])

    def _save(self, *, urgent: bool) -> None:
        now = self._clock()
        self._is_urgent |= urgent  # until it is written: a rollback that met a full disk is tried again
        if self._files is None or not self._files.is_claimed or not (self._is_urgent or self._is_due(now)):
            return
        self._remember()
        known = dict(self._known)
        if known == self._written or not any(known.values()):
            self._is_urgent = False
            return
        state = TrialState(
            model=self._model,
            written_at=max(0.0, now),
            rollouts=known["rollouts"],
            experiments=known["experiments"],
        )
        try:
            self._files.save(state, twice=self._is_urgent)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self._fail("file", f"rollouts and experiments cannot be written to {self._files.path}: {reason}")
            return
        self._written, self._written_at, self._is_urgent = known, now, False
        self._solve("file")

    def _is_due(self, now: float) -> bool:
        """Whether what has changed meanwhile is worth writing: nothing but time passes for a rollout that has ended."""
        if all(kind == "rollout" and state["phase"] in ENDED for kind, state in self._states()):
            return False
        others = any(abs(now - other.written_at) < _LIVING_S for other in self._others)
        return others or abs(now - self._written_at) >= _WRITE_S

    def _remark(self, problem: str) -> None:
        """Say what happened once, and is over."""
        self.errors += 1
        self._remarks = [*self._remarks, problem][-_MOST_REMARKS:]
        self._warn(f"routed model {self._model!r}: {problem}")

    def _fail(self, what: str, problem: str) -> None:
        """Say what goes on being wrong, once."""
        self.errors += 1
        if self._problems.get(what) != problem:
            self._problems[what] = problem
            self._warn(f"routed model {self._model!r}: {problem}; serving goes on")

    def _solve(self, what: str) -> None:
        if self._problems.pop(what, ""):
            self._tell(f"routed model {self._model!r}: what was wrong with the {what} of rollouts is over")
