"""Reads numbers from a stored state that anybody may have written: what is not sound is refused by name."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST_ROWS = 10_000


class State:
    """One mapping of a stored state.

    Args:
        value: What was stored.
        where: What it is, for messages.

    Raises:
        ValueError: It is not a mapping with text keys.
    """

    __slots__ = ("_values", "_where")

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in cast("dict[object, object]", value)):
            raise ValueError(f"{where} is not a mapping")
        self._values: Mapping[str, object] = cast("dict[str, object]", value)
        self._where = where

    def part(self, key: str) -> State:
        """Return a mapping within."""
        return State(self._get(key), f"{self._where}.{key}")

    def number(self, key: str, low: float, high: float) -> float:
        """Return a finite number within bounds."""
        return number(self._get(key), f"{self._where}.{key}", low, high)

    def count(self, key: str) -> int:
        """Return a whole number, 0 to 2**53."""
        return count(self._get(key), f"{self._where}.{key}")

    def numbers(self, key: str, low: float, high: float, length: int | None = None) -> tuple[float, ...]:
        """Return a list of finite numbers within bounds, of the given length if any."""
        where = f"{self._where}.{key}"
        values = self.rows(key)
        if length is not None and len(values) != length:
            raise ValueError(f"{where} has {len(values)} values, not {length}")
        return tuple([number(value, where, low, high) for value in values])

    def rows(self, key: str) -> list[object]:
        """Return a list of anything, ten thousand at most: as much as ``profile_history_size`` may be."""
        value = self._get(key)
        if not isinstance(value, list):
            raise ValueError(f"{self._where}.{key} is not a list")  # noqa: TRY004 - likewise
        values = cast("list[object]", value)
        if len(values) > _MOST_ROWS:
            raise ValueError(f"{self._where}.{key} has {len(values)} values, more than any state")
        return values

    def text(self, key: str) -> str:
        """Return a text."""
        value = self._get(key)
        if not isinstance(value, str):
            raise ValueError(f"{self._where}.{key} is not a text")  # noqa: TRY004 - likewise
        return value

    def is_null(self, key: str) -> bool:
        """Whether nothing is stored there."""
        return self._get(key) is None

    def _get(self, key: str) -> object:
        if key not in self._values:
            raise ValueError(f"{self._where} lacks {key!r}")
        return self._values[key]


def number(value: object, where: str, low: float, high: float) -> float:
    """Return ``value`` if it is a finite number within bounds.

    Raises:
        ValueError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{where} is not a number")  # noqa: TRY004 - one error for all that a state can be
    # Compared before it is converted: JSON's integers may be too large for a float.
    if not low <= value <= high or not isfinite(value):
        raise ValueError(f"{where} is {float(value) if abs(value) < 1e300 else 'huge'}, not within {low:g} to {high:g}")
    return float(value)


def count(value: object, where: str) -> int:
    """Return ``value`` if it is a whole number, 0 to 2**53.

    Raises:
        ValueError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 2**53:
        raise ValueError(f"{where} is not a count")
    return value


def row(value: object, where: str, length: int) -> list[object]:
    """Return ``value`` if it is a list of the given length.

    Raises:
        ValueError: It is not.
    """
    if not isinstance(value, list) or len(cast("list[object]", value)) != length:
        raise ValueError(f"{where} is not a list of {length}")
    return cast("list[object]", value)
