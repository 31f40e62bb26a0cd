"""Builds a configuration step by step. Every setter returns the builder; setting twice replaces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from triton_router.config.loading import Document
from triton_router.config.routing_settings import validate_routing_settings
from triton_router.model_router.configuration import ModelRouterConfig
from triton_router.model_router.names import backend_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triton_router.routing.types import Backend


class ModelRouterConfigBuilder:
    """Collects settings; `build` checks them."""

    def __init__(self) -> None:
        self._rules: list[dict[str, Any]] = []
        self._tests: dict[str, dict[str, Any]] = {}
        self._weights: dict[str, float] = {}
        self._switches: dict[str, Any] = {}
        self._others: dict[str, Any] = {}

    def set_default_policy(self, name: str, **parameters: float) -> Self:
        """Choose by this policy where no rule says otherwise; its parameters as keywords."""
        self._others["default_policy"] = {"name": name, "parameters": parameters}
        return self

    def add_routing_rule(
        self,
        model_name_pattern: str,
        policy: str | None = None,
        *,
        preferred_backends: Sequence[Backend | str] = (),
        excluded_backends: Sequence[Backend | str] = (),
        max_latency_ms: float = 0.0,
        min_throughput: float = 0.0,
    ) -> Self:
        """Say what holds for models whose names match a glob; of several such rules the first added counts."""
        self._rules.append(
            {
                "model_name_pattern": model_name_pattern,
                "policy": policy,
                "preferred_backends": list(preferred_backends),
                "excluded_backends": list(excluded_backends),
                "max_latency_ms": max_latency_ms,
                "min_throughput": min_throughput,
            }
        )
        return self

    def add_ab_test(
        self,
        experiment_id: str,
        control_policy: str,
        treatment_policy: str,
        treatment_fraction: float,
        models: Sequence[str] = (),
        *,
        assignment: str = "request",
    ) -> Self:
        """Compare two policies, on models whose names match one of the globs; on all if there are none."""
        self._tests[experiment_id] = {
            "experiment_id": experiment_id,
            "control_policy": control_policy,
            "treatment_policy": treatment_policy,
            "treatment_percentage": treatment_fraction,
            "models": list(models),
            "assignment": assignment,
        }
        return self

    def set_backend_weight(self, backend: Backend | str, weight: float) -> Self:
        """Multiply the scores of a backend; only ratios count.

        Raises:
            InvalidInputError: The backend is unknown.
        """
        self._weights[backend_of(backend)] = weight
        return self

    def enable_profiling(self, enabled: bool = True) -> Self:
        """Learn from outcomes, or keep to what was measured or estimated at first."""
        return self._switch(enable_profiling=enabled)

    def enable_load_balancing(self, enabled: bool = True) -> Self:
        """Count what is in flight, or decide as if nothing were."""
        return self._switch(enable_load_balancing=enabled)

    def enable_fallback(self, enabled: bool = True) -> Self:
        """Name fallbacks and let slow targets give way, or do neither."""
        return self._switch(enable_fallback=enabled)

    def enable_ab_testing(self, enabled: bool = True) -> Self:
        """Let experiments take place, or not."""
        return self._switch(enable_ab_testing=enabled)

    def enable_metrics(self, enabled: bool = True) -> Self:
        """Keep counts and publish them, or not."""
        return self._switch(enable_metrics=enabled)

    def set_profile_warmup_iterations(self, answers: int) -> Self:
        """Trust a target's predictions only after so many answers."""
        return self._switch(profile_warmup_iterations=answers)

    def set_profile_history_size(self, answers: int) -> Self:
        """Let quantiles rest on so many of the latest answers."""
        return self._switch(profile_history_size=answers)

    def set_max_backend_utilization(self, share: float) -> Self:
        """Leave out a device that was busy for more than this share of the recent past; 0 for never."""
        return self._switch(max_backend_utilization=share)

    def set_fallback_latency_threshold_ms(self, milliseconds: float) -> Self:
        """Leave out a target predicted to take longer while another one is not; 0 for never."""
        return self._switch(fallback_latency_threshold_ms=milliseconds)

    def set_metrics_interval(self, seconds: float) -> Self:
        """Publish metrics this often."""
        return self._switch(metrics_interval=seconds)

    def set_explore(self, share: float) -> Self:
        """Let this share of requests go to others than the favourite, 0.01 at most."""
        self._others["explore"] = share
        return self

    def set_max_latency_ms(self, milliseconds: float) -> Self:
        """Bound the latency of requests that bring no bound; 0 for none."""
        self._others["max_latency_ms"] = milliseconds
        return self

    def build(self) -> ModelRouterConfig:
        """Return the configuration.

        Raises:
            ConfigError: Something in it is not valid; the message names it.
        """
        data = {
            **self._others,
            "routing_rules": self._rules,
            "ab_tests": list(self._tests.values()),
            "backend_weights": self._weights,
            "router_config": self._switches,
        }
        return ModelRouterConfig(validate_routing_settings(Document("ModelRouterConfigBuilder", data)))

    def _switch(self, **values: object) -> Self:
        self._switches.update(values)
        return self
