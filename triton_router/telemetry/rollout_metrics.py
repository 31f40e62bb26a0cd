"""Metrics of a routed model's rollout and experiment; there are none before it has had one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from triton_router.experiments.gate import GATE_TESTS
from triton_router.experiments.rollout_plan import PAUSED, PROMOTED, ROLLED_BACK, RUNNING
from triton_router.telemetry.families import Family

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from triton_router.experiments.splitting_engine import SplittingEngine
    from triton_router.experiments.tally import Tally
    from triton_router.telemetry.trial_keeper import TrialKeeper

ROLLOUT, EXPERIMENT = "triton_router_rollout", "triton_router_experiment"
_EVENTS = ("begin", "step", "pause", "resume", "promote", "rollback", "abort", "set", "alarm", "remove")
_PHASES = {RUNNING: 1.0, PAUSED: 2.0, PROMOTED: 3.0, ROLLED_BACK: 4.0}
_FIGURES = ("latency", "failures", "sample_ratio")


def _by(label: str, values: Iterable[str], name: str, description: str, kind: str = "COUNTER") -> tuple[Family, ...]:
    return tuple(Family(name, description, kind, ((label, value),)) for value in values)


def _arms(prefix: str, arms: tuple[str, str]) -> tuple[Family, ...]:
    return (
        *_by("arm", arms, f"{prefix}_requests_total", "Requests of the arm that its targets answered or failed"),
        *_by("arm", arms, f"{prefix}_failures_total", "Those that they failed"),
        *_by("arm", arms, f"{prefix}_latency_seconds", "Geometric mean of the latencies of the arm's answers", "GAUGE"),
    )


ROLLOUT_FAMILIES = (
    Family(f"{ROLLOUT}_share", "Share of the requests that the canary gets now, 0 to 1", "GAUGE"),
    Family(
        f"{ROLLOUT}_phase",
        "0 without a rollout, 1 while it runs, 2 paused, 3 promoted, 4 rolled back",
        "GAUGE",
    ),
    Family(f"{ROLLOUT}_step", "Number of the step that the canary has reached; 0 where there is none", "GAUGE"),
    *_by(
        "test",
        GATE_TESTS,
        f"{ROLLOUT}_gate_evidence",
        "Evidence of the gate's test against the canary: it alarms at 1",
        "GAUGE",
    ),
    *_by("event", _EVENTS, f"{ROLLOUT}_transitions_total", "Changes of rollouts, as in the audit log"),
    Family(f"{ROLLOUT}_errors_total", "States of rollouts and experiments that could not be read or written"),
    *_arms(ROLLOUT, ("canary", "stable")),
)
"""Every metric of a rollout; docs/metrics.md describes each."""

EXPERIMENT_FAMILIES = (
    *_arms(EXPERIMENT, ("control", "treatment")),
    *_by(
        "figure",
        _FIGURES,
        f"{EXPERIMENT}_p_value",
        "Against no difference between the arms, or against their being assigned as they should; 1 while unknown",
        "GAUGE",
    ),
)
"""Every metric of an experiment; docs/metrics.md describes each."""


class TrialCounts:
    """Says what a routed model's rollout and experiment come to, by the keys of the families above.

    Requests are those of this process: what several instances publish adds up.

    Args:
        engine: Counts them.
        keeper: Knows the rest.
    """

    def __init__(self, engine: SplittingEngine, keeper: TrialKeeper) -> None:
        self._engine = engine
        self._keeper = keeper
        self._had_rollout = False
        self._had_experiment = False

    def of_rollout(self) -> dict[str, dict[str, float]]:
        """Return the counts, under "": they are no target's."""
        report = self._keeper.rollout()
        self._had_rollout = self._had_rollout or report is not None
        if not self._had_rollout:
            return {}
        counts = {f"{ROLLOUT}_errors_total": float(self._keeper.errors)}
        counts |= {_key(f"{ROLLOUT}_transitions_total", "event", e): float(n) for e, n in self._transitions()}
        counts |= _of_arms(ROLLOUT, self._engine.counted)
        return {"": counts | _of_report(report) if report is not None else counts}

    def of_experiment(self) -> dict[str, dict[str, float]]:
        """Return the counts, likewise."""
        report = self._keeper.experiment()
        self._had_experiment = self._had_experiment or report is not None
        if not self._had_experiment:
            return {}
        figures = {figure: _p_value(report, figure) for figure in _FIGURES}
        p_values = {_key(f"{EXPERIMENT}_p_value", "figure", figure): value for figure, value in figures.items()}
        return {"": p_values | _of_arms(EXPERIMENT, self._engine.counted)}

    def _transitions(self) -> list[tuple[str, int]]:
        return list(self._keeper.transitions.items())


def _of_report(report: Mapping[str, Any]) -> dict[str, float]:
    tests = {test["name"]: min(1.0, test["e_value"] / test["bound"]) for test in report["tests"]}
    return {
        f"{ROLLOUT}_share": float(report["share"]),
        f"{ROLLOUT}_phase": _PHASES[report["phase"]],
        f"{ROLLOUT}_step": float(report["step"] or 0),
        **{_key(f"{ROLLOUT}_gate_evidence", "test", name): value for name, value in tests.items()},
    }


def _of_arms(prefix: str, tallies: Mapping[str, Tally]) -> dict[str, float]:
    counts: dict[str, float] = {}
    for arm, tally in tallies.items():
        counts[_key(f"{prefix}_requests_total", "arm", arm)] = float(tally.answers)
        counts[_key(f"{prefix}_failures_total", "arm", arm)] = float(tally.failures)
        counts[_key(f"{prefix}_latency_seconds", "arm", arm)] = (tally.latency_ms or 0.0) / 1e3
    return counts


def _p_value(report: Mapping[str, object] | None, figure: str) -> float:
    value = cast("Mapping[str, float | None]", report[figure])["p_value"] if report is not None else None
    return 1.0 if value is None else value


def _key(name: str, label: str, value: str) -> str:
    return f"{name}{{{label}={value}}}"
