"""Notices that a process of a served model has died, says so, and has the model loaded afresh.

Triton itself neither notices nor repairs that before server 26.01: requests in a killed router process are never
answered, later ones fail after a second each. A routed model is always repaired; a target where a routed model's
``router.yaml`` says ``health: {repair: true}``, which it does by default; other models are only reported.

Nothing latches: a repair that fails, or does not last, is tried again, after a pause that doubles from one second to a
minute and is forgotten when the model has been well for two.

A process that somebody has stopped is ended where its model is repaired: see `stopped_stubs`.
"""

from __future__ import annotations

import threading
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

from triton_router.config.printable import printable
from triton_router.config.router_config import ROUTER_FILE, load_router_config
from triton_router.errors import TritonRouterError
from triton_router.rounds import Rounds
from triton_router.serving.launcher.model_loading import reload_dead
from triton_router.serving.stopped_stubs import StoppedStubs, end_stopped
from triton_router.serving.stub_processes import StubDeaths, StubScan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from triton_router.serving.launcher.model_loading import Loading
    from triton_router.serving.server_health import ServerHealth
    from triton_router.serving.stub_processes import Death, Stub

LOOK_EVERY_S = 0.2
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
FORGIVEN_AFTER_S = 120.0


@dataclass(slots=True)
class Case:
    """One model that has lost processes.

    Attributes:
        deaths: Of its processes, so far.
        repairs: How often it was loaded afresh.
        failures: How often that failed.
        wanted: Whether it waits to be loaded.
        next_at: Before then nothing is tried, in monotonic seconds.
        pause_s: From one attempt to the next.
        problem: What is wrong with it now, in words; "" if nothing is.
    """

    deaths: int = 0
    repairs: int = 0
    failures: int = 0
    wanted: bool = False
    next_at: float = 0.0
    pause_s: float = FIRST_PAUSE_S
    problem: str = ""


class Watchdog:
    """Watches one server until closed.

    Args:
        server: Its process id.
        health: Says which models it holds for ready.
        loading: How models are loaded; None to report only.
        say: Prints a line for the user.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        server: int,
        health: ServerHealth,
        loading: Loading | None,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scan = StubScan(server)
        self._health = health
        self._loading = loading
        self._say = say
        self._clock = clock
        self._deaths = StubDeaths()
        self._stopped = StoppedStubs(server)
        self._reported: set[int] = set()
        self._routed: set[Path] = set()
        self._cases: dict[str, Case] = {}
        self._lock = threading.Lock()
        # One thread looks, another repairs, so that a long load hides no death.
        self._look_rounds = Rounds("watchdog", self.look, LOOK_EVERY_S, failed=self._tell_of_defect)
        self._repair_rounds = Rounds("repairs", self.repair, LOOK_EVERY_S, failed=self._tell_of_defect)

    def start(self) -> None:
        """Begin."""
        self._look_rounds.start()
        self._repair_rounds.start()

    def close(self) -> None:
        """Stop, without waiting for a load that is under way."""
        self._repair_rounds.stop()
        self._look_rounds.stop()

    def cases(self) -> dict[str, dict[str, object]]:
        """Return the models that have lost processes, by name."""
        with self._lock:
            return {
                model: {
                    "processes_died": case.deaths,
                    "repairs": case.repairs,
                    "failed_repairs": case.failures,
                    "problem": case.problem,
                }
                for model, case in self._cases.items()
            }

    def repairing(self) -> bool:
        """Whether a model waits to be loaded afresh, or is being loaded."""
        with self._lock:
            return any(case.wanted for case in self._cases.values())

    def look(self) -> None:
        """Look once for processes that have died, or were stopped."""
        seen = self._scan.look()
        self._routed |= {stub.directory for stub in seen.live if (stub.directory / ROUTER_FILE).is_file()}
        dead = self._deaths.update(seen, self._health.is_ready)
        if self._look_rounds.is_closing:
            return  # what ends now has been told to
        for death in dead:
            if death.stub.pid not in self._reported:
                self._report(death)
        self._reported = {death.stub.pid for death in dead}
        for stub in self._stopped.update(seen):
            self._end_stopped(stub)

    def repair(self) -> None:
        """Load the models that wait for it, one after the other."""
        now = self._clock()
        with self._lock:
            due = [model for model, case in self._cases.items() if case.wanted and case.next_at <= now]
        for model in due:
            if not self._repair_rounds.is_closing:
                self._reload(model)

    def _report(self, death: Death) -> None:
        model = death.stub.model
        repairs = self._repairs(death.stub)
        consequence = "loading it afresh" if repairs else "it is not loaded afresh"
        self._say(f"warning: model {printable(model)!r}: {printable(str(death))}; {consequence}")
        now = self._clock()
        with self._lock:
            case = self._cases.setdefault(model, Case())
            case.deaths += 1
            case.problem = str(death)
            if repairs and not case.wanted:
                if now - case.next_at > FORGIVEN_AFTER_S:
                    case.pause_s, case.next_at = FIRST_PAUSE_S, now
                case.wanted = True

    def _end_stopped(self, stub: Stub) -> None:
        repairs = self._repairs(stub)
        problem = end_stopped(stub) if repairs else "it is not loaded afresh, so it is left alone"
        done = f"{problem}; end it yourself rather than let it go on" if problem else "ending it"
        self._say(
            f"warning: model {printable(stub.model)!r}: process {stub.pid} of {printable(stub.instance)} has been "
            f"stopped, and would crash, perhaps with the server, when it goes on after requests; {done}"
        )

    def _repairs(self, stub: Stub) -> bool:
        """Whether a model whose process has died is to be loaded afresh."""
        if self._loading is None:
            return False
        return stub.directory in self._routed or any(
            _is_repaired_by(directory, stub.model) for directory in self._routed
        )

    def _reload(self, model: str) -> None:
        if self._loading is None:
            return
        began = self._clock()
        problem = ""
        try:
            reload_dead(self._loading, model)
        except TritonRouterError as error:
            problem = f"{error.message} (hint: {error.hint})"
        now = self._clock()
        with self._lock:
            case = self._cases[model]
            case.next_at = now + case.pause_s
            case.pause_s = min(2 * case.pause_s, LONGEST_PAUSE_S)
            case.wanted = bool(problem)
            case.problem = problem
            case.failures += bool(problem)
            case.repairs += not problem
            again = case.next_at - now
        if problem and not self._repair_rounds.is_closing:
            text = f"warning: model {printable(model)!r} could not be loaded afresh, next try in {again:g} s: "
            self._say(text + printable(problem))
        elif not problem:
            self._say(f"model {printable(model)!r} serves again, {now - began:.1f} s after its load began")

    def _tell_of_defect(self, _: Exception) -> None:
        self._say(f"warning: the watchdog could not do its work:\n{traceback.format_exc()}")


def _is_repaired_by(directory: Path, model: str) -> bool:
    """Whether a routed model's settings want this target of theirs to be repaired."""
    try:
        config = load_router_config(directory / ROUTER_FILE)
    except TritonRouterError:
        return False  # an edit that is not valid; the routed model itself says so
    return config.health.repair and any(target.model == model for target in config.targets)
