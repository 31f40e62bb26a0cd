"""FLOPs of ONNX models match what a hand counts, for float models and for every quantised form of them."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from triton_router.analysis.onnx_characteristics import analyse_onnx
from triton_router.testing import onnx_models as make

if TYPE_CHECKING:
    from pathlib import Path

ATTENTION = {length: 2 * length * 16 * 48 + 4 * length * length * 16 for length in (7, 128)}
MODELS = {
    "mlp": (make.mlp, 1280),
    "cnn": (make.cnn, 40960),
    "lstm": (lambda: make.recurrent("LSTM", 4), 2 * 5 * 2 * 4 * 16 * 24),
    "gru": (lambda: make.recurrent("GRU", 3), 2 * 5 * 2 * 3 * 16 * 24),
    "rnn": (lambda: make.recurrent("RNN", 1), 2 * 5 * 2 * 16 * 24),
    "attention": (make.attention, ATTENTION[128]),
}


def _flops(tmp_path: Path, model: ModelProto, **options: object) -> int:
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    report = analyse_onnx(path, name="m", **options)
    assert sum(report.flops_by_operator.values()) == report.characteristics.flop_count
    return report.characteristics.flop_count


@pytest.mark.parametrize("name", MODELS)
def test_float_models(tmp_path: Path, name: str) -> None:
    """Each network counts exactly what its docstring derives."""
    make_model, expected = MODELS[name]
    assert _flops(tmp_path, make_model()) == expected


def test_a_dynamic_dimension_takes_the_given_size(tmp_path: Path) -> None:
    """A sequence is 128 unless the caller says otherwise, and the report says what was assumed."""
    assert _flops(tmp_path, make.attention(), sizes={"sequence": 7}) == ATTENTION[7]
    assert analyse_onnx(tmp_path / "model.onnx", name="m").assumed_dims == {"sequence": 128}


@pytest.mark.build
@pytest.mark.parametrize("name", ["mlp", "lstm", "attention"])
def test_dynamically_quantised_models_count_like_their_parents(tmp_path: Path, name: str) -> None:
    """quantize_dynamic replaces operators (MatMulInteger, DynamicQuantizeLSTM); the count stays."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    make_model, expected = MODELS[name]
    source, target = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    source.write_bytes(make_model().SerializeToString())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantization.quantize_dynamic(source, target)
    report = analyse_onnx(target, name="m")
    assert report.characteristics.flop_count == expected
    assert (report.characteristics.is_quantized, report.characteristics.quantization_bits) == (True, 8)


@pytest.mark.build
@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
@pytest.mark.parametrize("name", ["mlp", "cnn", "attention"])
def test_statically_quantised_models_count_like_their_parents(tmp_path: Path, name: str, form: str) -> None:
    """Both of onnxruntime's static forms keep the count: QDQ pairs, and QLinear operators."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    make_model, expected = MODELS[name]
    model = make_model()
    shape = {"mlp": (2, 16), "cnn": (2, 3, 8, 8), "attention": (2, 7, 16)}[name]

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = [{"x": np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)}]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self.left.pop() if self.left else None

    source, target = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    source.write_bytes(model.SerializeToString())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantization.quantize_static(source, target, Reader(), quant_format=quantization.QuantFormat[form])
    report = analyse_onnx(target, name="m")
    assert report.characteristics.flop_count == expected
    assert (report.characteristics.is_quantized, report.characteristics.quantization_bits) == (True, 8)


def _node_flops(tmp_path: Path, node: object, inputs: dict[str, list], weights: list[TensorProto], out: list) -> int:
    values = [make.value(name, dims) for name, dims in inputs.items()]
    domains = [node.domain] if node.domain else []
    opset = 24 if node.op_type == "Attention" and not node.domain else make.OPSET
    return _flops(tmp_path, make.model([node], values, [make.value("y", out)], weights, domains=domains, opset=opset))


def test_matmul_with_vectors_and_broadcasting(tmp_path: Path) -> None:
    """Numpy's rules: a vector is a row or a column, leading dimensions broadcast."""
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    assert _node_flops(tmp_path, node, {"x": ["b", 5, 3, 4]}, [make.weight("w", 4)], ["b", 5, 3]) == 2 * 5 * 3 * 4
    weights = [make.weight("w", 5, 4, 6)]
    assert _node_flops(tmp_path, node, {"x": ["b", 1, 3, 4]}, weights, ["b", 5, 3, 6]) == 2 * 5 * 3 * 4 * 6


