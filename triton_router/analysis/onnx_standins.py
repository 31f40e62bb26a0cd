"""Shapes through ``com.microsoft`` operators, which ONNX's shape inference does not know.

Each is replaced, one node by one node, by an operator of ONNX whose output has the same shape. The result is
good for shapes only: it computes something else. An operator that is not in the table stays as it is, and
what follows it has unknown shapes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from onnx import TensorProto, helper

from triton_router.analysis.onnx_graph import walk

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnx import GraphProto, ModelProto, NodeProto

_DOMAIN = "com.microsoft"

_SAME_SHAPE = (
    "BiasGelu",
    "BiasSoftmax",
    "DequantizeLinear",
    "FastGelu",
    "Gelu",
    "GroupQueryAttention",
    "LayerNormalization",
    "QLinearLeakyRelu",
    "QLinearSigmoid",
    "QLinearSoftmax",
    "QuantizeLinear",
    "QuickGelu",
    "RotaryEmbedding",
    "SimplifiedLayerNormalization",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
)
"""Their first output has the shape of their first input."""

_BY_POSITION: dict[str, tuple[str, tuple[int, ...]]] = {
    "QGemm": ("Gemm", (0, 3)),
    "QLinearConv": ("Conv", (0, 3)),
    "FusedConv": ("Conv", (0, 1)),
    "FusedGemm": ("Gemm", (0, 1)),
    "DynamicQuantizeMatMul": ("MatMul", (0, 1)),
    "MatMulIntegerToFloat": ("MatMul", (0, 1)),
    "DynamicQuantizeLSTM": ("LSTM", (0, 1, 2)),
    "QLinearAdd": ("Add", (0, 3)),
    "QLinearMul": ("Mul", (0, 3)),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,)),
    "QLinearAveragePool": ("AveragePool", (0,)),
    "QLinearWhere": ("Where", (0, 1, 4)),
    **dict.fromkeys(_SAME_SHAPE, ("Identity", (0,))),
}
"""Operator to the one that stands in for it and which of its inputs that one takes."""

_KEPT_ATTRIBUTES: dict[str, frozenset[str]] = {
    "Gemm": frozenset({"transA", "transB"}),
    "Conv": frozenset({"auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"}),
    "AveragePool": frozenset({"auto_pad", "ceil_mode", "kernel_shape", "pads", "strides"}),
    "LSTM": frozenset({"direction", "hidden_size", "layout"}),
}


def put_standins(model: ModelProto) -> None:
    """Replace known ``com.microsoft`` operators of a skeleton in place, everywhere in it."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for value in model.graph.input:
        shapes[value.name] = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
    for step in walk(model):
        for node in step.nodes:
            if node.domain == _DOMAIN:
                _replace(model.graph, node, shapes)


def _replace(graph: GraphProto, node: NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> None:
    name = node.op_type
    if name in _BY_POSITION:
        operator, positions = _BY_POSITION[name]
        inputs = [node.input[index] for index in positions if index < len(node.input)]
        kept = _KEPT_ATTRIBUTES.get(operator, frozenset())
        _become(node, operator, inputs, {key: _value(node, key) for key in kept if _value(node, key) is not None})
    elif name == "FusedMatMul":
        left = "...ki" if _value(node, "transA") else "...ik"
        right = "...jk" if _value(node, "transB") else "...kj"
        _become(node, "Einsum", list(node.input), {"equation": f"{left},{right}->...ij"})
    elif name == "MultiHeadAttention" and len(node.input) > 2:
        _become(node, "Einsum", [node.input[0], node.input[2]], {"equation": "bsd,ble->bse"})
    elif name == "QLinearConcat":
        _become(node, "Concat", list(node.input[2::3]), {"axis": _value(node, "axis") or 0})
    elif name in {"MatMulNBits", "Attention", "QAttention"}:
        dims = _projection(node, shapes)
        if dims is not None:
            weight = f"{node.output[0]}::standin"
            graph.input.append(helper.make_tensor_value_info(weight, TensorProto.FLOAT, dims))
            _become(node, "MatMul", [node.input[0], weight], {})


def _projection(node: NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> Sequence[int] | None:
    """Return the shape of the matrix that would give an output of the same shape."""
    if node.op_type == "MatMulNBits":
        return _integer(node, "K"), _integer(node, "N")
    weight = shapes.get(node.input[1], ()) if len(node.input) > 1 else ()
    if len(weight) != 2 or math.prod(weight) <= 0:
        return None
    widths = _value(node, "qkv_hidden_sizes")
    return weight[0], int(widths[-1]) if isinstance(widths, list) and widths else weight[1] // 3


def _integer(node: NodeProto, name: str) -> int:
    value = _value(node, name)
    return value if isinstance(value, int) else 0


def _value(node: NodeProto, name: str) -> object:
    return next((helper.get_attribute_value(attribute) for attribute in node.attribute if attribute.name == name), None)


def _become(node: NodeProto, operator: str, inputs: Sequence[str], attributes: Mapping[str, object]) -> None:
    node.op_type, node.domain = operator, ""
    del node.input[:]
    node.input.extend(inputs)
    if operator != "LSTM":
        del node.output[1:]
    del node.attribute[:]
    node.attribute.extend(helper.make_attribute(key, value) for key, value in sorted(attributes.items()))
