"""Looks now and then, off the request path, at whether a routed model's targets are loaded and their processes alive.

What it finds keeps a target out of decisions, or brings it back, within about one interval. Nothing it finds lasts: a
finding that is not confirmed is forgotten after a few intervals, so a watch that has stopped keeps nobody out.
"""

from __future__ import annotations

import time
import traceback
from math import inf
from typing import TYPE_CHECKING, NamedTuple, Protocol

from triton_router.rounds import Rounds
from triton_router.serving.stub_processes import Seen, StubDeaths, stubs_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from triton_router.config.router_config import TargetConfig
    from triton_router.serving.stub_processes import Stub

_VALID_INTERVALS = 4
_LEAST_VALID_S = 3.0


class Marks(Protocol):
    """Who is told what was found; the routing engine."""

    def mark(self, target: str, problem: str, now: float, valid_s: float) -> None:
        """Note what keeps a target from serving; "" if it is well."""
        ...


class Readiness(Protocol):
    """Says whether the server holds a model for ready; `ServerHealth`."""

    def is_ready(self, model: str, version: int | None) -> bool | None:
        """Return it; None if it cannot be told."""
        ...


class Processes(Protocol):
    """Looks at the server's processes; `StubScan`."""

    def look(self) -> Seen:
        """Return what there is."""
        ...


class WatchedTarget(NamedTuple):
    """A target, and what serves it; version None stands for whichever the server takes."""

    name: str
    model: str
    version: int | None


class TargetWatch:
    """Watches until closed.

    Args:
        marks: Is told what was found, from a thread of its own.
        readiness: Of the server's models.
        processes: Of the server.
        lose: Is told of a target whose process has ended: what was sent to it before that moment gets no answer.
        warn: Writes a line to the server's log.
        clock: Monotonic seconds, as the engine knows them.
    """

    def __init__(
        self,
        marks: Marks,
        readiness: Readiness,
        processes: Processes,
        lose: Callable[[str, float], None],
        warn: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._marks = marks
        self._readiness = readiness
        self._processes = processes
        self._lose = lose
        self._warn = warn
        self._clock = clock
        self._deaths = StubDeaths()
        self._live: list[Stub] = []
        self._targets: tuple[WatchedTarget, ...] = ()
        self._interval_s = 0.0
        self._problems: dict[str, str] = {}
        self.deaths_seen = 0
        """Processes of targets that died, so far."""
        self._counted: set[int] = set()
        self._rounds = Rounds("target-watch", self._round, failed=self._tell_of_defect)

    def follow(self, targets: Iterable[TargetConfig], interval_s: float) -> None:
        """Watch these targets from now on, this often; never where the interval is 0."""
        self._targets = tuple(WatchedTarget(target.name, target.model, target.version) for target in targets)
        self._interval_s = interval_s
        self._rounds.every_s = interval_s or inf
        self._rounds.wake()

    def start(self) -> None:
        """Begin; `follow` says with what."""
        try:
            self._rounds.start()
        except RuntimeError as error:
            self._warn(f"targets are not watched: {error}")

    def close(self) -> None:
        """Stop; waits for a look that is under way, a second or so for each target at worst."""
        self._rounds.close()

    def look(self) -> None:
        """Look once, and tell what was found."""
        seen = self._processes.look()
        models = {target.model for target in self._targets}
        watched = Seen([stub for stub in seen.live if stub.model in models], seen.ended)
        dead = self._deaths.update(watched, self._readiness.is_ready)
        self._count({death.stub.pid for death in dead})
        # Whether or not it is being loaded afresh already: the server answers what the old process had one by one.
        fallen = [stub for stub in self._live if seen.ended.get(stub.pid)]
        self._live = watched.live
        problems = dict(self._problems)
        for target in self._targets:
            if self._rounds.is_closing:
                return
            lost = [str(death) for death in dead if stubs_of([death.stub], target.model, target.version)]
            problem = "; ".join(lost) or self._unready(target)
            if problem is not None:
                problems[target.name] = problem
                self._marks.mark(target.name, problem, self._clock(), self._valid_s())
            if stubs_of(fallen, target.model, target.version):
                # Marked, it gets no more: what it got until now waits at a process that is no more.
                self._lose(target.name, self._clock())
        self._report(problems)

    def status(self) -> Mapping[str, str]:
        """Return each target's problem, by its name; only of those that have one."""
        return {name: problem for name, problem in self._problems.items() if problem}

    def counts(self) -> dict[str, float]:
        """Return the metrics of the whole model that are known here."""
        return {"triton_router_target_processes_died_total": self.deaths_seen}

    def _unready(self, target: WatchedTarget) -> str | None:
        """Return why a target whose processes live cannot serve; "" if it can, None if that cannot be told."""
        ready = self._readiness.is_ready(target.model, target.version)
        if ready is None:
            # Its processes were what was wrong with it, and they are there again.
            return "" if self._problems.get(target.name, "").startswith("process ") else None
        version = f" version {target.version}" if target.version else ""
        return "" if ready else f"the server has no ready model {target.model!r}{version}"

    def _count(self, pids: set[int]) -> None:
        self.deaths_seen += len(pids - self._counted)
        self._counted = pids

    def _report(self, problems: dict[str, str]) -> None:
        """Say what has changed, once."""
        names = {target.name for target in self._targets}
        for name, problem in problems.items():
            if problem != self._problems.get(name, "") and name in names:
                self._warn(f"target {name!r}: {problem}" if problem else f"target {name!r} can serve again")
        self._problems = {name: problem for name, problem in problems.items() if name in names}

    def _valid_s(self) -> float:
        return max(_LEAST_VALID_S, _VALID_INTERVALS * self._interval_s)

    def _round(self) -> None:
        if self._interval_s > 0:
            self.look()

    def _tell_of_defect(self, _: Exception) -> None:
        self._warn(f"targets could not be looked at:\n{traceback.format_exc()}")
