"""Publishes the engine's counters through Triton's own metrics endpoint.

Each operation on a Triton metric is a blocking round trip of the stub process (75-270 us), and one metric object
used from two threads crashes the server. So the request path counts in Python, and one thread, which alone owns
the metric objects, publishes the differences on a timer. Nor may a metric object ever be collected: a reload makes
the new stub process share the series of the old one, and the server frees it under the new one's feet.
"""

from __future__ import annotations

import math
import traceback
from dataclasses import dataclass
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from triton_router.profiling.figures import Source
from triton_router.routing.health import Cause, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from triton_router.routing.snapshot import TargetSnapshot

    CountsOfTargets = Callable[[], Mapping[str, Mapping[str, float]]]

INTERVAL_S = 1.0

_KEPT: list[object] = []
"""Every metric object ever made in this process; see above."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric family. ``labels`` are those beside ``model`` and ``target``."""

    name: str
    kind: str
    description: str
    labels: tuple[tuple[str, str], ...]
    value: Callable[[TargetSnapshot], float]


def _requests(outcome: str, value: Callable[[TargetSnapshot], float]) -> Family:
    return Family(
        "triton_router_requests_total",
        "COUNTER",
        "Requests by the target that got them and by how they ended",
        (("outcome", outcome),),
        value,
    )


def _ejections(cause: Cause) -> Family:
    return Family(
        "triton_router_target_ejections_total",
        "COUNTER",
        "Times that the target went out, by what sent it out",
        (("cause", cause.value),),
        lambda target: target.ejections.get(cause.value, 0),
    )


_STAGES = {stage.value: number for number, stage in enumerate((Stage.WELL, Stage.RETURNING, Stage.TRIAL, Stage.OUT))}


def _power(source: Source) -> Family:
    return Family(
        "triton_router_power_watts",
        "GAUGE",
        "Power the target draws while it works; 0 where the figure is not from this source",
        (("source", source.value),),
        lambda target: target.power_w.value if target.power_w.source is source else 0.0,
    )


FAMILIES = (
    _requests("success", lambda target: target.succeeded),
    _requests("target_error", lambda target: target.failed),
    _requests("client_error", lambda target: target.refused),
    _requests("cancelled", lambda target: target.cancelled),
    Family(
        "triton_router_latency_seconds_total",
        "COUNTER",
        "Sum of the time from decision to answer over predicted successful requests",
        (),
        lambda target: target.latency.measured_total_ms / 1e3,
    ),
    Family(
        "triton_router_predicted_latency_seconds_total",
        "COUNTER",
        "Sum of the predicted latencies of the same requests",
        (),
        lambda target: target.latency.predicted_total_ms / 1e3,
    ),
    Family(
        "triton_router_in_flight",
        "GAUGE",
        "Requests at the target now, those of other instances of the routed model on this host included",
        (),
        lambda target: target.in_flight + target.peers_in_flight,
    ),
    Family(
        "triton_router_resting",
        "GAUGE",
        "1 while the target is left out",
        (),
        lambda target: target.resting,
    ),
    Family(
        "triton_router_target_stage",
        "GAUGE",
        "0 while the target is well, 1 while it returns, 2 while it is on trial, 3 while it is out",
        (),
        lambda target: _STAGES[target.stage],
    ),
    *(_ejections(cause) for cause in Cause),
    Family(
        "triton_router_target_returns_total",
        "COUNTER",
        "Times that the target came back",
        (),
        lambda target: target.returns,
    ),
    Family(
        "triton_router_target_out_seconds_total",
        "COUNTER",
        "Time for which the target was out or on trial",
        (),
        lambda target: target.seconds_out,
    ),
    Family(
        "triton_router_target_retries_total",
        "COUNTER",
        "Requests that the target got because an attempt at another failed",
        (),
        lambda target: target.retried,
    ),
    Family(
        "triton_router_target_hedges_total",
        "COUNTER",
        "Requests that the target got because another took long",
        (),
        lambda target: target.hedged,
    ),
    Family(
        "triton_router_confidence",
        "GAUGE",
        "Trust in the target's predicted latency, 0 to 1",
        (),
        lambda target: target.confidence,
    ),
    Family(
        "triton_router_error_rate",
        "GAUGE",
        "Recent share of the target's outcomes that were its failures, 0 to 1",
        (),
        lambda target: target.error_rate,
    ),
    Family(
        "triton_router_drifts_total",
        "COUNTER",
        "Changes of the target's speed that were noticed",
        (),
        lambda target: target.drifts,
    ),
    Family(
        "triton_router_mirrored_total",
        "COUNTER",
        "Copies of requests sent to the target to learn from it",
        (),
        lambda target: target.mirrored,
    ),
    _power(Source.MEASURED),
    _power(Source.ESTIMATED),
)
"""Every metric of a target; docs/metrics.md describes each."""


