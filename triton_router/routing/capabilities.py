"""What a backend can do, as far as it is known before anything is measured: priors, and no more than that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from triton_router.profiling.figures import UNKNOWN_FIGURE, Figure, Source
from triton_router.profiling.roofline import RooflinePrior
from triton_router.routing.types import Backend

if TYPE_CHECKING:
    from collections.abc import Mapping

    from triton_router.routing.characteristics import ModelCharacteristics

REDUCED_SPEEDUP = 2.0
"""How much faster a device that supports a narrower type is taken to compute in it: twice as many lanes."""
_FLOPS_PER_PARAMETER = 2.0
"""Each weight of a dense layer is multiplied and added once for each sample."""
INT8_BITS = 8
_FP16_BITS = 16
_FULL_BITS = 32
_MEGA = 1e6


@dataclass(frozen=True, slots=True)
class BackendCapabilities:
    """One backend's arithmetic and abilities.

    Attributes:
        gflops: Peak arithmetic, in 10^9 floating point operations a second.
        bandwidth_gb_s: Peak memory traffic, in 10^9 bytes a second.
        gflops_per_w: Efficiency at that peak.
        supports_int8: Whether it computes in 8-bit integers.
        supports_fp16: Whether it computes in half precision.
        supports_dynamic_shapes: Whether it runs models whose shapes change from request to request.
        supports_control_flow: Whether it runs loops and branches.
        supports_custom_ops: Whether it can be given operators that the runtimes do not bring.
    """

    backend: Backend
    gflops: float
    bandwidth_gb_s: float
    gflops_per_w: float
    supports_int8: bool = True
    supports_fp16: bool = True
    supports_dynamic_shapes: bool = True
    supports_control_flow: bool = True
    supports_custom_ops: bool = True

    @property
    def power_w(self) -> float:
        """Watts at peak arithmetic."""
        return self.gflops / self.gflops_per_w

    def peak_gflops_for(self, model: ModelCharacteristics) -> float:
        """Return peak arithmetic in the type that the model's weights have."""
        bits = weight_bits(model)
        is_reduced = (bits == INT8_BITS and self.supports_int8 and model.supports_int8_acceleration) or (
            bits == _FP16_BITS and self.supports_fp16
        )
        return self.gflops * (REDUCED_SPEEDUP if is_reduced else 1.0)

    def prior_for(self, model: ModelCharacteristics) -> RooflinePrior | None:
        """Return what to expect of the model here; None if nothing says how much it computes.

        Without ``flop_count`` two operations per parameter and sample are assumed, and how often parameters are read
        is left open.
        """
        flops = float(model.flop_count)
        if flops > 0.0:
            return RooflinePrior(flops, _parameter_bytes(model), self.peak_gflops_for(model), self.bandwidth_gb_s)
        if model.parameter_count > 0:
            guessed = _FLOPS_PER_PARAMETER * model.parameter_count
            return RooflinePrior(guessed, 0.0, self.peak_gflops_for(model), self.bandwidth_gb_s)
        return None


CAPABILITIES: Mapping[Backend, BackendCapabilities] = {
    Backend.CPU: BackendCapabilities(Backend.CPU, 100.0, 50.0, 10.0, supports_fp16=False),
    Backend.GPU: BackendCapabilities(Backend.GPU, 10_000.0, 500.0, 50.0),
    Backend.NEURAL_ENGINE: BackendCapabilities(
        Backend.NEURAL_ENGINE,
        5_000.0,
        200.0,
        100.0,
        supports_dynamic_shapes=False,
        supports_control_flow=False,
        supports_custom_ops=False,
    ),
    Backend.METAL_MPS: BackendCapabilities(
        Backend.METAL_MPS, 8_000.0, 400.0, 80.0, supports_int8=False, supports_custom_ops=False
    ),
}
"""The documented priors of each backend. What is measured replaces them."""


def power_prior(capabilities: BackendCapabilities) -> Figure:
    """Return the watts that the backend is taken to draw while it works."""
    return Figure(capabilities.power_w, Source.ESTIMATED)


def memory_prior(model: ModelCharacteristics) -> Figure:
    """Return the megabytes that the model's parameters take."""
    size = _parameter_bytes(model)
    return Figure(size / _MEGA, Source.ESTIMATED) if size else UNKNOWN_FIGURE


def _parameter_bytes(model: ModelCharacteristics) -> float:
    if model.memory_footprint_bytes:
        return float(model.memory_footprint_bytes)
    return model.parameter_count * weight_bits(model) / 8.0


def weight_bits(model: ModelCharacteristics) -> int:
    """Return the bits of one weight; a quantised model that does not say how far is taken to be int8."""
    return model.quantization_bits or (INT8_BITS if model.is_quantized else _FULL_BITS)
