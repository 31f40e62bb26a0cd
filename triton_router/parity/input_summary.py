"""What may be told of a request's inputs in a log: shapes and statistics, never a value of a text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Array = NDArray[Any]


def summary(inputs: Mapping[str, Array]) -> dict[str, dict[str, object]]:
    """Return what each input looks like, in JSON's types.

    Numbers: ``min``, ``max`` and ``mean`` of the finite elements, ``nan`` and ``inf`` counted. Strings: the same of
    their lengths in bytes, as ``length``.
    """
    return {name: _summary(value) for name, value in inputs.items()}


def in_words(inputs: Mapping[str, Array]) -> str:
    """Return the same for a line of a log."""
    return "; ".join(_words(name, value) for name, value in inputs.items())


def _summary(value: Array) -> dict[str, object]:
    shown: dict[str, object] = {"shape": list(value.shape), "dtype": _type_of(value)}
    if _is_text(value):
        return {**shown, "length": _statistics(_lengths(value))}
    numbers = value.astype(np.float64)
    if np.issubdtype(value.dtype, np.floating):
        shown |= {"nan": int(np.isnan(numbers).sum()), "inf": int(np.isinf(numbers).sum())}
    return {**shown, **_statistics(numbers[np.isfinite(numbers)])}


def _words(name: str, value: Array) -> str:
    shown = _summary(value)
    begin = f"{name} {shown['dtype']}{shown['shape']}"
    statistics = shown.get("length", shown)
    figures = ""
    if isinstance(statistics, dict) and "min" in statistics:
        what = "length " if "length" in shown else ""
        figures = f" {what}{statistics['min']:g} to {statistics['max']:g}, mean {statistics['mean']:.4g}"
    unusual = [f"{shown[what]} {word}" for what, word in (("nan", "NaN"), ("inf", "infinite")) if shown.get(what)]
    return begin + figures + "".join(f", {text}" for text in unusual)


def _type_of(value: Array) -> str:
    return "BYTES" if _is_text(value) else str(value.dtype)


def _is_text(value: Array) -> bool:
    return value.dtype.kind in "OSU"


def _lengths(value: Array) -> Array:
    texts = (text.encode(errors="surrogateescape") if isinstance(text, str) else text for text in value.reshape(-1))
    return np.array([len(text) for text in texts], np.float64)


def _statistics(numbers: Array) -> dict[str, float]:
    if not numbers.size:
        return {}
    # Each element's part of the mean: the sum of enormous ones is more than a number.
    return {
        "min": float(numbers.min()),
        "max": float(numbers.max()),
        "mean": float(np.sum(numbers / numbers.size)),
    }