@dataclass(frozen=True, slots=True)
class ModelFamily:
    """One series of a routed model as a whole or of its merging, which has the label ``target``.

    ``labels`` are those beside ``model`` and ``target``.
    """

    name: str
    description: str
    kind: str = "COUNTER"
    labels: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> str:
        """Its name among counts: ``name``, or ``name{label=value}``."""
        return self.name + "".join(f"{{{label}={value}}}" for label, value in self.labels)


def _by(label: str, values: Iterable[str], name: str, description: str) -> tuple[ModelFamily, ...]:
    """Return a counter with one series for each value of a label."""
    return tuple(ModelFamily(name, description, labels=((label, value),)) for value in values)


MODEL_FAMILIES = (
    ModelFamily(
        "triton_router_snapshot_errors_total",
        "Snapshots of what was learned that could not be read or written",
    ),
    ModelFamily(
        "triton_router_decision_log_dropped_total",
        "Decisions that the decision log should have and does not",
    ),
    ModelFamily(
        "triton_router_settings_followed_total",
        "Edits of router.yaml that the model followed while it served",
    ),
    ModelFamily(
        "triton_router_settings_refused_total",
        "Edits of router.yaml that were not valid, or that a serving model cannot follow",
    ),
    ModelFamily(
        "triton_router_instances",
        "Instances of the routed model on this host that share load and what they learn, this one included",
        kind="GAUGE",
    ),
    ModelFamily(
        "triton_router_settings_problem",
        "1 while router.yaml says something that the model does not follow",
        kind="GAUGE",
    ),
    ModelFamily(
        "triton_router_target_processes_died_total",
        "Processes of targets that died while the server held their model for ready",
    ),
    ModelFamily("triton_router_retries_total", "Attempts at another target after one that failed or was given up"),
    ModelFamily("triton_router_retries_helped_total", "Those of them that answered the client"),
    ModelFamily("triton_router_hedges_total", "Attempts at a second target while the first was at work"),
    ModelFamily("triton_router_hedges_won_total", "Those of them that answered the client"),
    *_by(
        "why",
        ("budget", "hedge_share", "no_target", "attempts"),
        "triton_router_retries_denied_total",
        "Attempts that were wanted and not made",
    ),
    ModelFamily("triton_router_overdue_total", "Attempts that were given up because they took too long"),
    *_by(
        "at",
        ("router", "target"),
        "triton_router_deadline_errors_total",
        "Requests that were not answered within their time, by where they were then",
    ),
    *_by(
        "why",
        ("full", "displaced", "late"),
        "triton_router_refused_total",
        "Requests refused because there was too much to do",
    ),
    ModelFamily("triton_router_under_way", "Requests taken and not yet answered", kind="GAUGE"),
    ModelFamily("triton_router_waiting", "Those of them that wait for a worker or for a target's slot", kind="GAUGE"),
    ModelFamily("triton_router_abandoned", "Attempts under way whose requests have been answered", kind="GAUGE"),
)
"""Every metric of a routed model; docs/metrics.md describes each."""

MERGING_FAMILIES = (
    ModelFamily("triton_router_merged_calls_total", "Calls that carried several requests to the target"),
    ModelFamily("triton_router_merged_requests_total", "Requests that those calls carried"),
    ModelFamily("triton_router_split_calls_total", "Those calls that failed, so that their requests went out apart"),
)
"""Every metric of a target that takes merged calls; docs/metrics.md describes each."""


