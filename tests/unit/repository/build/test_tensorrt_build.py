"""TensorRT plans, as far as they can be shown without a GPU: profiles, refusals, the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from triton_router.repository import plan
from triton_router.repository.build import tensorrt
from triton_router.repository.build.job import BuildJob, IoSpec, TensorSpec
from triton_router.repository.model_config import render
from triton_router.repository.target_config import target_config

GOLDEN = Path(__file__).parents[3] / "golden" / "config" / "tensorrt.pbtxt"
TEXT = IoSpec(
    inputs=(
        TensorSpec("input_ids", "INT64", (-1, -1), ("batch", "length")),
        TensorSpec("attention_mask", "INT64", (-1, -1), ("batch", "length")),
        TensorSpec("scale", "FP32", (1,), ("",)),
    ),
    outputs=(TensorSpec("hidden", "FP32", (-1, -1, 384), ("batch", "length", "")),),
    bounds={"batch": (1, 128), "length": (2, 512)},
    batch_axis="batch",
)
TYPICAL = {"input_ids": (3, 64), "attention_mask": (3, 64), "scale": (1,)}


def _job(**changes: object) -> BuildJob:
    known: dict[str, Any] = {
        "model": "minilm",
        "target": "tensorrt-gpu",
        "staging": "nowhere",
        "version": 1,
        "source_kind": "onnx",
        "source": "m.onnx",
        "onnx": "m.onnx",
        "program": "",
        "references": (),
        "io": TEXT,
        "max_batch_size": 32,
    }
    return BuildJob(**(known | changes))


def test_the_profile_spans_what_triton_may_send() -> None:
    """The batch goes from 1 to max_batch_size, other dimensions over the contract; fixed inputs have no entry."""
    shapes = tensorrt.profile(_job(), TYPICAL)
    assert shapes == {
        "input_ids": ((1, 2), (8, 64), (32, 512)),
        "attention_mask": ((1, 2), (8, 64), (32, 512)),
    }


def test_a_small_batch_is_tuned_for_itself() -> None:
    """The typical batch is never above max_batch_size, and min <= opt <= max holds in every dimension."""
    for smallest, typical, largest in tensorrt.profile(_job(max_batch_size=4), TYPICAL).values():
        assert (typical[0], largest[0]) == (4, 4)
        assert all(low <= usual <= high for low, usual, high in zip(smallest, typical, largest, strict=True))


def test_an_unbatched_model_keeps_its_own_bounds() -> None:
    """Without a batch every dynamic dimension follows the contract."""
    assert tensorrt.profile(_job(max_batch_size=0), TYPICAL)["input_ids"] == ((1, 2), (3, 64), (128, 512))


def test_a_dimension_without_bound_is_not_available() -> None:
    """A plan is tuned up to a largest shape; the reason names the dimension and what to do."""
    io = IoSpec(TEXT.inputs, TEXT.outputs, {"batch": (1, 128)}, "batch")
    reason = tensorrt.unavailable(_job(io=io))
    assert reason.startswith("dimension length has no upper bound")
    assert "Dim(max=...)" in reason


def test_text_tensors_and_missing_onnx_are_not_available() -> None:
    """Both are known without TensorRT."""
    io = IoSpec((TensorSpec("text", "BYTES", (-1,), ("batch",)),), TEXT.outputs, TEXT.bounds, "batch")
    assert tensorrt.unavailable(_job(io=io)) == "TensorRT has no tensors of type BYTES"
    assert "could not be exported" in tensorrt.unavailable(_job(onnx=""))


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has NVIDIA's driver")
def test_without_a_gpu_the_answer_says_what_to_do_on_the_gpu_machine() -> None:
    """No error and no file: a reason with the command for the machine that can."""
    result = tensorrt.build(_job().to_json())
    assert "this machine has none" in result["unavailable"]
    assert "triton-router add" in result["unavailable"]
    assert "--targets tensorrt-gpu" in result["unavailable"]


def test_the_configuration_for_the_native_backend() -> None:
    """Batched, on a GPU, merged by Triton, with the contract's types: exactly the golden file."""
    target = next(item for item in plan.TARGETS if item.suffix == "tensorrt-gpu")
    io = IoSpec(TEXT.inputs[:2], TEXT.outputs, TEXT.bounds, TEXT.batch_axis)
    assert render(target_config("minilm-tensorrt-gpu", target, io, 32, "independent")) == GOLDEN.read_text()
