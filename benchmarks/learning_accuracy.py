"""How well 50 executions predict the rest: against what the noise allows, and against a fit over batch size alone."""

from __future__ import annotations

import random
from collections import defaultdict
from statistics import fmean, median
from typing import TYPE_CHECKING, NamedTuple

from triton_router.profiling.load_law import IDLE, Load
from triton_router.profiling.profile import TargetProfile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.learning_timings import Timing

Shape = tuple[str, int, int]
"""Variant, batch and length."""
FILLED = 0.25
"""The work that a filled batch has at most, as a share of the largest."""
LEARNED = 50
"""Executions to learn from; all others are held out."""


class Accuracy(NamedTuple):
    """One variant's figures, each the median over seeds but ``coverage``, which is the mean.

    Attributes:
        ceiling: R2 of the held-out data's own median per (batch, length).
        others: R2 of the median per (batch, length) of half of the held-out data for the other half: what so many
            executions, several times those that were learned, tell of others at all.
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
    others: float
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
    alone = _alone(rows)
    for variant in sorted({row.variant for row in rows}):
        own = [row for row in rows if row.variant == variant]
        figures += [
            _median(family, variant, load, [_once(chosen, alone, seed) for seed in range(seeds)])
            for load, chosen in (("alone", [row for row in own if row.callers == 1]), ("mixed", own))
        ]
    return figures


def filled(family: str, rows: Sequence[Timing], seeds: int) -> list[Accuracy]:
    """Measure every variant where clients fill their batches with as much as fits, so that all have similar work.

    That is half to all of `FILLED` times the largest work, and needs requests of several lengths.
    """
    most = max(row.work for row in rows) * FILLED
    alone = _alone(rows)
    figures: list[Accuracy] = []
    for variant in sorted({row.variant for row in rows}):
        chosen = [r for r in rows if r.variant == variant and r.callers == 1 and most / 2 <= r.work <= most]
        figures.append(_median(family, variant, "filled", [_once(chosen, alone, seed) for seed in range(seeds)]))
    return figures


def _median(family: str, variant: str, load: str, runs: list[Accuracy]) -> Accuracy:
    middle = [median(column) for column in list(zip(*runs, strict=True))[3:]]
    figures = Accuracy(family, variant, load, int(middle[0]), *middle[1:])
    return figures._replace(coverage=fmean(run.coverage for run in runs))


def _once(rows: Sequence[Timing], alone: Mapping[Shape, float], seed: int) -> Accuracy:
    rng = random.Random(seed)
    shuffled = rng.sample(rows, len(rows))
    learned, held = shuffled[:LEARNED], shuffled[LEARNED:]
    profile = TargetProfile()
    for row in learned:
        load = _load(row, alone)
        expected = profile.predict_latency(row.work, row.batch, load)
        profile.record_latency(row.latency_ms, row.work, expected, alone=row.alone, rows=row.batch, load=load)
    truth = [row.latency_ms for row in held]
    guess = [profile.predict_latency(row.work, row.batch, _load(row, alone)) for row in held]
    shape = _medians(held, _shape)
    load = _medians(held, lambda row: (row.batch, row.length, row.callers))
    within = [y <= profile.latency_quantile(p, 0.9) for y, p in zip(truth, guess, strict=True)]
    return Accuracy(
        "",
        "",
        "",
        len(held),
        r2(truth, guess),
        r2(truth, shape),
        _between_halves(held),
        r2(truth, load),
        mape(truth, guess),
        mape(truth, shape),
        fmean(within),
        r2(truth, _line_over_batch(learned, held)),
    )


def _alone(rows: Sequence[Timing]) -> dict[Shape, float]:
    """Return what each variant's shapes took alone: what an engine that has learned counts as being in flight."""
    taken: dict[Shape, list[float]] = defaultdict(list)
    for row in rows:
        if row.callers == 1:
            taken[row.variant, row.batch, row.length].append(row.latency_ms)
    return {shape: median(values) for shape, values in taken.items()}


def _load(row: Timing, alone: Mapping[Shape, float]) -> Load:
    here = [alone[shape[0], shape[1], shape[2]] for shape in row.flying if shape[0] == row.variant]
    elsewhere = [alone[shape[0], shape[1], shape[2]] for shape in row.flying if shape[0] != row.variant]
    targets = len({shape[0] for shape in row.flying} - {row.variant})
    return Load(sum(here), len(here), sum(elsewhere), len(elsewhere), targets) if row.flying else IDLE


def _shape(row: Timing) -> tuple[int, ...]:
    return row.batch, row.length


def _medians(
    rows: Sequence[Timing], key: Callable[[Timing], tuple[int, ...]], of: Sequence[Timing] = ()
) -> list[float]:
    """Return for each row the median of its cell, among ``of`` or the rows themselves; of all where that has none."""
    cells: dict[tuple[int, ...], list[float]] = defaultdict(list)
    for row in of or rows:
        cells[key(row)].append(row.latency_ms)
    medians = {at: median(values) for at, values in cells.items()}
    overall = median(medians.values())
    return [medians.get(key(row), overall) for row in rows]


def _between_halves(held: Sequence[Timing]) -> float:
    first, second = held[::2], held[1::2]
    truth = [row.latency_ms for row in (*first, *second)]
    return r2(truth, [*_medians(first, _shape, second), *_medians(second, _shape, first)])


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
