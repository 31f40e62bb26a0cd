"""How well 50 executions predict the rest: against what the noise allows, and against a fit over batch size alone."""

from __future__ import annotations

import random
from collections import defaultdict
from statistics import fmean, median
from typing import TYPE_CHECKING, NamedTuple

from triton_router.profiling.profile import TargetProfile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.learning_timings import Timing

LEARNED = 50
"""Executions to learn from; all others are held out."""


class Accuracy(NamedTuple):
    """One variant's figures, each the median over seeds but ``coverage``, which is the mean.

    Attributes:
        ceiling: R2 of the held-out data's own median per (batch, length).
        known_load: R2 of their median per (batch, length, callers): what perfect knowledge of the load would add.
        floor: Mean absolute percentage error of the same medians as ``ceiling``.
        coverage: Share of held-out latencies within the 90th percentile predicted for them.
        batch_only: R2 of a least-squares line over batch size.
    """

    family: str
    variant: str
    load: str
    held_out: int
    r2: float
    ceiling: float
    known_load: float
    mape: float
    floor: float
    coverage: float
    batch_only: float

    @property
    def passes(self) -> bool:
        """Whether every bar is met."""
        near = self.r2 >= self.ceiling - 0.03
        high = self.ceiling < 0.98 or self.r2 >= 0.95
        return near and high and self.mape <= self.floor + 0.03 and 0.87 <= self.coverage <= 0.93


def accuracies(family: str, rows: Sequence[Timing], seeds: int) -> list[Accuracy]:
    """Measure every variant of a family, alone and under mixed loads."""
    figures: list[Accuracy] = []
    for variant in sorted({row.variant for row in rows}):
        own = [row for row in rows if row.variant == variant]
        figures += [
            _median(family, variant, load, [_once(chosen, seed) for seed in range(seeds)])
            for load, chosen in (("alone", [row for row in own if row.callers == 1]), ("mixed", own))
        ]
    return figures


def _median(family: str, variant: str, load: str, runs: list[Accuracy]) -> Accuracy:
    middle = [median(column) for column in list(zip(*runs, strict=True))[3:]]
    figures = Accuracy(family, variant, load, int(middle[0]), *middle[1:])
    return figures._replace(coverage=fmean(run.coverage for run in runs))


def _once(rows: Sequence[Timing], seed: int) -> Accuracy:
    rng = random.Random(seed)
    shuffled = rng.sample(rows, len(rows))
    learned, held = shuffled[:LEARNED], shuffled[LEARNED:]
    profile = TargetProfile()
    for row in learned:
        expected = predicted(profile, row)
        profile.record_latency(
            row.latency_ms, row.work, row.ahead, row.device_ahead, expected, row.alone, row.batch, row.in_flight
        )
    truth = [row.latency_ms for row in held]
    guess = [predicted(profile, row) for row in held]
    shape = _medians(held, lambda row: (row.batch, row.length))
    load = _medians(held, lambda row: (row.batch, row.length, row.callers))
    within = [y <= profile.latency_quantile(p, 0.9) for y, p in zip(truth, guess, strict=True)]
    return Accuracy(
        "",
        "",
        "",
        len(held),
        r2(truth, guess),
        r2(truth, shape),
        r2(truth, load),
        mape(truth, guess),
        mape(truth, shape),
        fmean(within),
        r2(truth, _line_over_batch(learned, held)),
    )


def predicted(profile: TargetProfile, row: Timing) -> float:
    """Return what the profile expects of a timed request."""
    return profile.predict_latency(row.work, row.ahead, row.device_ahead, row.batch, row.in_flight)


def _medians(rows: Sequence[Timing], key: Callable[[Timing], tuple[int, ...]]) -> list[float]:
    cells: dict[tuple[int, ...], list[float]] = defaultdict(list)
    for row in rows:
        cells[key(row)].append(row.latency_ms)
    medians = {at: median(values) for at, values in cells.items()}
    return [medians[key(row)] for row in rows]


def _line_over_batch(learned: Sequence[Timing], held: Sequence[Timing]) -> list[float]:
    """Predict by ordinary least squares over batch size, on the same executions."""
    x, y = [float(row.batch) for row in learned], [row.latency_ms for row in learned]
    x_mean, y_mean = fmean(x), fmean(y)
    spread = sum((a - x_mean) ** 2 for a in x)
    slope = sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True)) / spread if spread else 0.0
    return [y_mean + slope * (row.batch - x_mean) for row in held]


def r2(truth: Sequence[float], guess: Sequence[float]) -> float:
    """Return the share of variance explained; below 0 it is worse than the mean."""
    mean = fmean(truth)
    missed = sum((a - b) ** 2 for a, b in zip(truth, guess, strict=True))
    return 1.0 - missed / sum((a - mean) ** 2 for a in truth)


def mape(truth: Sequence[float], guess: Sequence[float]) -> float:
    """Return the mean of |guess - truth| / truth."""
    return fmean(abs(a - b) / a for a, b in zip(truth, guess, strict=True))
