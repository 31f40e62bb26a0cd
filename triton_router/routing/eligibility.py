"""Which backends cannot run a model at all, whatever is asked of them, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_router.routing.capabilities import INT8_BITS, weight_bits
from triton_router.routing.types import Backend

if TYPE_CHECKING:
    from triton_router.routing.capabilities import BackendCapabilities
    from triton_router.routing.characteristics import ModelCharacteristics

_GPUS = frozenset({Backend.GPU, Backend.METAL_MPS})


def ineligible(model: ModelCharacteristics, backend: BackendCapabilities) -> str:
    """Return why ``backend`` cannot run the model, or "" if it can."""
    obstacles = (
        (
            backend.backend in _GPUS and not model.supports_gpu_acceleration,
            "the model does not support GPU acceleration",
        ),
        (
            backend.backend is Backend.NEURAL_ENGINE and not model.supports_neural_engine,
            "the model does not support the Neural Engine",
        ),
        (
            weight_bits(model) == INT8_BITS and not backend.supports_int8,
            "the model is quantised to int8, which the backend does not compute",
        ),
        (
            model.has_dynamic_shapes and not backend.supports_dynamic_shapes,
            "the model has dynamic shapes, which the backend does not run",
        ),
        (
            model.has_control_flow and not backend.supports_control_flow,
            "the model has control flow, which the backend does not run",
        ),
        (
            model.has_custom_ops and not backend.supports_custom_ops,
            "the model has custom operators, which the backend cannot be given",
        ),
    )
    return next((reason for is_obstacle, reason in obstacles if is_obstacle), "")
