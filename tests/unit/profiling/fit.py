"""A latency model that is taught and asked in few words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_router.profiling.latency import LatencyModel
from triton_router.profiling.load_law import IDLE, Load

if TYPE_CHECKING:
    from collections.abc import Sequence


class Fit:
    """One target: requests of one row, alone unless others are in flight, there or elsewhere on the device.

    Those are given by their work, and taken to need alone what the model thinks they do: so the engine counts them.
    """

    def __init__(self) -> None:
        self.model = LatencyModel()

    def predict(self, work: float, ahead: Sequence[float] = (), elsewhere: Sequence[float] = ()) -> float:
        return self.model.predict(work, self._load(ahead, elsewhere), 1.0)

    def observe(
        self, latency_ms: float, work: float, ahead: Sequence[float] = (), elsewhere: Sequence[float] = ()
    ) -> float:
        load = self._load(ahead, elsewhere)
        return self.model.observe(latency_ms, work, load, 1.0, alone=load is IDLE)

    @property
    def mean_relative_error(self) -> float:
        return self.model.error

    def _load(self, ahead: Sequence[float], elsewhere: Sequence[float]) -> Load:
        if not (ahead or elsewhere):
            return IDLE
        there = len(elsewhere)
        return Load(self._ms(ahead), len(ahead), self._ms(elsewhere), there, there)

    def _ms(self, works: Sequence[float]) -> float:
        return sum(self.model.predict_alone((work, 1.0)) for work in works)
