"""A profile as plain data, for snapshots and for other instances, and back.

Everything read back is checked: a state from a broken disk or a hostile file is refused, never half believed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_router.profiling.cells import CAPACITY, Cell, ShapeCells
from triton_router.profiling.drift import DriftEvent
from triton_router.profiling.figures import Figure, Source
from triton_router.profiling.nonnegative import NO_INFORMATION
from triton_router.profiling.residuals import KEPT, Residuals
from triton_router.profiling.validation import State, count, number, row

if TYPE_CHECKING:
    from triton_router.profiling.histogram import LatencyHistogram
    from triton_router.profiling.latency import LatencyModel
    from triton_router.profiling.nonnegative import NonNegativeFit

_LARGE = 1e60
"""Nothing that was ever learned is larger."""
_MISFIT = 1e4
"""Bound on a gradient beside the root of its information: the root of the sum of squared relative misses."""
_DIAGONAL = (0, 5, 9, 12, 14)
_OFF_DIAGONAL = tuple(
    (at, row_, column)
    for first, row_ in enumerate(_DIAGONAL)
    for at, column in enumerate(_DIAGONAL[first + 1 :], start=row_ + 1)
)
_FEWER = 4
"""Coefficients of a fit that was written down before the law of shapes had a step, of which it knows nothing..."""
_OF_FEWER = (0, 1, 2, 3, 5, 6, 7, 9, 10, 12)
"""... and where its information stands among that of all five."""
_DIGITS = 6


def model_state(model: LatencyModel) -> dict[str, object]:
    """Return what a latency model has learned."""
    cells = model.shape.cells
    return {
        "shape": {
            "count": model.shape.count,
            "fit": _fit_state(model.shape.fit),
            "clock": cells.clock,
            "cells": [[at, *_rounded(c.weight, c.latency, c.work, c.rows), c.seen] for at, c in cells.cells.items()],
        },
        "load": {"count": model.load.count, "fit": _fit_state(model.load.fit)},
        "alone_seen": model.alone_seen,
        "spread": model.spread,
        "loaded_spread": model.loaded_spread,
        "error": model.error,
    }


def restore_model(model: LatencyModel, state: State) -> None:
    """Fill a fresh latency model."""
    shape = state.part("shape")
    model.shape.count = shape.count("count")
    _restore_fit(model.shape.fit, shape.part("fit"))
    model.shape.cells = _cells(shape)
    load = state.part("load")
    model.load.count = load.count("count")
    _restore_fit(model.load.fit, load.part("fit"))
    model.alone_seen = state.count("alone_seen")
    model.spread = state.number("spread", 0.0, 1.0)
    model.loaded_spread = state.number("loaded_spread", 0.0, 1.0)
    model.error = state.number("error", 0.0, 2.0)
    for name, law in (("shape", model.shape), ("load", model.load)):
        if (law.count > 0) != (max(law.fit.information) > 0.0):
            raise ValueError(f"profile.{name}: its count of observations and what its fit knows do not agree")


def histogram_state(histogram: LatencyHistogram) -> dict[str, object]:
    """Return a histogram's buckets that are not empty."""
    return {"total_ms": histogram.total_ms, "buckets": [list(pair) for pair in histogram.buckets()]}


def restore_histogram(histogram: LatencyHistogram, state: State) -> None:
    """Fill a fresh histogram."""
    pairs = [row(value, "a histogram bucket", 2) for value in state.rows("buckets")]
    buckets = [(count(index, "a bucket's index"), count(held, "a bucket's count")) for index, held in pairs]
    histogram.restore(buckets, state.number("total_ms", 0.0, _LARGE))


def residuals_state(residuals: Residuals) -> list[float]:
    """Return the log ratios, oldest first."""
    return [round(miss, _DIGITS) for miss in residuals.ring]


def restored_residuals(state: State, key: str) -> Residuals:
    """Return residuals as they were."""
    ring = state.numbers(key, -20.0, 20.0)
    return Residuals(ring, max(KEPT, len(ring)))


