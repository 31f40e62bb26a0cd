"""What is assumed of backends before anything is measured, and which of them cannot run a model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from triton_router.profiling.figures import Figure, Source
from triton_router.routing.capabilities import CAPABILITIES, memory_prior, power_prior
from triton_router.routing.characteristics import ModelCharacteristics
from triton_router.routing.eligibility import ineligible
from triton_router.routing.types import Backend

MODEL = ModelCharacteristics("m", parameter_count=25_000_000, flop_count=8_000_000_000, supports_neural_engine=True)
CPU, GPU, ANE, MPS = (CAPABILITIES[backend] for backend in Backend)


@pytest.mark.parametrize(
    ("backend", "priors"),
    [
        ("cpu", (100, 50, 10, True)),
        ("gpu", (10_000, 500, 50, True)),
        ("neural_engine", (5_000, 200, 100, True)),
        ("metal_mps", (8_000, 400, 80, False)),
    ],
)
def test_the_documented_priors(backend: str, priors: tuple[object, ...]) -> None:
    """GFLOPS, GB/s, GFLOPS per watt and int8 are what the document says; only the CPU has no half precision."""
    found = CAPABILITIES[Backend(backend)]
    assert (found.gflops, found.bandwidth_gb_s, found.gflops_per_w, found.supports_int8) == priors
    assert found.supports_fp16 is (backend != "cpu")
    assert power_prior(found) == Figure(found.gflops / found.gflops_per_w, Source.ESTIMATED)


@pytest.mark.parametrize(
    ("change", "barred"),
    [
        ({}, {}),
        ({"supports_gpu_acceleration": False}, {"gpu": "GPU", "metal_mps": "GPU"}),
        ({"supports_neural_engine": False}, {"neural_engine": "Neural Engine"}),
        ({"is_quantized": True, "quantization_bits": 8}, {"metal_mps": "int8"}),
        ({"is_quantized": True}, {"metal_mps": "int8"}),
        ({"is_quantized": True, "quantization_bits": 16}, {}),
        ({"has_dynamic_shapes": True}, {"neural_engine": "dynamic shapes"}),
        ({"has_control_flow": True}, {"neural_engine": "control flow"}),
        ({"has_custom_ops": True}, {"neural_engine": "custom", "metal_mps": "custom"}),
    ],
)
def test_who_cannot_run_a_model(change: dict[str, object], barred: dict[str, str]) -> None:
    """Each property bars the backends that lack it, with a reason that names it; the CPU runs everything."""
    found = {str(backend): ineligible(replace(MODEL, **change), able) for backend, able in CAPABILITIES.items()}
    assert {backend for backend, reason in found.items() if reason} == set(barred)
    assert all(word in found[backend] for backend, word in barred.items())


def test_narrow_types_are_faster_where_they_are_supported() -> None:
    """int8 doubles the arithmetic where model and device support it, half precision where the device does."""
    int8 = replace(MODEL, is_quantized=True, quantization_bits=8, supports_int8_acceleration=True)
    half = replace(MODEL, quantization_bits=16)
    assert GPU.peak_gflops_for(int8) == 2 * GPU.peak_gflops_for(MODEL) == 20_000
    assert GPU.peak_gflops_for(replace(int8, supports_int8_acceleration=False)) == 10_000
    assert MPS.peak_gflops_for(int8) == 8_000
    assert (MPS.peak_gflops_for(half), CPU.peak_gflops_for(half)) == (16_000, 100)


def test_work_is_estimated_from_flops_else_from_parameters() -> None:
    """With FLOPs the roofline has both sides; without, two operations per parameter; without either, nothing."""
    prior = CPU.prior_for(MODEL)
    assert prior is not None
    assert (prior.flops, prior.parameter_bytes) == (8e9, 1e8)
    assert prior.latency_ms(1.0) == pytest.approx(80.05)
    guessed = CPU.prior_for(replace(MODEL, flop_count=0))
    assert guessed is not None
    assert (guessed.flops, guessed.parameter_bytes) == (5e7, 0.0)
    assert CPU.prior_for(ModelCharacteristics()) is None


def test_memory_is_what_parameters_take() -> None:
    """The stated footprint, else the bits of all parameters; unknown without either."""
    assert memory_prior(MODEL) == Figure(100.0, Source.ESTIMATED)
    assert memory_prior(replace(MODEL, quantization_bits=8)) == Figure(25.0, Source.ESTIMATED)
    assert memory_prior(replace(MODEL, memory_footprint_bytes=7_000_000)) == Figure(7.0, Source.ESTIMATED)
    assert memory_prior(ModelCharacteristics()).source is Source.UNKNOWN
