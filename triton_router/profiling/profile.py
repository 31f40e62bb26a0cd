"""What has been learned of one target."""

from __future__ import annotations

from math import exp, log
from typing import TYPE_CHECKING, Self

from triton_router.profiling import state as stored
from triton_router.profiling.drift import LIMIT, RUN, DriftEvent
from triton_router.profiling.figures import UNKNOWN_FIGURE, Figure, Source
from triton_router.profiling.histogram import LatencyHistogram
from triton_router.profiling.latency import LatencyModel
from triton_router.profiling.load_law import IDLE
from triton_router.profiling.residuals import Residuals
from triton_router.profiling.shape_law import CEILING_MS, FLOOR_MS
from triton_router.profiling.summary import LatencySummary
from triton_router.profiling.validation import State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from triton_router.profiling.load_law import Load
    from triton_router.profiling.roofline import RooflinePrior

__all__ = ["LatencySummary", "TargetProfile"]

_HALF_CONFIDENT = 10
"""Observations after which confidence has reached half of what the fit's error allows."""
_DOUBTFUL = 2.0
"""What all observations of before a change count for confidence."""
_UNSETTLED = 8
"""First answers whose misses say nothing of later ones."""
_FAILURE_RATE = 0.05
"""Weight of the newest outcome in the error rate; larger while there are few."""
_METER_RATE = 0.1
"""Weight of the newest reading of a meter; larger while there are few."""
_P90 = 0.9

_MOST = 1e60
_COUNTS = ("live", "paired", "judged", "within", "outcomes", "power_readings", "memory_readings")


