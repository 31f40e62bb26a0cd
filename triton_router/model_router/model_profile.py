"""What has been learned of one model, on each backend: the engine's own profiles, under the original's names."""

from __future__ import annotations

from math import isfinite
from threading import RLock
from typing import TYPE_CHECKING

from triton_router.errors import InvalidInputError
from triton_router.model_router.names import backend_of
from triton_router.profiling.profile import TargetProfile
from triton_router.routing.capabilities import CAPABILITIES, memory_prior, power_prior
from triton_router.routing.characteristics import ModelCharacteristics

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from triton_router.profiling.figures import Figure
    from triton_router.routing.types import Backend

    Guard = AbstractContextManager[object, bool | None]


def check_execution(latency_ms: float, memory_mb: float, power_w: float) -> None:
    """Do nothing for figures that a clock and meters can give.

    Raises:
        InvalidInputError: One is negative or not a number.
    """
    for name, value in (("latency_ms", latency_ms), ("memory_mb", memory_mb), ("power_w", power_w)):
        if not (isfinite(value) and value >= 0.0):
            raise InvalidInputError(f"{name} cannot be {value}", hint="give what was measured; 0 if it was not")


class ModelProfile:
    """Learns and predicts a model's executions. Usable by itself; `ModelRouter.get_model_profile` gives the router's.

    Args:
        model_name: The model.
        characteristics: What is known of it before it has run; predictions begin with it.
    """

    def __init__(self, model_name: str = "", characteristics: ModelCharacteristics | None = None) -> None:
        self.model_name = model_name
        self._characteristics = characteristics or ModelCharacteristics(model_name)
        self._profiles: dict[Backend, TargetProfile] = {}
        self._guard: Guard = RLock()
        self._settle: Callable[[], object] | None = None

    def share(self, guard: Guard, settle: Callable[[], object]) -> None:
        """Let an engine learn with the same profiles.

        Args:
            guard: Held by whoever uses that engine.
            settle: Makes it learn what it has put off.
        """
        self._guard, self._settle = guard, settle

    def on(self, backend: Backend) -> TargetProfile:
        """Return the profile on a backend: a fresh one begins with the priors."""
        if backend not in self._profiles:
            capabilities = CAPABILITIES[backend]
            self._profiles[backend] = TargetProfile(
                prior=capabilities.prior_for(self._characteristics),
                power_w=power_prior(capabilities),
                memory_mb=memory_prior(self._characteristics),
            )
        return self._profiles[backend]

    def record_execution(  # noqa: PLR0913 - the original's signature
        self,
        backend: Backend | str,
        latency_ms: float,
        memory_mb: float = 0.0,
        power_w: float = 0.0,
        success: bool = True,
        *,
        batch_size: int = 1,
        work: float = 0.0,
    ) -> None:
        """Learn from one execution that had the backend to itself.

        Args:
            backend: Where it ran.
            latency_ms: How long it took.
            memory_mb: Memory it was measured to take; 0 if it was not measured.
            power_w: Power it was measured to draw; 0 if it was not measured.
            success: Whether it gave an answer. A failure teaches nothing but the error rate.
            batch_size: Its rows.
            work: Elements of its largest input; 0 for as many as rows.

        Raises:
            InvalidInputError: The backend is unknown, or a figure is negative or not a number.
        """
        check_execution(latency_ms, memory_mb, power_w)
        with self._guard:
            profile = self._settled(backend)
            if not success:
                profile.record_failure()
                return
            rows, work = float(batch_size), work or float(batch_size)
            profile.record_latency(latency_ms, work, profile.predict_alone(work, rows), alone=True, rows=rows)
            if memory_mb:
                profile.record_memory(memory_mb)
            if power_w:
                profile.record_power(power_w)

    def predict_latency(self, backend: Backend | str, batch_size: int = 1, work: float = 0.0) -> float:
        """Return the expected latency in milliseconds with nothing else in flight; 0.0 while nothing is known."""
        with self._guard:
            return self._settled(backend).predict_alone(work or float(batch_size), float(batch_size))

    def predict_memory_usage(self, backend: Backend | str) -> Figure:
        """Return the memory it takes in megabytes, and whether that was measured."""
        with self._guard:
            return self._settled(backend).memory_mb

    def predict_power_usage(self, backend: Backend | str) -> Figure:
        """Return the power it draws in watts, and whether that was measured."""
        with self._guard:
            return self._settled(backend).power_w

    def get_prediction_confidence(self, backend: Backend | str) -> float:
        """Return the trust in these predictions, 0 (no evidence) to 1."""
        with self._guard:
            return self._settled(backend).confidence

    def error_rate(self, backend: Backend | str) -> float:
        """Return the recent share of executions that failed, 0 to 1."""
        with self._guard:
            return self._settled(backend).error_rate

    def remember(self, answers: int) -> None:
        """Let quantiles rest on so many of the latest answers of each backend."""
        for profile in self._profiles.values():
            profile.remember(answers)

    def _settled(self, backend: Backend | str) -> TargetProfile:
        if self._settle:
            self._settle()
        return self.on(backend_of(backend))
