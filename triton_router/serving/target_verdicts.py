"""The verdicts on the answers of one routed model's guarded targets, and how they outlast the process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from triton_router.config.parity_of import Comparing, Pair
from triton_router.experiments.parity_verdict import ParityVerdict
from triton_router.telemetry.snapshot_file import StatePart, TargetIdentity, identity_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from triton_router.config.rollout_settings import ParityConfig

_States = dict[str, dict[str, Any]]
_FIRST = 10
"""Comparisons until a target is no stranger any more..."""
_REASSURING = 20
"""... and answers in a row that agree until a divergence is taken for the exception that it may be."""


class VerdictPlaces(Protocol):
    """Where verdicts outlast the process, and those of other instances are found; `VerdictFiles`."""

    def claim(self) -> Mapping[str, dict[str, Any]]:
        """Return the states that were kept before, by target. Raises OSError where nothing can be kept."""
        ...

    def save(self, verdicts: Mapping[str, dict[str, Any]]) -> None:
        """Keep these. Raises OSError or ValueError."""
        ...

    def others(self) -> Sequence[Mapping[str, dict[str, Any]]]:
        """Return what the other instances keep."""
        ...

    def problems(self) -> Sequence[str]:
        """Return, once, what could not be used of what lies there, each a sentence."""
        ...

    def close(self) -> None:
        """Leave the place to the next."""
        ...


class _Judged(StatePart):
    """Whose answers a verdict is of, and whose they are held against."""

    judged: TargetIdentity
    by: TargetIdentity

    def may_be(self, other: _Judged) -> bool:
        """Whether a verdict on one holds for the other; see `TargetIdentity.may_be`."""
        return self.judged.may_be(other.judged) and self.by.may_be(other.by)


class TargetVerdicts:
    """The verdicts of one routed model. The caller holds a lock.

    Attributes:
        problem: What of a kept verdict could not be used; "" for nothing, and once a sound one is kept in its place.
    """

    def __init__(self) -> None:
        self.problem = ""
        self._comparing = Comparing()
        self._bounds = (1.0, 0.0)
        self._verdicts: dict[str, ParityVerdict] = {}
        self._judged: dict[str, _Judged] = {}
        # Of every target there ever was: one that comes back is known still.
        self._known: _States = {}

    def go_by(self, comparing: Comparing, parity: ParityConfig) -> None:
        """Judge these targets from now on. A verdict stays while the target and its reference may be the same."""
        self._known |= self.states()
        self._comparing = comparing
        self._bounds = (parity.max_mismatch, parity.false_alarms)
        targets, reference = comparing.targets, comparing.reference
        self._judged = {
            name: _Judged(judged=identity_of(targets[name]), by=identity_of(targets[reference]))
            for name in comparing.guarded
        }
        self._verdicts = {name: self._fresh(name) for name in comparing.guarded}

    def take_over(self, known: Mapping[str, dict[str, Any]]) -> None:
        """Go on with verdicts that were kept, but for what has been found meanwhile; nobody returns because of that."""
        self._known |= known
        for name, verdict in self._verdicts.items():
            kept = self._fresh(name)
            if not verdict.is_quarantined and (kept.is_quarantined or not verdict.compared):
                self._verdicts[name] = kept

    def hear(self, others: Sequence[Mapping[str, dict[str, Any]]]) -> None:
        """Judge by what other instances saw as well."""
        for name, verdict in self._verdicts.items():
            verdict.hear([_as_of(self._judged[name], other[name]) for other in others if name in other])

    def note(self, pair: Pair, *, agrees: bool) -> bool:
        """Note a comparison. Returns whether its target is quarantined or returns because of it."""
        verdict = self._verdicts.get(pair.judged) if pair.by == self._comparing.reference else None
        if verdict is None:
            return False
        before = verdict.is_quarantined
        verdict.note(agrees)
        return verdict.is_quarantined is not before

    def quarantined(self) -> dict[str, str]:
        """Return why each target that should get no requests should not, by its name."""
        return {name: self._why(verdict) for name, verdict in self._verdicts.items() if verdict.is_quarantined}

    def wants_to_know(self) -> bool:
        """Whether a target is to be compared soon: it is new, its answers differed of late, or it is quarantined."""
        return any(
            verdict.compared < _FIRST or (verdict.diverged and verdict.agreeing < _REASSURING) or verdict.is_quarantined
            for verdict in self._verdicts.values()
        )

    def states(self) -> _States:
        """Return them as plain data, for a restart."""
        return {name: verdict.state() for name, verdict in self._verdicts.items()}

    def reports(self) -> _States:
        """Return how each stands, as plain data."""
        return {name: verdict.report() for name, verdict in self._verdicts.items()}

    def _why(self, verdict: ParityVerdict) -> str:
        return (
            f"its answers differ from those of {self._comparing.reference!r}: {verdict.diverged} of "
            f"{verdict.compared} that were compared"
        )

    def _fresh(self, name: str) -> ParityVerdict:
        """Return a target's verdict: that of before, if it is of the same target, else a fresh one."""
        judged = self._judged[name]
        identity = judged.model_dump_json()
        if name in self._known:
            try:
                return ParityVerdict.from_state(*self._bounds, identity, _as_of(judged, self._known[name]))
            except ValueError as error:
                self.problem = f"what was known of the answers of target {name!r} cannot be used: {error}"
        return ParityVerdict(*self._bounds, identity)


def _as_of(judged: _Judged, state: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a verdict as one on these targets, if it may be on them; else as it is."""
    identity, own = state.get("identity"), judged.model_dump_json()
    if identity == own or not isinstance(identity, str):
        return state
    try:
        of = _Judged.model_validate_json(identity)
    except ValueError:  # it is of no target that there can be
        return state
    return {**state, "identity": own} if of.may_be(judged) else state
