"""The plan: every target gets a row, and every row a reason."""

from __future__ import annotations

from typing import Any

import pytest

from triton_router.analysis.report import AnalysisReport
from triton_router.errors import InvalidInputError
from triton_router.repository.plan import BY_SUFFIX, Toolbox, VariantPlan, plan
from triton_router.routing.characteristics import ModelCharacteristics

PACKAGES = frozenset({"onnx", "onnxruntime", "onnxscript", "torch", "coremltools"})
HERE = Toolbox(PACKAGES, frozenset({"cpu"}))
GPU_SERVER = Toolbox(PACKAGES | {"tensorrt"}, frozenset({"cpu", "gpu"}))


def _report(characteristics: dict[str, Any] | None = None, **values: Any) -> AnalysisReport:
    known = {"operators": {"MatMul": 37}, "parameter_types": {"FP32": 1000}, **values}
    return AnalysisReport(characteristics=ModelCharacteristics(**(characteristics or {})), **known)


def _rows(report: AnalysisReport, kind: str = "factory", tools: Toolbox = HERE, **more: Any) -> dict[str, VariantPlan]:
    return {row.target: row for row in plan(report, kind, tools, **more)}


def test_every_target_has_a_row_with_a_reason() -> None:
    """Nothing is left out silently: all nine targets appear, each with words."""
    rows = plan(_report(), "factory", HERE)
    assert [row.target for row in rows] == list(BY_SUFFIX)
    assert len(rows) == 9
    assert all(row.reason for row in rows)


def test_a_torch_model_without_a_gpu() -> None:
    """CPU targets are served; what only other machines serve is kept if its file is one of its own."""
    actions = {name: row.action for name, row in _rows(_report()).items()}
    assert actions == {
        "onnx-cpu": "build-and-serve",
        "onnx-int8-cpu": "build-and-serve",
        "onnx-gpu": "skip",
        "onnx-fp16-gpu": "build-and-keep",
        "pt2-cpu": "build-and-serve",
        "pt2-gpu": "skip",
        "pt2-mps": "skip",
        "coreml-ane": "build-and-keep",
        "tensorrt-gpu": "skip",
    }


def test_a_gpu_server_is_served() -> None:
    """With --hardware gpu every GPU target is served, TensorRT included where it is installed."""
    rows = _rows(_report(), tools=GPU_SERVER)
    assert all(rows[name].action == "build-and-serve" for name in rows if name.endswith("-gpu"))


@pytest.mark.parametrize(
    ("target", "report", "kind", "tools", "words"),
    [
        ("onnx-int8-cpu", _report(), "onnx", HERE, "dynamic, because the model has 37 MatMul and no Conv"),
        (
            "onnx-int8-cpu",
            _report(operators={"Conv": 5, "MatMul": 1}, has_convolutions=True),
            "onnx",
            HERE,
            "static QDQ U8S8 with calibration, because the model has 5 Conv",
        ),
        ("onnx-int8-cpu", _report(operators={"aten.lstm.input": 2}), "factory", HERE, "2 recurrent layers"),
        ("onnx-int8-cpu", _report(operators={"Add": 1}), "onnx", HERE, "no MatMul, Gemm, Conv or LSTM"),
        ("onnx-int8-cpu", _report({"is_quantized": True}), "onnx", HERE, "quantised already"),
        ("onnx-fp16-gpu", _report(), "onnx", HERE, "kept, not served: no CUDA GPU on this machine; add --hardware gpu"),
        ("onnx-fp16-gpu", _report(parameter_types={"FP16": 9}), "onnx", HERE, "no FP32 numbers"),
        ("pt2-cpu", _report(), "onnx", HERE, "this is an ONNX file"),
        ("coreml-ane", _report({"has_control_flow": True}), "factory", HERE, "control flow"),
        ("coreml-ane", _report(), "onnx", HERE, "made from torch sources only"),
        (
            "coreml-ane",
            _report(),
            "pt2",
            Toolbox(frozenset({"torch"}), frozenset({"cpu"})),
            "pip install 'triton-router[coreml]'",
        ),
        ("tensorrt-gpu", _report(), "onnx", HERE, "a plan is built on the GPU that serves it"),
        ("tensorrt-gpu", _report(custom_domains=("my.ops",)), "onnx", GPU_SERVER, "no operators of 'my.ops'"),
        ("onnx-cpu", _report(), "factory", Toolbox(frozenset({"torch"}), frozenset({"cpu"})), "triton-router[onnx]"),
    ],
)
def test_reasons(target: str, report: AnalysisReport, kind: str, tools: Toolbox, words: str) -> None:
    """Each decision is explained by what decided it."""
    assert words in _rows(report, kind, tools)[target].reason


def test_convolutions_are_never_quantised_dynamically() -> None:
    """A single convolution makes the quantisation static, whatever else there is."""
    row = _rows(_report(operators={"MatMul": 99, "Conv": 1}))["onnx-int8-cpu"]
    assert row.quantisation == "static"


def test_only_the_targets_asked_for() -> None:
    """--targets leaves the others out, and makes what it names even if nothing here serves it."""
    rows = _rows(_report(), only=("pt2-cpu", "onnx-gpu"))
    made = {name: row.action for name, row in rows.items() if row.action != "skip"}
    assert made == {"pt2-cpu": "build-and-serve", "onnx-gpu": "build-and-keep"}
    assert rows["onnx-cpu"].reason == "not among --targets"


def test_an_unknown_target_is_refused_with_the_valid_ones() -> None:
    """A typing error is answered by the list to choose from."""
    with pytest.raises(InvalidInputError, match="onnx-cup") as caught:
        plan(_report(), "onnx", HERE, ("onnx-cup",))
    assert all(suffix in caught.value.hint for suffix in BY_SUFFIX)


def test_a_server_without_the_processor() -> None:
    """--hardware gpu alone serves nothing on the processor."""
    rows = _rows(_report(), tools=Toolbox(PACKAGES, frozenset({"gpu"})))
    assert rows["onnx-cpu"].action == "skip"
    assert rows["onnx-gpu"].action == "build-and-serve"
