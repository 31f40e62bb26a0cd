"""The parity guard: whoever answers too differently gets no requests until its answers agree again.

It is told what comparisons found (`Comparisons`), judges by `ParityVerdict`, and marks who is quarantined. A mark lasts
a few seconds and is renewed: a guard that has stopped keeps nobody out. Copies go on meanwhile, more often than usual,
for only its answers can show that a target is well again.
"""

from __future__ import annotations

import time
import traceback
from math import inf
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

from triton_router.config.parity_of import Comparing, Pair, comparing_of
from triton_router.parity.input_summary import summary
from triton_router.rounds import Rounds
from triton_router.serving.divergence_log import DivergenceLog
from triton_router.serving.parity_tally import Tally
from triton_router.serving.target_verdicts import TargetVerdicts, VerdictPlaces
from triton_router.telemetry.parity_metrics import parity_counts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from triton_router.config.router_config import RouterConfig
    from triton_router.parity.difference import Difference
    from triton_router.serving.target_watch import Marks
    from triton_router.telemetry.kept_inputs import KeptInputs

_LOOK_EVERY_S = 1.0
_VALID_S = 5.0
_SAVE_EVERY_S = 5.0
"""While nothing is decided; a decision is kept at once."""
_URGENT_S = 0.25
"""How often answers are compared, as far as the budget allows, while a target is new, under suspicion or quarantined,
and while a canary is judged."""


class CanaryGate(Protocol):
    """A rollout that wants to know how its canary's answers compare; the routing engine."""

    @property
    def canary(self) -> frozenset[str]:
        """Names of its targets while it does; none otherwise."""
        ...

    def note_parity(self, agrees: bool) -> None:
        """Count one comparison with stable."""
        ...


class _NoRollout:
    canary: frozenset[str] = frozenset()

    def note_parity(self, agrees: bool) -> None:
        """Pass it over."""


