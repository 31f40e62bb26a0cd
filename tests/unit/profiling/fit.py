"""A latency model that is taught and asked in few words."""

from __future__ import annotations

from triton_router.profiling.latency import LatencyModel, Load


class Fit:
    """One target: requests of one row, alone unless work is ahead of them; nobody counts the requests ahead."""

    def __init__(self) -> None:
        self.model = LatencyModel()

    def predict(self, work: float, ahead: float = 0.0, device_ahead: float = 0.0) -> float:
        return self.model.predict(work, ahead, device_ahead, 0.0, 1.0)

    def observe(self, latency_ms: float, work: float, ahead: float = 0.0, device_ahead: float = 0.0) -> float:
        alone = not (ahead or device_ahead)
        return self.model.observe(latency_ms, work, Load(ahead, device_ahead, 0.0), 1.0, alone=alone)

    @property
    def mean_relative_error(self) -> float:
        return self.model.error
