"""True latencies of synthetic targets: what a request takes when it has the device to itself."""

from __future__ import annotations

from math import ceil
from typing import Annotated, Literal

from pydantic import Field

from triton_router.simulation.settings import Settings

_Ms = Annotated[float, Field(ge=0, le=1e6)]
_Positive = Annotated[float, Field(gt=0, le=1e12)]


class Affine(Settings):
    """base + per_work * work + per_row * rows: a CPU.

    Attributes:
        base_ms: What a call costs whatever it carries.
        per_work_ms: What an element costs.
        per_row_ms: What a row costs besides.
    """

    kind: Literal["affine"]
    base_ms: _Ms
    per_work_ms: _Ms = 0.0
    per_row_ms: _Ms = 0.0

    def latency_ms(self, work: float, rows: float) -> float:
        """Return the mean latency."""
        return self.base_ms + self.per_work_ms * work + self.per_row_ms * rows


class Flat(Settings):
    """base up to the knee, then rising: a GPU that is not full.

    Attributes:
        base_ms: Latency of anything that fits.
        knee: Work that fits.
        per_work_ms: What each element beyond costs.
    """

    kind: Literal["flat"]
    base_ms: _Ms
    knee: _Positive
    per_work_ms: _Ms

    def latency_ms(self, work: float, _rows: float) -> float:
        """Return the mean latency."""
        return self.base_ms + self.per_work_ms * max(0.0, work - self.knee)


class Steps(Settings):
    """base + per_step * ceil(work / step): an accelerator that compiles for a few shapes and pads up to the next.

    Attributes:
        base_ms: What a call costs.
        step: Work that one step holds.
        per_step_ms: What a step costs.
    """

    kind: Literal["steps"]
    base_ms: _Ms
    step: _Positive
    per_step_ms: _Ms

    def latency_ms(self, work: float, _rows: float) -> float:
        """Return the mean latency."""
        return self.base_ms + self.per_step_ms * ceil(work / self.step)