class ParityGuard:
    """The guard of one routed model. Safe to use from several threads.

    Args:
        marks: Is told who is quarantined.
        warn: Writes a line about the routed model to the server's log.
        gate: Judges the canary of a rollout; None where there is none.
        places: Where verdicts are kept; None for nowhere.
        inputs: Where diverging inputs are kept if that is wanted; None for nowhere.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        marks: Marks,
        warn: Callable[[str], None],
        *,
        gate: CanaryGate | None = None,
        places: VerdictPlaces | None = None,
        inputs: KeptInputs | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._marks = marks
        self._warn = warn
        self._gate: CanaryGate = gate or _NoRollout()
        self._places = places
        self._has_place = False
        self._clock = clock
        self._lock = Lock()
        self._comparing = Comparing()
        self._quarantines = True
        self._verdicts = TargetVerdicts()
        self._tallies: dict[str, Tally] = {}
        self._log = DivergenceLog(warn, inputs)
        self._marked: set[str] = set()
        self._saved: object = None
        self._saved_out: set[str] = set()
        self._saved_at = -inf
        self._problem = ""
        self._hurry: Callable[[float], None] = _nothing
        self._rounds = Rounds("parity", self._turn, _LOOK_EVERY_S, failed=self._tell_of_defect)

    def go_by(self, config: RouterConfig) -> None:
        """Guard by these settings from now on."""
        comparing = comparing_of(config)
        if comparing.why_off and comparing.why_off != self._comparing.why_off:
            self._warn(f"answers of its targets are not compared: {comparing.why_off}")
        with self._lock:
            self._comparing = comparing
            self._quarantines, self._log.keeps_inputs = config.parity.quarantine, config.parity.keep_inputs
            self._verdicts.go_by(comparing, config.parity)
            self._tallies = {name: tally for name, tally in self._tallies.items() if name in comparing.targets}
        self._rounds.wake()

    def start(self, hurry: Callable[[float], None]) -> None:
        """Take over what was kept, and renew quarantines until closed.

        Args:
            hurry: Has answers compared about every so many seconds besides.
        """
        self._hurry = hurry
        self._take_over()
        self.look()
        try:
            self._rounds.start()
        except RuntimeError as error:
            self._warn(f"targets whose answers differ are not kept out: {error}")

    def close(self) -> None:
        """Stop, and keep what is known."""
        self._rounds.close()
        self._save()
        if self._places is not None:
            self._places.close()

    def judges(self, target: str) -> bool:
        """Whether a target is a canary whose answers its rollout wants to be compared now."""
        return target in self._gate.canary

    def note(self, pair: Pair, found: Difference, problem: str, inputs: Mapping[str, NDArray[Any]]) -> None:
        """Note how two answers to the same inputs differ, and what of that is beyond the tolerance, or ""."""
        agrees = not problem
        # A canary is judged by its gate alone, which knows what it is allowed.
        is_gates = pair.judged in self._gate.canary
        with self._lock:
            tally = self._tallies.setdefault(pair.judged, Tally())
            tally.note(found, agrees=agrees)
            has_changed = not is_gates and self._verdicts.note(pair, agrees=agrees)
            if problem:
                tally.last = {"at": time.time(), "by": pair.by, "problem": problem, "inputs": summary(inputs)}
                consequence = " and is quarantined" if has_changed and self._quarantines else ""
                self._log.tell(pair, problem, inputs, self._clock(), consequence=consequence)
        if is_gates:
            self._gate.note_parity(agrees)
        if has_changed or problem:
            self.look()

    def note_failed(self, pair: Pair) -> None:
        """Note that there was nothing to compare: a copy was not answered, or an answer cannot be read."""
        with self._lock:
            self._tallies.setdefault(pair.judged, Tally()).failed += 1

    def look(self) -> None:
        """Renew the marks of who is quarantined, and take them from who is not."""
        with self._lock:
            is_urgent = self._verdicts.wants_to_know() or bool(self._gate.canary)
            marked = self._verdicts.quarantined() if self._quarantines else {}
            gone, self._marked = self._marked - marked.keys(), set(marked)
            now = self._clock()
            for name, why in marked.items():
                self._marks.mark(name, why, now, _VALID_S)
            for name in gone:
                self._marks.mark(name, "", now, 0.0)
        self._hurry(_URGENT_S if is_urgent else inf)

    def counts(self) -> dict[str, dict[str, float]]:
        """Return what was compared so far, by target and then by metric."""
        with self._lock:
            return {
                name: parity_counts(
                    (tally.agreed, tally.differed, tally.failed),
                    quarantined=name in self._marked,
                    largest_difference=tally.relative,
                )
                for name, tally in self._tallies.items()
            }

    def status(self) -> dict[str, object]:
        """Return how it stands, in JSON's types."""
        with self._lock:
            reports = self._verdicts.reports()
            return {
                "reference": self._comparing.reference,
                "why_off": self._comparing.why_off,
                "problem": self._problem or self._verdicts.problem,
                "targets": {
                    name: {
                        **self._tallies.get(name, Tally()).status(),
                        "quarantined": name in self._marked,
                        "verdict": reports.get(name),
                    }
                    for name in sorted(reports.keys() | self._tallies.keys())
                },
            }

    def _take_over(self) -> None:
        """Take the place where verdicts are kept, as soon as it can be had; the disk may be full at first."""
        if self._places is None or self._has_place:
            return
        try:
            known = self._places.claim()
        except OSError as error:
            self._fail(f"verdicts on answers are not kept: {error}")
            return
        self._has_place, self._problem = True, ""
        with self._lock:
            self._verdicts.take_over(known)
        if self._verdicts.problem:
            self._warn(self._verdicts.problem)
        self._tell_problems()

    def _fail(self, problem: str) -> None:
        """Say what goes on being wrong, once."""
        if problem != self._problem:
            self._warn(problem)
        self._problem = problem

    def _tell_problems(self) -> None:
        for problem in self._places.problems() if self._places is not None else ():
            self._warn(problem)

    def _hear(self) -> None:
        """Judge by what other instances saw as well."""
        # Without a place of its own, the file that is to be its own looks like another's.
        others = self._places.others() if self._places is not None and self._has_place else ()
        if others:
            self._tell_problems()
            with self._lock:
                self._verdicts.hear(others)

    def _save(self) -> None:
        """Keep the verdicts, if one has changed; not each figure at once, but whoever goes or returns."""
        with self._lock:
            states, out = self._verdicts.states(), set(self._verdicts.quarantined())
        is_last, is_same = self._rounds.is_closing, out == self._saved_out
        is_early = self._clock() < self._saved_at + _SAVE_EVERY_S and is_same and not is_last
        if self._places is None or not self._has_place or is_early or states == self._saved:
            return
        try:
            self._places.save(states)
        except (OSError, ValueError) as error:
            self._fail(f"verdicts on answers cannot be kept: {error}")
            return
        with self._lock:
            self._verdicts.problem = ""
        self._saved, self._saved_out, self._saved_at, self._problem = states, out, self._clock(), ""

    def _turn(self) -> None:
        self._take_over()
        self._hear()
        self.look()
        self._save()

    def _tell_of_defect(self, _: Exception) -> None:
        self._warn(f"answers that differ could not be judged:\n{traceback.format_exc()}")


def _nothing(_: float) -> None:
    """Nobody compares."""