class MetricsFlusher:
    """Publishes one routed model's snapshots until closed.

    Args:
        stub: The Python backend's module.
        model: Name of the routed model, the ``model`` label.
        snapshot: Returns the current state of every target; what it counts until now is not published.
        counts: Returns the counts of the whole model, by the names of `MODEL_FAMILIES`; those it leaves out are 0.
        merged: Returns the counts of each target that takes merged calls, by the names of `MERGING_FAMILIES`.
        further: Families of targets, each with what returns the counts by target and then by their keys.
        observe: Is shown every state.
        interval_s: Seconds between two publications.
        publishes: Whether anything is published; without it states are still observed.
    """

    def __init__(  # noqa: PLR0913 - everything that is published, and how often
        self,
        stub: Any,
        model: str,
        snapshot: Callable[[], Sequence[TargetSnapshot]],
        *,
        counts: Callable[[], Mapping[str, float]] = dict[str, float],
        merged: CountsOfTargets = dict[str, dict[str, float]],
        further: Sequence[tuple[Sequence[ModelFamily], CountsOfTargets]] = (),
        observe: Callable[[Sequence[TargetSnapshot]], None] = lambda _: None,
        interval_s: float = INTERVAL_S,
        publishes: bool = True,
    ) -> None:
        self._stub = stub
        self._model = model
        self._snapshot = snapshot
        self._counts = counts
        self._by_target = ((MERGING_FAMILIES, merged), *further)
        self._observe = observe
        self._interval_s = interval_s
        self._publishes = publishes
        self._inherited: dict[tuple[str, int], float] = {}
        self.expect(snapshot())
        self._closing = Event()
        self._thread = Thread(target=self._run, name="metrics", daemon=True)

    def start(self) -> None:
        """Begin publishing."""
        self._thread.start()

    def expect(self, targets: Sequence[TargetSnapshot]) -> None:
        """Take note of targets as they begin: what was learned before has been counted by the one that learned it."""
        for key, value in _counters(targets).items():
            self._inherited.setdefault(key, value)

    def publish(self, *, interval_s: float, publishes: bool) -> None:
        """Go on in other intervals, or without publishing."""
        self._interval_s = interval_s
        self._publishes = publishes

    def close(self) -> None:
        """Publish once more and stop."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        published = _Published(self._stub, self._model, self._inherited)
        _KEPT.append(published)
        while True:
            last = self._closing.wait(self._interval_s)
            try:
                self._round(published)
            except Exception:  # noqa: BLE001 - shown in the server's log; the next round may succeed
                traceback.print_exc()
            if last:
                return

    def _round(self, published: _Published) -> None:
        targets = self._snapshot()
        self._observe(targets)
        if not self._publishes:
            return
        published.update(targets)
        published.update_counts(MODEL_FAMILIES, self._counts())
        for families, counted in self._by_target:
            for target, counts in counted().items():
                published.update_counts(families, counts, target=target)


def _counters(targets: Sequence[TargetSnapshot]) -> dict[tuple[str, int], float]:
    return {
        (target.target.name, index): float(family.value(target))
        for target in targets
        for index, family in enumerate(FAMILIES)
        if family.kind == "COUNTER"
    }


class _Published:
    """What Triton's metrics show. Made and used by one thread, and never dropped."""

    def __init__(self, stub: Any, model: str, counted: Mapping[tuple[str, int], float]) -> None:
        self._stub = stub
        self._model = model
        self._before = counted
        self._families: dict[str, Any] = {}
        self._series: dict[tuple[str, int], tuple[Any, float]] = {}
        self._counted: dict[tuple[str, str], tuple[Any, float]] = {}

    def update(self, targets: Sequence[TargetSnapshot]) -> None:
        """Publish what changed since the last time."""
        for target in targets:
            for index, family in enumerate(FAMILIES):
                self._update_one(target, index, family)

    def update_counts(self, families: Iterable[ModelFamily], counts: Mapping[str, float], *, target: str = "") -> None:
        """Publish what changed of the whole model, or of one target's merging."""
        for family in families:
            value = float(counts.get(family.key, 0.0))
            key = (family.key, target)
            is_counter = family.kind == "COUNTER"
            if key not in self._counted:
                self._counted[key] = (self._count(family, target), 0.0 if is_counter else math.nan)
            metric, shown = self._counted[key]
            self._counted[key] = (metric, value)
            _show(metric, value, shown, is_counter=is_counter)

    def _count(self, family: ModelFamily, target: str) -> Any:
        if family.name not in self._families:
            self._families[family.name] = self._stub.MetricFamily(
                name=family.name, description=family.description, kind=getattr(self._stub.MetricFamily, family.kind)
            )
        labels = {"model": self._model, **({"target": target} if target else {}), **dict(family.labels)}
        return self._families[family.name].Metric(labels=labels)

    def _update_one(self, target: TargetSnapshot, index: int, family: Family) -> None:
        key = (target.target.name, index)
        value = float(family.value(target))
        is_counter = family.kind == "COUNTER"
        if key not in self._series:
            # After a reload the series goes on: a counter from where it was, a gauge from whatever it last showed.
            self._series[key] = (self._metric(target, family), self._before.get(key, 0.0) if is_counter else math.nan)
        metric, shown = self._series[key]
        self._series[key] = (metric, value)
        _show(metric, value, shown, is_counter=is_counter)

    def _metric(self, target: TargetSnapshot, family: Family) -> Any:
        if family.name not in self._families:
            kind = getattr(self._stub.MetricFamily, family.kind)
            self._families[family.name] = self._stub.MetricFamily(
                name=family.name, description=family.description, kind=kind
            )
        labels = {"model": self._model, "target": target.target.name, **dict(family.labels)}
        return self._families[family.name].Metric(labels=labels)


def _show(metric: Any, value: float, shown: float, *, is_counter: bool) -> None:
    if value == shown:
        return
    if not is_counter:
        metric.set(value)
    elif value > shown:
        metric.increment(value - shown)
    else:  # what counts has begun anew: a target that is another model now
        metric.increment(value)
