"""Floating point operations of an ONNX model for one sample.

What is counted: operators that multiply and add (convolutions, matrix products, recurrent cells, attention,
einsum), a multiply-add as two. Biases, activations, normalisations and every other elementwise operator count
as zero, as in ``torch.utils.flop_counter``, so that the same network counts the same from either source. A
quantised form counts what its parent counts: integer operations stand for the floating point ones they replace.

Sizes: the batch dimension is 1; other dynamic dimensions are what the caller gives, else
`DEFAULT_DIMENSION`. An ``If`` counts its dearer branch, a ``Scan`` its body times its length. A ``Loop``
repeats as often as its data says: its cost is unknown, counted as zero and named in `FlopCount.uncounted`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from onnx import ModelProto, inliner

from triton_router.analysis.onnx_folding import folded_shapes
from triton_router.analysis.onnx_formulas import FORMULAS, NodeShapes, Shape
from triton_router.analysis.onnx_graph import operator_name, skeleton, static_shape, subgraphs
from triton_router.analysis.onnx_standins import put_standins

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from onnx import GraphProto, NodeProto

DEFAULT_DIMENSION = 128
"""Size that a dynamic dimension other than the batch is taken to have: a sentence, a second of frames."""

_MAX_NAMED = 20


@dataclass(frozen=True, slots=True)
class FlopCount:
    """What was counted.

    Attributes:
        total: Floating point operations for one sample.
        by_operator: Its parts.
        uncounted: Operators that multiply and add whose shapes or repetitions are unknown.
        assumed: Sizes that were given to dynamic dimensions other than the batch, by symbol.
        output_shapes: Shape of every output at these sizes, where it is known.
    """

    total: int
    by_operator: dict[str, int] = field(default_factory=dict[str, int])
    uncounted: tuple[str, ...] = ()
    assumed: dict[str, int] = field(default_factory=dict[str, int])
    output_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])


def count_flops(
    path: Path,
    model: ModelProto,
    *,
    batch_symbols: frozenset[str],
    batch: int = 1,
    sizes: Mapping[str, int] | None = None,
) -> FlopCount:
    """Count the floating point operations of a checked model.

    Args:
        path: Where it is from, for errors.
        model: As `load_checked` returned it; not changed.
        batch_symbols: Symbols that are the batch dimension.
        batch: Size of the batch dimension.
        sizes: Sizes of other symbols.

    Raises:
        ModelFileError: The shapes contradict each other at these sizes.
    """
    bones = skeleton(model)
    assumed = _fix_inputs(bones.graph, batch_symbols, batch, sizes or {})
    if bones.functions:
        bones = inliner.inline_local_functions(bones)
    standins = ModelProto()
    standins.CopyFrom(bones)
    put_standins(standins)
    shaped = folded_shapes(path, standins)
    counter = _Counter()
    by_operator = counter.graph(bones.graph, shaped.graph, {})
    outputs = {value.name: static_shape(value.type) for value in shaped.graph.output}
    return FlopCount(
        total=sum(by_operator.values()),
        by_operator=dict(sorted(by_operator.items())),
        uncounted=tuple(sorted(counter.uncounted)[:_MAX_NAMED]),
        assumed=assumed,
        output_shapes={name: shape for name, shape in outputs.items() if shape is not None},
    )


def _fix_inputs(
    graph: GraphProto, batch_symbols: frozenset[str], batch: int, sizes: Mapping[str, int]
) -> dict[str, int]:
    """Give every dynamic input dimension a size; forget declared shapes that could contradict it."""
    assumed: dict[str, int] = {}
    for value in graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.HasField("dim_value"):
                continue
            symbol = dim.dim_param
            if symbol in batch_symbols or (not symbol and axis == 0):
                dim.dim_value = batch
                continue
            name = symbol or f"{value.name}[{axis}]"
            dim.dim_value = assumed[name] = sizes.get(name, DEFAULT_DIMENSION)
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    return assumed


class _Counter:
    """Walks graphs with their shapes; remembers what could not be counted."""

    def __init__(self) -> None:
        self.uncounted: set[str] = set()

    def graph(self, graph: GraphProto, shaped: GraphProto, outer: Mapping[str, Shape]) -> Counter[str]:
        """Count one graph; ``shaped`` is the same one, node by node, with stand-ins and shapes."""
        shapes = dict(outer)
        for value in (*shaped.input, *shaped.value_info, *shaped.output):
            shapes[value.name] = static_shape(value.type)
        for tensor in graph.initializer:
            shapes[tensor.name] = tuple(tensor.dims)
        total: Counter[str] = Counter()
        for node, shaped_node in zip(graph.node, shaped.node, strict=True):
            if node.op_type == "Constant":
                shapes.update(_constant_shape(node))
            total.update(self._node(node, shaped_node, shapes))
        return total

    def _node(self, node: NodeProto, shaped: NodeProto, shapes: Mapping[str, Shape]) -> Counter[str]:
        before = set(self.uncounted)
        pairs = zip(subgraphs(node), subgraphs(shaped), strict=True)
        bodies = [self.graph(graph, shaped_graph, shapes) for graph, shaped_graph in pairs]
        if bodies:
            return self._control_flow(node, bodies, shapes, before)
        name = operator_name(node)
        formula = FORMULAS.get(name)
        if formula is None:
            return Counter()
        flops = formula(NodeShapes(node, shapes))
        if flops is None:
            self.uncounted.add(name)
            return Counter()
        return Counter({name: flops}) if flops else Counter()

    def _control_flow(
        self, node: NodeProto, bodies: list[Counter[str]], shapes: Mapping[str, Shape], before: set[str]
    ) -> Counter[str]:
        if node.op_type == "If":
            return max(bodies, key=lambda body: body.total())
        if node.op_type == "Scan":
            length = NodeShapes(node, shapes).scan_length()
            if length is not None:
                return Counter({name: flops * length for name, flops in bodies[0].items()})
        # Even a body without counted operators costs time: nothing of a Loop is known before it runs.
        self.uncounted = before | {operator_name(node)}
        return Counter()


def _constant_shape(node: NodeProto) -> dict[str, Shape]:
    for attribute in node.attribute:
        if attribute.name == "value" and attribute.HasField("t"):
            return {node.output[0]: tuple(attribute.t.dims)}
    return {}
