"""Triton Router: for every request, the sibling model that serves it best.

The names below are imported when they are first used: the router's process in Triton needs few of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from triton_router.errors import TritonRouterError
    from triton_router.model_router.builder import ModelRouterConfigBuilder
    from triton_router.model_router.configuration import ModelRouterConfig
    from triton_router.model_router.metrics import ModelMetrics, RoutingMetrics
    from triton_router.model_router.model_profile import ModelProfile
    from triton_router.model_router.policies import (
        AdaptiveRoutingPolicy,
        LatencyOptimizedPolicy,
        PowerEfficientPolicy,
        ThroughputOptimizedPolicy,
    )
    from triton_router.model_router.router import ModelRouter
    from triton_router.profiling.figures import Figure, Source
    from triton_router.routing.capabilities import BackendCapabilities
    from triton_router.routing.characteristics import ModelCharacteristics
    from triton_router.routing.types import Backend, OptimizationGoal, RoutingContext, RoutingDecision, Verdict

__version__ = "0.1.0"

__all__ = [
    "AdaptiveRoutingPolicy",
    "Backend",
    "BackendCapabilities",
    "Figure",
    "LatencyOptimizedPolicy",
    "ModelCharacteristics",
    "ModelMetrics",
    "ModelProfile",
    "ModelRouter",
    "ModelRouterConfig",
    "ModelRouterConfigBuilder",
    "OptimizationGoal",
    "PowerEfficientPolicy",
    "RoutingContext",
    "RoutingDecision",
    "RoutingMetrics",
    "Source",
    "ThroughputOptimizedPolicy",
    "TritonRouterError",
    "Verdict",
]

_PLACES = {
    "errors": ("TritonRouterError",),
    "model_router.builder": ("ModelRouterConfigBuilder",),
    "model_router.configuration": ("ModelRouterConfig",),
    "model_router.metrics": ("ModelMetrics", "RoutingMetrics"),
    "model_router.model_profile": ("ModelProfile",),
    "model_router.policies": (
        "AdaptiveRoutingPolicy",
        "LatencyOptimizedPolicy",
        "PowerEfficientPolicy",
        "ThroughputOptimizedPolicy",
    ),
    "model_router.router": ("ModelRouter",),
    "profiling.figures": ("Figure", "Source"),
    "routing.capabilities": ("BackendCapabilities",),
    "routing.characteristics": ("ModelCharacteristics",),
    "routing.types": ("Backend", "OptimizationGoal", "RoutingContext", "RoutingDecision", "Verdict"),
}
_MODULE_OF = {name: module for module, names in _PLACES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
