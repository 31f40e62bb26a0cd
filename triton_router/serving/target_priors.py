"""What to expect of targets that nobody has measured: from the model's arithmetic and what the device can do."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from triton_router.errors import ConfigError
from triton_router.repository import manifest
from triton_router.routing.capabilities import CAPABILITIES, INT8_BITS
from triton_router.routing.characteristics import ModelCharacteristics
from triton_router.routing.types import Backend

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from triton_router.config.router_config import TargetConfig
    from triton_router.hardware.calibration import Calibration
    from triton_router.profiling.roofline import RooflinePrior
    from triton_router.routing.capabilities import BackendCapabilities

_LARGEST = 1 << 62


def target_priors(
    directory: Path, targets: Iterable[TargetConfig], calibration: Calibration | None
) -> dict[str, RooflinePrior]:
    """Return what to expect of each target, by name, as far as the model's manifest tells.

    Args:
        directory: The routed model's, with the manifest that ``triton-router add`` wrote.
        targets: As configured.
        calibration: What the processor was measured to do; without it the documented priors count.
    """
    model = _characteristics(directory)
    if model is None:
        return {}
    capabilities = _capabilities(calibration)
    priors = {
        settings.name: capabilities[settings.backend].prior_for(_variant_of(model, settings)) for settings in targets
    }
    return {name: prior for name, prior in priors.items() if prior is not None}


def _capabilities(calibration: Calibration | None) -> Mapping[Backend, BackendCapabilities]:
    if calibration is None:
        return CAPABILITIES
    cpu = replace(CAPABILITIES[Backend.CPU], gflops=calibration.gflops, bandwidth_gb_s=calibration.bandwidth_gb_s)
    return {**CAPABILITIES, Backend.CPU: cpu}


def _variant_of(model: ModelCharacteristics, settings: TargetConfig) -> ModelCharacteristics:
    """Return what the variant's name says of how it differs from its parent."""
    if "int8" not in settings.variant:
        return model
    return replace(model, is_quantized=True, quantization_bits=INT8_BITS, memory_footprint_bytes=0)


def _characteristics(directory: Path) -> ModelCharacteristics | None:
    """Return what the manifest says of the newest version; None where there is none, or none of ours."""
    try:
        found = manifest.read(directory)
    except ConfigError:  # whoever maintains the model is told of it; priors can be done without
        return None
    if not found or not found["versions"]:
        return None
    versions = cast("dict[str, dict[str, Any]]", found["versions"])
    newest = versions[max(versions, key=lambda text: int(text) if text.isdigit() else 0)]
    known: object = newest.get("characteristics")
    if not isinstance(known, dict):
        return None
    values = cast("dict[str, object]", known)
    return ModelCharacteristics(
        parameter_count=_count(values.get("parameter_count")),
        flop_count=_count(values.get("flop_count")),
        memory_footprint_bytes=_count(values.get("memory_footprint_bytes")),
        is_quantized=values.get("is_quantized") is True,
        quantization_bits=_count(values.get("quantization_bits")),
        supports_int8_acceleration=True,
    )


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST else 0
