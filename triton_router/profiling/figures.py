"""A number and where it comes from: nothing estimated ever passes for measured."""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class Source(StrEnum):
    """How a figure came to be known."""

    MEASURED = "measured"
    ESTIMATED = "estimated"
    UNKNOWN = "unknown"


class Figure(float):
    """One number of a target: watts, megabytes, joules. It computes and compares as the number it is.

    Attributes:
        source: ``measured`` by a meter here, ``estimated`` as declared or derived, or ``unknown`` (the number is 0.0).
    """

    __slots__ = ("source",)

    source: Source

    def __new__(cls, value: float, source: Source) -> Self:
        """Make one; ``value`` is in the unit that its place says."""
        made = super().__new__(cls, value)
        made.source = source
        return made

    @property
    def value(self) -> float:
        """The number alone."""
        return float(self)

    def as_json(self) -> dict[str, float | str]:
        """Return number and source in JSON's types."""
        return {"value": self.value, "source": self.source.value}

    def __getnewargs__(self) -> tuple[float, Source]:  # type: ignore[override] - float's own takes no source
        return self.value, self.source

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Figure) and other.source is not self.source:
            return False
        return super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        # The number's own would forget the source: two figures would be neither equal nor different.
        return not self == other

    __hash__ = float.__hash__

    def __repr__(self) -> str:
        return f"Figure({self.value!r}, {self.source.value})"


UNKNOWN_FIGURE = Figure(0.0, Source.UNKNOWN)
"""What is said of something nobody measured or declared."""
