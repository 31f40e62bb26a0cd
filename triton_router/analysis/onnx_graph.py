"""Walks over an ONNX model: every graph, node and tensor, subgraphs and functions included."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto, helper

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from onnx import FunctionProto

OWN_DOMAINS = frozenset({"", "ai.onnx"})
_LARGE_ELEMENTS = 1024
"""Tensors above this are no shape arguments; shape inference does not need their values."""

KSERVE_TYPES: dict[int, str] = {
    TensorProto.BOOL: "BOOL",
    TensorProto.UINT8: "UINT8",
    TensorProto.UINT16: "UINT16",
    TensorProto.UINT32: "UINT32",
    TensorProto.UINT64: "UINT64",
    TensorProto.INT8: "INT8",
    TensorProto.INT16: "INT16",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.FLOAT16: "FP16",
    TensorProto.FLOAT: "FP32",
    TensorProto.DOUBLE: "FP64",
    TensorProto.STRING: "BYTES",
    TensorProto.BFLOAT16: "BF16",
}
"""ONNX element type to KServe v2 datatype; the others cannot be sent to Triton."""

_SMALL_BITS: dict[int, int] = {
    TensorProto.UINT4: 4,
    TensorProto.INT4: 4,
    TensorProto.FLOAT4E2M1: 4,
    **{getattr(TensorProto, name): 2 for name in ("UINT2", "INT2") if hasattr(TensorProto, name)},
}


class Walk(NamedTuple):
    """One list of nodes and how deep in subgraphs it lies; 1 is the main graph."""

    nodes: Sequence[NodeProto]
    graph: GraphProto | None
    depth: int


def walk(model: ModelProto) -> Iterator[Walk]:
    """Yield the main graph, every subgraph, and every local function's body."""
    yield from _walk_graph(model.graph, 1)
    for function in model.functions:
        yield Walk(function.node, None, 1)
        yield from _walk_nodes(function.node, 1)


def walk_function(function: FunctionProto) -> Iterator[Walk]:
    """Yield a local function's body and its subgraphs."""
    yield Walk(function.node, None, 1)
    yield from _walk_nodes(function.node, 1)


def _walk_graph(graph: GraphProto, depth: int) -> Iterator[Walk]:
    yield Walk(graph.node, graph, depth)
    yield from _walk_nodes(graph.node, depth)


def _walk_nodes(nodes: Sequence[NodeProto], depth: int) -> Iterator[Walk]:
    for node in nodes:
        for graph in subgraphs(node):
            yield from _walk_graph(graph, depth + 1)


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """Yield the graphs among a node's attributes."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


def tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Yield every stored tensor: initializers, sparse ones' parts, and tensors among attributes."""
    for step in walk(model):
        if step.graph is not None:
            yield from step.graph.initializer
            for sparse in step.graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
        for node in step.nodes:
            for attribute in node.attribute:
                yield from attribute_tensors(attribute)


def attribute_tensors(attribute: AttributeProto) -> Iterator[TensorProto]:
    """Yield the tensors that one attribute holds."""
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    if attribute.HasField("sparse_tensor"):
        yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
    for sparse in attribute.sparse_tensors:
        yield from (sparse.values, sparse.indices)


def operator_name(node: NodeProto) -> str:
    """Return ``Conv``, or ``com.microsoft::QGemm`` outside ONNX's own domain."""
    return node.op_type if node.domain in OWN_DOMAINS else f"{node.domain}::{node.op_type}"


def element_bits(element_type: int) -> int:
    """Return the bits of one stored number; 0 for strings and for types that do not exist."""
    if element_type in _SMALL_BITS:
        return _SMALL_BITS[element_type]
    if element_type == TensorProto.STRING or element_type not in TensorProto.DataType.values():
        return 0
    if element_type == TensorProto.UNDEFINED:
        return 0
    return int(helper.tensor_dtype_to_np_dtype(element_type).itemsize) * 8


def tensor_bytes(element_type: int, dims: Sequence[int]) -> int:
    """Return the bytes of a tensor of that type and shape."""
    return (math.prod(dims) * element_bits(element_type) + 7) // 8


def real_inputs(graph: GraphProto) -> list[ValueInfoProto]:
    """Return the inputs that a caller gives; older files list initializers among the inputs."""
    stored = {tensor.name for tensor in graph.initializer} | {sparse.values.name for sparse in graph.sparse_initializer}
    return [value for value in graph.input if value.name not in stored]


def static_shape(value: TypeProto) -> tuple[int, ...] | None:
    """Return the shape if every dimension is known."""
    if not value.HasField("tensor_type") or not value.tensor_type.HasField("shape"):
        return None
    dims = value.tensor_type.shape.dim
    if not all(dim.HasField("dim_value") and dim.dim_value >= 0 for dim in dims):
        return None
    return tuple(dim.dim_value for dim in dims)


def skeleton(model: ModelProto) -> ModelProto:
    """Return a copy without the large initializers' values: they become inputs of the same type and shape.

    Shape inference and the checker serialise the whole model; without its weights that costs little.
    """
    copy = ModelProto()
    copy.ir_version = model.ir_version
    copy.opset_import.extend(model.opset_import)
    copy.functions.extend(model.functions)
    source, graph = model.graph, copy.graph
    graph.name = source.name
    graph.node.extend(source.node)
    graph.input.extend(source.input)
    graph.output.extend(source.output)
    graph.value_info.extend(source.value_info)
    graph.sparse_initializer.extend(source.sparse_initializer)
    inputs = {value.name for value in source.input}
    for tensor in source.initializer:
        if math.prod(tensor.dims) <= _LARGE_ELEMENTS and tensor.data_location != TensorProto.EXTERNAL:
            graph.initializer.append(tensor)
        elif tensor.name not in inputs:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return copy
