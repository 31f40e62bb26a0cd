"""The four policies by the names of the original, each a thin way to make one of `POLICIES`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_router.config.settings import suggestion
from triton_router.errors import ConfigError
from triton_router.routing.policies import POLICIES, Policy, policy_named

if TYPE_CHECKING:
    from collections.abc import Mapping


class _Named(Policy):
    """A policy made from its name and parameters."""

    def __init__(self, name: str, parameters: Mapping[str, float] | None = None) -> None:
        made = policy_named(name, parameters)
        super().__init__(made.name, made.filters, made.scorers, made.picker, made.late, made.learns)


class LatencyOptimizedPolicy(_Named):
    """Chooses the lowest predicted latency, what is in flight included; doubtful predictions count a little worse."""

    def __init__(self) -> None:
        super().__init__("latency")


class ThroughputOptimizedPolicy(_Named):
    """Shares requests out so that all devices finish what they have as early as possible."""

    def __init__(self) -> None:
        super().__init__("throughput")


class PowerEfficientPolicy(_Named):
    """Chooses the least energy for the request."""

    def __init__(self) -> None:
        super().__init__("power")


class AdaptiveRoutingPolicy(_Named):
    """Weighs how well the device suits the model, predicted latency, and how free the device is.

    Args:
        complexity_weight: Weight of the model's arithmetic against the device's.
        latency_weight: Weight of predicted latency.
        resource_weight: Weight of how free the device is.

    Raises:
        ConfigError: A weight is negative, or all are 0.
    """

    def __init__(
        self, complexity_weight: float = 0.3, latency_weight: float = 0.4, resource_weight: float = 0.3
    ) -> None:
        super().__init__(
            "adaptive",
            {
                "complexity_weight": complexity_weight,
                "latency_weight": latency_weight,
                "resource_weight": resource_weight,
            },
        )


def policy_of(policy: Policy | str) -> Policy:
    """Return a policy that is given as such or by its name.

    Raises:
        ConfigError: No policy has that name.
    """
    if isinstance(policy, Policy):
        return policy
    if policy not in POLICIES and policy != "balanced":
        raise ConfigError(
            f"there is no policy {policy!r}{suggestion(policy, POLICIES)}", hint=f"use one of {', '.join(POLICIES)}"
        )
    return policy_named(policy)