class TargetProfile:
    """Learns from one target's outcomes; predicts its latency, energy and failures.

    Args:
        measured: ``(work, latency_ms)`` pairs measured at build time, for one row each. They seed the prediction;
            being taken without load and perhaps on another machine, they fade as live evidence arrives.
        prior: What to expect while nothing is measured; it fades with evidence too.
        power_w: The power that is declared for the target while it works.
        memory_mb: The memory that is declared for it.

    Attributes:
        alone_of: What `predict_alone` does, for a shape ``(work, rows)``; without a call in between, because it is
            asked for every target at every decision.
        remembered: What that said of a shape, or None if it was not asked since something was learned: most decisions
            need to know no more, and a dictionary answers four times as fast.
        wait_of: What a request that takes so long alone waits besides, under the five amounts of a `Load`, in
            milliseconds; likewise.
        error_rate: Recent share of outcomes that were the target's failures, 0..1.
        drifts: Changes of speed that were found.
        last_drift: The latest of them.
    """

    __slots__ = (
        "_evidence",
        "_histogram",
        "_judged",
        "_live",
        "_measured_ms",
        "_memory_readings",
        "_model",
        "_outcomes",
        "_paired",
        "_power_readings",
        "_predicted_ms",
        "_residuals",
        "_within",
        "alone_of",
        "drifts",
        "error_rate",
        "last_drift",
        "memory_mb",
        "power_w",
        "remembered",
        "wait_of",
    )

    def __init__(
        self,
        measured: Iterable[tuple[float, float]] = (),
        *,
        prior: RooflinePrior | None = None,
        power_w: Figure = UNKNOWN_FIGURE,
        memory_mb: Figure = UNKNOWN_FIGURE,
    ) -> None:
        self._model = LatencyModel(prior)
        self.alone_of = self._model.predict_alone
        self.remembered = self._model.shape.remembered
        self.wait_of = self._model.load.predict
        self._histogram = LatencyHistogram()
        self._residuals = Residuals()
        self._live = 0
        self._evidence = 0.0
        self._paired = 0
        self._predicted_ms = 0.0
        self._measured_ms = 0.0
        self._judged = 0
        self._within = 0
        self._outcomes = 0
        self._power_readings = 0
        self._memory_readings = 0
        self.power_w = power_w
        self.memory_mb = memory_mb
        self.error_rate = 0.0
        self.drifts = 0
        self.last_drift: DriftEvent | None = None
        for work, latency_ms in measured:
            if 0.0 <= latency_ms <= CEILING_MS:
                self._model.observe(latency_ms, work, IDLE, 1.0, alone=True)

    @property
    def is_proven(self) -> bool:
        """Whether any measurement, live or built in, says how fast the target is. A prior does not."""
        return self._model.shape.count > 0

    @property
    def confidence(self) -> float:
        """Trust in the prediction, 0..1: grows with live evidence, shrinks with error, and with a change."""
        return self._evidence / (self._evidence + _HALF_CONFIDENT) * max(0.0, 1.0 - self._model.error)

    @property
    def complexity_ms(self) -> float:
        """What the prior expects of one row, in milliseconds, whatever was measured since; 0.0 without a prior."""
        prior = self._model.prior
        return prior.latency_ms(max(prior.elements, 1.0), 1.0) if prior else 0.0

    def remember(self, answers: int) -> None:
        """Let quantiles rest on how far off the predictions of so many of the latest answers were."""
        self._residuals.resize(answers)

    @property
    def suspicion(self) -> float:
        """How far (0..1) the latest misses are from being called a change: worth another look before long."""
        test = self._model.test
        return min(1.0, max(test.up, test.down) / LIMIT)

    @property
    def observations(self) -> int:
        """Live answers that were learned."""
        return self._live

    def predict_latency(self, work: float, rows: float = 1.0, load: Load = IDLE) -> float:
        """Return the expected latency in milliseconds; 0.0 while nothing is known. More load never lowers it.

        Args:
            work: Elements of its largest input.
            rows: Its batch size.
            load: What is in flight at the target and at others of its device.
        """
        return self._model.predict(work, load, rows)

    def predict_alone(self, work: float, rows: float = 1.0) -> float:
        """Return the expected latency with nothing else in flight, in milliseconds; 0.0 while nothing is known."""
        return self._model.predict_alone((work, rows))

    @property
    def queueing(self) -> float:
        """By what share (0..1) of its own time a request delays another at the target."""
        return self._model.load.queueing

    @property
    def felt(self) -> float:
        """By what share (0..1) of its own time a request at another target of the device was seen to delay one here.

        1.0 on a device that does one thing at a time; less on one that does several.
        """
        return self._model.load.felt

    @property
    def felt_known(self) -> float:
        """Evidence for `felt`: 0 while there is little, then about as many as the latest answers that tell of it."""
        return self._model.load.felt_known

    def is_guess(self, work: float, rows: float = 1.0) -> bool:
        """Whether what is predicted for a shape is one, because hardly any answer was to one like it."""
        return self._model.shape.is_strange(work, rows)

    def fixed_and_marginal(self, work: float, rows: float = 1.0) -> tuple[float, float]:
        """Return what a call alone costs whatever it carries, and what this work adds; milliseconds, (0, 0) unknown."""
        if not self.is_proven:
            return 0.0, 0.0
        total = self._model.predict_alone((work, rows))
        fixed = min(total, max(0.0, self._model.shape.fixed(rows)))
        return fixed, total - fixed

    def latency_quantile(self, expected_ms: float, probability: float) -> float:
        """Return what an answer expected after ``expected_ms`` takes at most with ``probability`` (0..1)."""
        return expected_ms * exp(self._residuals.miss_at(probability))

    def probability_within(self, expected_ms: float, bound_ms: float) -> float:
        """Return how likely (0..1) an answer expected after ``expected_ms`` comes within ``bound_ms``."""
        if bound_ms <= 0.0:
            return 0.0
        return self._residuals.probability_below(log(bound_ms / expected_ms)) if expected_ms > 0.0 else 1.0

    def energy_j(self, alone_ms: float) -> Figure:
        """Return the energy of a request that takes ``alone_ms`` by itself, in joules.

        It is no better known than the power, nor than the time: unknown without either, and an estimate where the
        time is.
        """
        source = self.power_w.source
        if alone_ms <= 0.0 or source is Source.UNKNOWN:
            return UNKNOWN_FIGURE
        return Figure(self.power_w.value * alone_ms / 1000.0, source if self.is_proven else Source.ESTIMATED)

    def rows_per_second(self, work: float, rows: float = 1.0) -> float:
        """Return rows served in a second by such requests, one after the other; 0.0 while nothing is known."""
        alone_ms = self._model.predict_alone((work, rows))
        return rows * 1000.0 / alone_ms if alone_ms > 0.0 else 0.0

    def record_latency(
        self,
        latency_ms: float,
        work: float,
        predicted_ms: float,
        *,
        alone: bool,
        rows: float = 1.0,
        load: Load = IDLE,
    ) -> None:
        """Learn from a request that was served.

        Args:
            latency_ms: How long it took. One that is not a number, or is negative, is ignored.
            work: Its work.
            load: What was in flight when it was chosen.
            predicted_ms: What had been predicted; 0.0 for nothing.
            alone: Whether nothing else was in flight on the device, at its beginning or at its end.
            rows: Its batch size.
        """
        if not 0.0 <= latency_ms <= CEILING_MS:
            return
        self._live += 1
        self._evidence += 1.0
        self._succeed()
        self._histogram.add(latency_ms)
        if predicted_ms > 0.0:
            self._judge(latency_ms, predicted_ms)
        change = self._model.observe(latency_ms, work, load, rows, alone=alone)
        if change:
            self._change(change)

    def record_failure(self) -> None:
        """Note a failure that was the target's."""
        self._outcomes += 1
        self.error_rate += max(_FAILURE_RATE, 1.0 / (self._outcomes + 1)) * (1.0 - self.error_rate)

    def record_power(self, watts: float) -> None:
        """Learn from one reading of a power meter while the target works."""
        self._power_readings += 1
        self.power_w = _measured(self.power_w, watts, self._power_readings)

    def record_memory(self, megabytes: float) -> None:
        """Learn from one reading of the memory the target takes."""
        self._memory_readings += 1
        self.memory_mb = _measured(self.memory_mb, megabytes, self._memory_readings)

    def state(self) -> dict[str, object]:
        """Return everything that was learned, as JSON can carry it. The prior is not part of it."""
        return {
            "model": stored.model_state(self._model),
            "residuals": stored.residuals_state(self._residuals),
            "histogram": stored.histogram_state(self._histogram),
            "counts": {name: getattr(self, "_" + name) for name in _COUNTS},
            "evidence": self._evidence,
            "predicted_ms": self._predicted_ms,
            "measured_ms": self._measured_ms,
            "error_rate": self.error_rate,
            "power_w": stored.figure_state(self.power_w),
            "memory_mb": stored.figure_state(self.memory_mb),
            "drifts": self.drifts,
            "last_drift": stored.drift_state(self.last_drift),
        }

    @classmethod
    def from_state(cls, state: object, *, prior: RooflinePrior | None = None) -> Self:
        """Return a profile as `state` described it; ``prior`` is as for a new one.

        Raises:
            ValueError: The state is not one that a profile gives: what is wrong is named, and nothing is believed.
        """
        source = State(state, "profile")
        profile = cls(prior=prior)
        stored.restore_model(profile._model, source.part("model"))
        profile._residuals = stored.restored_residuals(source, "residuals")
        stored.restore_histogram(profile._histogram, source.part("histogram"))
        counts = source.part("counts")
        for name in _COUNTS:
            setattr(profile, "_" + name, counts.count(name))
        profile._evidence = source.number("evidence", 0.0, _MOST)
        profile._predicted_ms = source.number("predicted_ms", 0.0, _MOST)
        profile._measured_ms = source.number("measured_ms", 0.0, _MOST)
        profile.error_rate = source.number("error_rate", 0.0, 1.0)
        profile.power_w = stored.restored_figure(source.rows("power_w"), "profile.power_w")
        profile.memory_mb = stored.restored_figure(source.rows("memory_mb"), "profile.memory_mb")
        profile.drifts = source.count("drifts")
        profile.last_drift = stored.restored_drift(source, "last_drift")
        return profile

    def merge(self, other: TargetProfile) -> None:
        """Take in what another instance has learned of the same target, as if its answers had come here too.

        Both must have learned from different answers: what they have in common would count twice.
        """
        self.error_rate = _mean(self.error_rate, self._outcomes, other.error_rate, other._outcomes)
        self.power_w = _joined(self.power_w, self._power_readings, other.power_w, other._power_readings)
        self.memory_mb = _joined(self.memory_mb, self._memory_readings, other.memory_mb, other._memory_readings)
        self.last_drift = max(
            (event for event in (self.last_drift, other.last_drift) if event),
            key=lambda event: (event.observation, event),
            default=None,
        )
        self.drifts += other.drifts
        self._model.merge(other._model)
        self._residuals.merge(other._residuals)
        self._histogram.merge(other._histogram)
        self._evidence += other._evidence
        self._predicted_ms += other._predicted_ms
        self._measured_ms += other._measured_ms
        for name in _COUNTS:
            setattr(self, "_" + name, getattr(self, "_" + name) + getattr(other, "_" + name))

    def summary(self) -> LatencySummary:
        """Return the figures that people and metrics see."""
        return LatencySummary(
            count=self._histogram.count,
            p50_ms=self._histogram.quantile(0.5),
            p99_ms=self._histogram.quantile(0.99),
            predicted=self._paired,
            predicted_total_ms=self._predicted_ms,
            measured_total_ms=self._measured_ms,
            mean_relative_error=self._model.error,
            p90_ms=self._histogram.quantile(_P90),
            p90_judged=self._judged,
            p90_within=self._within,
        )

    def _succeed(self) -> None:
        self._outcomes += 1
        self.error_rate -= max(_FAILURE_RATE, 1.0 / (self._outcomes + 1)) * self.error_rate

    def _judge(self, latency_ms: float, predicted_ms: float) -> None:
        self._paired += 1
        self._predicted_ms += predicted_ms
        self._measured_ms += latency_ms
        if self._live <= _UNSETTLED:
            return
        miss = log(max(latency_ms, FLOOR_MS) / predicted_ms)
        if self._residuals.is_ready:
            self._judged += 1
            self._within += miss <= self._residuals.miss_at(_P90)
        self._residuals.add(miss)

    def _change(self, change: float) -> None:
        self._evidence = min(self._evidence, _DOUBTFUL)
        self._residuals.forget_last(RUN)
        self.drifts += 1
        self.last_drift = DriftEvent("slower" if change > 0.0 else "faster", exp(change), self._live)


def _measured(figure: Figure, reading: float, count: int) -> Figure:
    """Return the running mean with one more reading; readings that no meter gives are ignored."""
    if not 0.0 <= reading <= CEILING_MS:
        return figure
    if figure.source is not Source.MEASURED:
        return Figure(reading, Source.MEASURED)
    rate = max(_METER_RATE, 1.0 / count)
    return Figure(figure.value + rate * (reading - figure.value), Source.MEASURED)


def _mean(a: float, a_count: int, b: float, b_count: int) -> float:
    return (a * a_count + b * b_count) / (a_count + b_count) if a_count + b_count else 0.0


def _joined(a: Figure, a_count: int, b: Figure, b_count: int) -> Figure:
    """Return the better known of two figures, or the mean of two measured ones."""
    if a_count and b_count:
        return Figure(_mean(a.value, a_count, b.value, b_count), Source.MEASURED)
    order = (Source.UNKNOWN, Source.ESTIMATED, Source.MEASURED)
    return max(a, b, key=lambda figure: (order.index(figure.source), figure.value))