def figure_state(figure: Figure) -> list[object]:
    """Return a figure as value and source."""
    return [figure.value, figure.source.value]


def restored_figure(value: object, where: str) -> Figure:
    """Return a figure as it was.

    Raises:
        ValueError: It is none.
    """
    amount, source = row(value, where, 2)
    known = {member.value: member for member in Source}
    if not isinstance(source, str) or source not in known:
        raise ValueError(f"{where} has a source that is not one of {', '.join(known)}")
    return Figure(number(amount, where, 0.0, _LARGE), known[source])


def drift_state(event: DriftEvent | None) -> list[object] | None:
    """Return a drift event as a list."""
    return list(event) if event else None


def restored_drift(state: State, key: str) -> DriftEvent | None:
    """Return a drift event as it was."""
    if state.is_null(key):
        return None
    direction, factor, observation = row(state.rows(key), key, 3)
    if not isinstance(direction, str) or direction not in {"slower", "faster"}:
        raise ValueError(f"{key} has a direction that is neither slower nor faster")
    return DriftEvent(direction, number(factor, key, 0.0, _LARGE), count(observation, key))


def _cells(state: State) -> ShapeCells:
    cells = ShapeCells()
    cells.clock = state.count("clock")
    where = "a shape"
    for value in state.rows("cells")[:CAPACITY]:
        at, weight, latency, work, rows, seen = row(value, where, 6)
        cells.cells[count(at, where)] = Cell(
            number(weight, where, 0.0, 1e6),
            number(latency, where, -20.0, 60.0),
            number(work, where, 0.0, 1e15),
            number(rows, where, 1.0, 1e9),
            min(count(seen, where), cells.clock),
        )
    return cells


def _fit_state(fit: NonNegativeFit) -> dict[str, object]:
    return {"beta": list(fit.beta), "gradient": list(fit.gradient), "information": list(fit.information)}


def _restore_fit(fit: NonNegativeFit, state: State) -> None:
    """Fill a fresh fit, if its sums are such as observations give."""
    beta, gradient, information = _written(state)
    for at, row_, column in _OFF_DIAGONAL:
        # Cauchy and Schwarz; a share more, because sums are rounded.
        if information[at] ** 2 > information[row_] * information[column] * (1.0 + 1e-6):
            raise ValueError("profile: the information of a fit is not positive semidefinite")
    for slope, at in zip(gradient, _DIAGONAL, strict=True):
        if abs(slope) > _MISFIT * information[at] ** 0.5:
            raise ValueError("profile: the gradient of a fit does not belong to its information")
    fit.information = information  # pyright: ignore[reportAttributeAccessIssue] - as many as it has
    fit.gradient = gradient  # pyright: ignore[reportAttributeAccessIssue]
    fit.beta = beta  # pyright: ignore[reportAttributeAccessIssue]


def _written(state: State) -> tuple[tuple[float, ...], ...]:
    """Return coefficients, gradient and information; of a fit of four with nothing known of the fifth."""
    many = len(_DIAGONAL)
    if len(state.rows("beta")) != _FEWER:
        return (
            state.numbers("beta", 0.0, _LARGE, many),
            state.numbers("gradient", -_LARGE, _LARGE, many),
            state.numbers("information", 0.0, _LARGE, len(NO_INFORMATION)),
        )
    known = state.numbers("information", 0.0, _LARGE, len(_OF_FEWER))
    places: dict[int, float] = dict(zip(_OF_FEWER, known, strict=True))
    return (
        (*state.numbers("beta", 0.0, _LARGE, _FEWER), 0.0),
        (*state.numbers("gradient", -_LARGE, _LARGE, _FEWER), 0.0),
        tuple([places.get(at, 0.0) for at, _ in enumerate(NO_INFORMATION)]),
    )


def _rounded(*values: float) -> list[float]:
    return [round(value, _DIGITS) for value in values]
