"""Small ONNX models, made where they are needed, with the figures that a hand gives for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Sequence

FLOAT = TensorProto.FLOAT
OPSET = 20


def value(name: str, dims: Sequence[int | str | None] | None, element: int = FLOAT) -> ValueInfoProto:
    """Return a declaration."""
    return helper.make_tensor_value_info(name, element, dims)


def weight(name: str, *shape: int, dtype: type = np.float32) -> TensorProto:
    """Return an initializer of that shape, deterministic and small."""
    count = int(np.prod(shape))
    return numpy_helper.from_array((np.arange(count) % 7 - 3).astype(dtype).reshape(shape), name)


def constant(name: str, content: object, dtype: type = np.int64) -> TensorProto:
    """Return an initializer with that content."""
    return numpy_helper.from_array(np.array(content, dtype), name)


def model(
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    weights: Sequence[TensorProto] = (),
    *,
    domains: Sequence[str] = (),
    opset: int = OPSET,
) -> ModelProto:
    """Return a model of one graph."""
    graph: GraphProto = helper.make_graph(nodes, "graph", inputs, outputs, weights)
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def mlp() -> ModelProto:
    """16 -> 32 -> 4 with biases. Per sample 2*16*32 + 2*32*4 = 1280 operations, 676 parameters."""
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["m"]),
        helper.make_node("Add", ["m", "b2"], ["y"]),
    ]
    weights = [weight("w1", 32, 16), weight("b1", 32), weight("w2", 32, 4), weight("b2", 4)]
    return model(nodes, [value("x", ["batch", 16])], [value("y", ["batch", 4])], weights)


def cnn() -> ModelProto:
    """3x8x8 -> conv 3x3 of 8 -> grouped conv 3x3 stride 2 -> transposed 2x2 stride 2 of 4.

    2*8*64*27 = 27648; 2*(8*16)*(4*9) = 9216; 2*(8*16)*(4*4) = 4096: 40960 operations.
    """
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["h"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["h", "w2"], ["g"], pads=[1, 1, 1, 1], strides=[2, 2], group=2),
        helper.make_node("ConvTranspose", ["g", "w3"], ["y"], strides=[2, 2]),
    ]
    weights = [weight("w1", 8, 3, 3, 3), weight("b1", 8), weight("w2", 8, 4, 3, 3), weight("w3", 8, 4, 2, 2)]
    return model(nodes, [value("x", ["batch", 3, 8, 8])], [value("y", ["batch", 4, 8, 8])], weights)


def recurrent(operator: str, gates: int) -> ModelProto:
    """8 features, 16 hidden, two directions, 5 steps: 2 * 5 * 2 * gates * 16 * (8 + 16) operations."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        helper.make_node(operator, ["t", "w", "r"], ["s"], hidden_size=16, direction="bidirectional"),
        helper.make_node("Transpose", ["s"], ["y"], perm=[2, 0, 1, 3]),
    ]
    weights = [weight("w", 2, gates * 16, 8), weight("r", 2, gates * 16, 16)]
    return model(nodes, [value("x", ["batch", 5, 8])], [value("y", ["batch", 5, 2, 16])], weights)


def attention() -> ModelProto:
    """One head over a dynamic sequence S of width 16: 2*S*16*48 + 2*2*S*S*16 operations."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["qkv"]),
        helper.make_node("Split", ["qkv"], ["q", "k", "v"], axis=2, num_outputs=3),
        helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "kt"], ["a"]),
        helper.make_node("Softmax", ["a"], ["p"]),
        helper.make_node("MatMul", ["p", "v"], ["y"]),
    ]
    shape = ["batch", "sequence", 16]
    return model(nodes, [value("x", shape)], [value("y", shape)], [weight("w", 16, 48)])
