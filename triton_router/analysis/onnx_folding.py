"""Shapes of a model whose inputs all have sizes, where ONNX's own shape inference stops half way.

Exporters compute shapes in the graph (a Slice up to the sequence length, a Reshape to the head count). Inference
follows only some of these computations. Here the small integer parts are evaluated with ONNX's reference
implementation and put back as constants, until nothing more becomes known.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from triton_router.analysis.onnx_checks import inferred_shapes
from triton_router.analysis.onnx_graph import OWN_DOMAINS, static_shape

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from onnx import ModelProto

_MAX_ELEMENTS = 1024
_MAX_ROUNDS = 12
_FOLDABLE = frozenset(
    {
        "Abs",
        "Add",
        "And",
        "Cast",
        "Ceil",
        "Concat",
        "ConstantOfShape",
        "Div",
        "Equal",
        "Expand",
        "Floor",
        "Gather",
        "Greater",
        "GreaterOrEqual",
        "Identity",
        "Less",
        "LessOrEqual",
        "Max",
        "Min",
        "Mod",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "Range",
        "ReduceMax",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "Reshape",
        "Shape",
        "Size",
        "Slice",
        "Split",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Transpose",
        "Unsqueeze",
        "Where",
    }
)
"""What exporters use to compute shapes. Nothing here is costly on small inputs."""

_Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]
_Values = dict[str, _Array]


def folded_shapes(path: Path, model: ModelProto) -> ModelProto:
    """Return the model with every shape that can be known; ``model`` itself gets the folded constants.

    Args:
        path: Where it is from, for errors.
        model: A skeleton whose inputs all have sizes. Node for node the result is the same list.

    Raises:
        ModelFileError: The shapes contradict each other.
    """
    shaped = inferred_shapes(path, model)
    for _ in range(_MAX_ROUNDS):
        if not _fold(model, _shapes(shaped)):
            break
        shaped = inferred_shapes(path, model)
    return shaped


def _shapes(shaped: ModelProto) -> dict[str, tuple[int, ...]]:
    graph = shaped.graph
    found = {value.name: static_shape(value.type) for value in (*graph.input, *graph.value_info, *graph.output)}
    known = {name: shape for name, shape in found.items() if shape is not None}
    return known | {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}


def _fold(model: ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Turn nodes with known small results into constants; return how many."""
    opset = max((entry.version for entry in model.opset_import if entry.domain in OWN_DOMAINS), default=1)
    values: _Values = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if math.prod(tensor.dims) <= _MAX_ELEMENTS and tensor.data_type != TensorProto.STRING
    }
    count = 0
    for node in model.graph.node:
        if node.op_type == "Constant" and len(node.attribute) == 1 and node.attribute[0].HasField("t"):
            tensor = node.attribute[0].t
            if math.prod(tensor.dims) <= _MAX_ELEMENTS and tensor.data_type != TensorProto.STRING:
                values[node.output[0]] = numpy_helper.to_array(tensor)
            continue
        result = _evaluate(node, values, shapes, opset)
        if result is not None:
            values[node.output[0]] = result
            _become_constant(node, result)
            count += 1
    return count


def _evaluate(node: NodeProto, values: _Values, shapes: Mapping[str, tuple[int, ...]], opset: int) -> _Array | None:
    if node.domain not in OWN_DOMAINS or node.op_type not in _FOLDABLE or len(node.output) != 1:
        return None
    feeds = _feeds(node, values, shapes)
    if feeds is None:
        return None
    try:
        with np.errstate(all="ignore"):
            (result,) = ReferenceEvaluator(node, opsets={"": opset}).run(None, feeds)
    except (ArithmeticError, AttributeError, LookupError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return None  # what the reference cannot evaluate stays unknown, and is reported as uncounted
    array = np.asarray(result)
    return array if array.size <= _MAX_ELEMENTS and array.dtype.kind in "biuf" else None


def _feeds(node: NodeProto, values: _Values, shapes: Mapping[str, tuple[int, ...]]) -> _Values | None:
    """Return the values of a node's inputs; ``None`` if one is unknown or the result might be large."""
    if node.op_type in {"Shape", "Size"}:
        shape = shapes.get(node.input[0])
        if shape is None:
            return None
        # Only the shape matters: a view of one zero has it without its memory.
        return {node.input[0]: np.broadcast_to(np.zeros(1, np.bool_), shape)}
    if not all(name in values for name in node.input if name):
        return None
    size = shapes.get(node.output[0])
    bounded = size is not None and math.prod(size) <= _MAX_ELEMENTS
    if not bounded and node.op_type not in {"Slice", "Reshape"}:  # these two give no more than they take
        return None
    return {name: values[name] for name in node.input if name}


def _become_constant(node: NodeProto, value: _Array) -> None:
    node.op_type = "Constant"
    del node.input[:]
    del node.attribute[:]
    node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(value)))
