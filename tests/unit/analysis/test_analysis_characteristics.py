"""What the analysis says of an ONNX model besides its FLOPs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, TensorProto, helper

from triton_router.analysis.onnx_characteristics import analyse_onnx
from triton_router.analysis.report import AnalysisReport
from triton_router.testing import onnx_models as make

if TYPE_CHECKING:
    from pathlib import Path


def _analyse(tmp_path: Path, model: ModelProto) -> AnalysisReport:
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return analyse_onnx(path, name="m")


def test_mlp(tmp_path: Path) -> None:
    """Every property of a model that a hand can list."""
    report = _analyse(tmp_path, make.mlp())
    found = report.characteristics
    assert (found.model_name, found.framework) == ("m", "onnx")
    assert found.parameter_count == 16 * 32 + 32 + 32 * 4 + 4
    assert found.memory_footprint_bytes == 4 * found.parameter_count
    assert found.input_shapes == {"x": (-1, 16)}
    assert found.output_shapes == {"y": (-1, 4)}
    assert (found.input_types, found.output_types) == ({"x": "FP32"}, {"y": "FP32"})
    assert found.has_dynamic_shapes
    assert found.supports_batching
    assert not (found.has_control_flow)
    assert not (found.has_custom_ops)
    assert not (found.is_quantized)
    assert report.operators == {"Add": 1, "Gemm": 1, "MatMul": 1, "Relu": 1}
    assert report.dynamic_dims == {"x": {0: "batch"}, "y": {0: "batch"}}
    assert (report.batch_symbol, report.batchable_by_shape) == ("batch", True)
    assert report.parameter_types == {"FP32": found.parameter_count}
    assert (report.opset, report.ir_version, report.has_convolutions) == (make.OPSET, 10, False)


def test_report_survives_json(tmp_path: Path) -> None:
    """What a child process sends is what the parent reads."""
    report = _analyse(tmp_path, make.attention())
    assert AnalysisReport.from_json(json.loads(json.dumps(report.to_json()))) == report


def test_convolutions_are_seen(tmp_path: Path) -> None:
    """A model with convolutions says so: it must not be quantised dynamically."""
    assert _analyse(tmp_path, make.cnn()).has_convolutions


def _elementwise(inputs: list, outputs: list) -> ModelProto:
    return make.model([helper.make_node("Relu", ["x"], ["y"])], [make.value("x", inputs)], [make.value("y", outputs)])


def test_batchable_by_shape(tmp_path: Path) -> None:
    """A shared dynamic dimension 0 is a batch; a fixed or a reduced one is not."""
    assert _analyse(tmp_path, _elementwise(["n", 4], ["n", 4])).batchable_by_shape
    assert not _analyse(tmp_path, _elementwise([2, 4], [2, 4])).batchable_by_shape
    reduced = make.model(
        [helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)],
        [make.value("x", ["n", 4])],
        [make.value("y", [4])],
        [make.constant("axes", [0])],
    )
    assert not _analyse(tmp_path, reduced).batchable_by_shape


def test_outputs_that_follow_the_batch_under_another_name(tmp_path: Path) -> None:
    """Inferred shapes decide when an exporter gave the output's dimension 0 a name of its own."""
    report = _analyse(tmp_path, _elementwise(["n", 4], ["Relu_dim_0", 4]))
    assert report.batchable_by_shape
    assert report.dynamic_dims == {"x": {0: "n"}, "y": {0: "n"}}


def test_an_output_with_an_unrelated_dynamic_dimension_is_no_batch(tmp_path: Path) -> None:
    """NonZero's count depends on the data, whatever its name says."""
    nodes = [helper.make_node("NonZero", ["x"], ["z"]), helper.make_node("Transpose", ["z"], ["y"])]
    model = make.model(nodes, [make.value("x", ["n", 4])], [make.value("y", ["count", 2], TensorProto.INT64)])
    assert not _analyse(tmp_path, model).batchable_by_shape


def test_shapes_that_are_computed_in_the_graph(tmp_path: Path) -> None:
    """A Reshape and a Slice whose sizes come from Shape do not hide a matrix product behind them."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "one"], ["length"]),
        helper.make_node("Unsqueeze", ["length", "axis"], ["end"]),
        helper.make_node("Slice", ["table", "start", "end"], ["positions"]),
        helper.make_node("Add", ["x", "positions"], ["sum"]),
        helper.make_node("MatMul", ["sum", "w"], ["y"]),
    ]
    weights = [
        make.constant("one", 1),
        make.constant("axis", [0]),
        make.constant("start", [0]),
        make.weight("table", 512, 4),
        make.weight("w", 4, 8),
    ]
    shape = ["batch", "sequence"]
    model = make.model(nodes, [make.value("x", [*shape, 4])], [make.value("y", [*shape, 8])], weights)
    report = _analyse(tmp_path, model)
    assert report.characteristics.flop_count == 2 * 128 * 4 * 8
    assert report.uncounted_operators == ()


def test_strings_and_control_flow_keep_a_model_off_the_neural_engine(tmp_path: Path) -> None:
    """BYTES tensors are served, but nothing accelerates them."""
    model = make.model(
        [helper.make_node("Identity", ["x"], ["y"])],
        [make.value("x", ["n"], TensorProto.STRING)],
        [make.value("y", ["n"], TensorProto.STRING)],
    )
    found = _analyse(tmp_path, model).characteristics
    assert found.input_types == {"x": "BYTES"}
    assert not found.supports_neural_engine


def test_custom_domains(tmp_path: Path) -> None:
    """An allowed custom operator is reported as one."""
    from triton_router.analysis.onnx_model import OnnxLimits

    node = helper.make_node("Own", ["x"], ["y"], domain="acme")
    model = make.model([node], [make.value("x", ["n", 4])], [make.value("y", ["n", 4])], domains=["acme"])
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    report = analyse_onnx(path, name="m", limits=OnnxLimits(domains=frozenset({"acme"})))
    assert report.characteristics.has_custom_ops
    assert report.custom_domains == ("acme",)
    assert report.operators == {"acme::Own": 1}


def test_half_precision_is_not_quantisation(tmp_path: Path) -> None:
    """FP16 weights halve the bytes and are no quantised weights."""
    weights = [make.weight("w", 4, 8, dtype=np.float16)]
    values = [make.value("x", ["n", 4], TensorProto.FLOAT16)], [make.value("y", ["n", 8], TensorProto.FLOAT16)]
    found = _analyse(tmp_path, make.model([helper.make_node("MatMul", ["x", "w"], ["y"])], *values, weights))
    assert found.characteristics.memory_footprint_bytes == 64
    assert not found.characteristics.is_quantized
    assert found.parameter_types == {"FP16": 32}