def test_einsum(tmp_path: Path) -> None:
    """Two operands: all letters multiplied; without a summed letter it is elementwise."""
    node = helper.make_node("Einsum", ["x", "w"], ["y"], equation="bij,jk->bik")
    assert _node_flops(tmp_path, node, {"x": ["b", 3, 4]}, [make.weight("w", 4, 5)], ["b", 3, 5]) == 2 * 3 * 4 * 5
    node = helper.make_node("Einsum", ["x", "w"], ["y"], equation="bij,ij->bij")
    assert _node_flops(tmp_path, node, {"x": ["b", 3, 4]}, [make.weight("w", 3, 4)], ["b", 3, 4]) == 0


def test_attention_operators(tmp_path: Path) -> None:
    """ONNX's own Attention over 4-D inputs, and Microsoft's fused projection and attention."""
    node = helper.make_node("Attention", ["q", "k", "v"], ["y"])
    inputs = {"q": ["b", 2, 6, 8], "k": ["b", 2, 9, 8], "v": ["b", 2, 9, 4]}
    assert _node_flops(tmp_path, node, inputs, [], ["b", 2, 6, 4]) == 2 * 2 * 6 * 9 * (8 + 4)
    node = helper.make_node("Attention", ["x", "w", "c"], ["y"], domain="com.microsoft", num_heads=2)
    weights = [make.weight("w", 16, 48), make.weight("c", 48)]
    expected = 2 * 7 * 16 * 48 + 2 * 7 * 7 * 32
    assert _node_flops(tmp_path, node, {"x": ["b", 7, 16]}, weights, ["b", 7, 16]) == expected


def test_four_bit_weights(tmp_path: Path) -> None:
    """MatMulNBits takes its sizes from K and N; its bits are reported."""
    node = helper.make_node(
        "MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", K=32, N=8, bits=4, block_size=32
    )
    weights = [make.weight("w", 8, 1, 16, dtype=np.uint8), make.weight("s", 8)]
    assert _node_flops(tmp_path, node, {"x": ["b", 32]}, weights, ["b", 8]) == 2 * 32 * 8
    characteristics = analyse_onnx(tmp_path / "model.onnx", name="m").characteristics
    assert (characteristics.is_quantized, characteristics.quantization_bits) == (True, 4)


def branches() -> ModelProto:
    """An If with a matrix product of 2*4*4 in one branch and two of them in the other."""
    then = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["t"])], "then", [], [make.value("t", None)])
    nodes = [helper.make_node("MatMul", ["x", "w"], ["u"]), helper.make_node("MatMul", ["u", "w"], ["e"])]
    other = helper.make_graph(nodes, "else", [], [make.value("e", None)])
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Cast", ["s"], ["c"], to=TensorProto.BOOL),
        helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other),
    ]
    return make.model(nodes, [make.value("x", ["b", 4])], [make.value("y", ["b", 4])], [make.weight("w", 4, 4)])


def scan() -> ModelProto:
    """A Scan of 5 steps, each one matrix product of 2*4*4."""
    body = helper.make_graph(
        [helper.make_node("MatMul", ["state", "w"], ["next"]), helper.make_node("Add", ["next", "step"], ["out"])],
        "body",
        [make.value("state", [1, 4]), make.value("step", [1, 4])],
        [make.value("next", [1, 4]), make.value("out", [1, 4])],
    )
    nodes = [helper.make_node("Scan", ["start", "x"], ["end", "y"], body=body, num_scan_inputs=1)]
    weights = [make.weight("w", 4, 4), make.weight("start", 1, 4)]
    return make.model(nodes, [make.value("x", [5, 1, 4])], [make.value("y", [5, 1, 4])], weights)


def loop() -> ModelProto:
    """A Loop whose trip count is an input."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("MatMul", ["s", "w"], ["t"])],
        "body",
        [make.value("i", [], TensorProto.INT64), make.value("go", [], TensorProto.BOOL), make.value("s", ["b", 4])],
        [make.value("on", [], TensorProto.BOOL), make.value("t", ["b", 4])],
    )
    nodes = [
        helper.make_node("Squeeze", ["n"], ["trips"]),
        helper.make_node("Loop", ["trips", "", "x"], ["y"], body=body),
    ]
    inputs = [make.value("n", [1], TensorProto.INT64), make.value("x", ["b", 4])]
    return make.model(nodes, inputs, [make.value("y", ["b", 4])], [make.weight("w", 4, 4)])


@pytest.mark.parametrize(
    ("make_model", "expected", "uncounted"),
    [(branches, 64, ()), (scan, 5 * 32, ()), (loop, 0, ("Loop",))],
)
def test_control_flow(tmp_path: Path, make_model: object, expected: int, uncounted: tuple[str, ...]) -> None:
    """The dearer branch, the body times its steps, and an honest unknown."""
    assert _flops(tmp_path, make_model()) == expected
    report = analyse_onnx(tmp_path / "model.onnx", name="m")
    assert report.characteristics.has_control_flow
    assert report.uncounted_operators == uncounted
