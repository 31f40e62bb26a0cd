"""A number and where it comes from: nothing estimated ever passes for measured."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Source(StrEnum):
    """How a figure came to be known."""

    MEASURED = "measured"
    ESTIMATED = "estimated"
    UNKNOWN = "unknown"


class Figure(NamedTuple):
    """One number of a target: watts, megabytes, joules.

    Attributes:
        value: In the unit its name says; 0.0 while unknown.
        source: ``measured`` by a meter here, ``estimated`` as declared or derived, or ``unknown``.
    """

    value: float
    source: Source


UNKNOWN_FIGURE = Figure(0.0, Source.UNKNOWN)
"""What is said of something nobody measured or declared."""
