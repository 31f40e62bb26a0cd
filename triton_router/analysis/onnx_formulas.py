"""Operations of one ONNX node from the shapes around it; a multiply-add is two.

Each formula returns ``None`` when a shape that it needs is unknown. Notation: ``out`` and ``in`` are element
counts, ``k`` the summed dimension.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx import NodeProto

Shape = tuple[int, ...] | None
Formula = Callable[["NodeShapes"], "int | None"]


class NodeShapes:
    """A node together with the shapes of everything that is visible where it stands."""

    def __init__(self, node: NodeProto, shapes: Mapping[str, Shape]) -> None:
        self._node = node
        self._shapes = shapes

    def input(self, index: int) -> Shape:
        """Return an input's shape; ``None`` if it is unknown or absent."""
        names = self._node.input
        return self._shapes.get(names[index]) if index < len(names) and names[index] else None

    def output(self) -> Shape:
        """Return the first output's shape."""
        return self._shapes.get(self._node.output[0]) if self._node.output else None

    def integer(self, name: str, default: int) -> int:
        """Return an integer attribute."""
        return next((attribute.i for attribute in self._node.attribute if attribute.name == name), default)

    def integers(self, name: str) -> list[int]:
        """Return a list attribute, empty if it is absent."""
        return next((list(attribute.ints) for attribute in self._node.attribute if attribute.name == name), [])

    def text(self, name: str) -> str:
        """Return a text attribute, empty if it is absent."""
        found = (attribute.s for attribute in self._node.attribute if attribute.name == name)
        return next(found, b"").decode(errors="replace")

    def scan_length(self) -> int | None:
        """Return how often a ``Scan`` runs its body: the length of its first scanned input."""
        scanned = self.integer("num_scan_inputs", 0)
        shape = self.input(len(self._node.input) - scanned) if scanned else None
        axes = self.integers("scan_input_axes")
        axis = axes[0] if axes else 0
        return shape[axis] if shape and -len(shape) <= axis < len(shape) else None


def _convolution(data: int, weight: int) -> Formula:
    """2 * out * (input channels of a group) * kernel; the weight is (out channels, in channels / group, ...)."""

    def formula(node: NodeShapes) -> int | None:
        w, out = node.input(weight), node.output()
        if w is None or out is None or len(w) < 3 or node.input(data) is None:
            return None
        return 2 * math.prod(out) * math.prod(w[1:])

    return formula


def _transposed_convolution(node: NodeShapes) -> int | None:
    """2 * in * (output channels of a group) * kernel; the weight is (in channels, out channels / group, ...)."""
    x, w = node.input(0), node.input(1)
    return None if x is None or w is None or len(w) < 3 else 2 * math.prod(x) * math.prod(w[1:])


def _matrix_product(left: int, right: int) -> Formula:
    """2 * out * k, with numpy's broadcasting and vectors, and the transpositions of Gemm and FusedMatMul."""

    def formula(node: NodeShapes) -> int | None:
        a, b = node.input(left), node.input(right)
        if not a or not b:
            return None
        flip_a, flip_b = node.integer("transA", 0), node.integer("transB", 0)
        if node.integer("transBatchA", 0) or node.integer("transBatchB", 0):
            return None
        a = (1, *a) if len(a) == 1 else a
        b = (*b, 1) if len(b) == 1 else b
        rows, summed = (a[-1], a[-2]) if flip_a else (a[-2], a[-1])
        inner, columns = (b[-1], b[-2]) if flip_b else (b[-2], b[-1])
        try:
            batch = np.broadcast_shapes(a[:-2], b[:-2])
        except ValueError:
            return None
        return 2 * math.prod(batch) * rows * summed * columns if inner == summed else None

    return formula


def _packed_matrix_product(node: NodeShapes) -> int | None:
    """MatMulNBits: 2 * rows * K * N; its weight is packed, K and N are attributes."""
    a, k, n = node.input(0), node.integer("K", 0), node.integer("N", 0)
    return 2 * math.prod(a[:-1]) * k * n if a and a[-1] == k else None


def _recurrent(node: NodeShapes) -> int | None:
    """2 * steps * batch * (elements of W + elements of R): each weight is used once per step and sample."""
    x, w, r = node.input(0), node.input(1), node.input(2)
    if x is None or w is None or r is None or len(x) != 3:
        return None
    return 2 * x[0] * x[1] * (math.prod(w) + math.prod(r))


def _einsum(node: NodeShapes) -> int | None:
    """Two operands with a summed letter: 2 * product of all letters' sizes. Nothing summed: elementwise, 0."""
    left, arrow, result = node.text("equation").replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) == 1:
        return 0
    if len(terms) > 2 or "." in left or not arrow:
        return None
    sizes: dict[str, int] = {}
    for index, term in enumerate(terms):
        shape = node.input(index)
        if shape is None or len(shape) != len(term):
            return None
        sizes.update(zip(term, shape, strict=True))
    return 2 * math.prod(sizes.values()) if set(sizes) - set(result) else 0


def _attention(node: NodeShapes) -> int | None:
    """ONNX Attention: 2 * batch * heads * queries * keys * (query head size + value head size)."""
    q, k, v = node.input(0), node.input(1), node.input(2)
    if q is None or k is None or v is None or node.input(4) is not None:  # with a past, keys are more than k
        return None
    if len(q) == len(k) == len(v) == 4:
        return 2 * q[0] * q[1] * q[2] * k[2] * (q[3] + v[3])
    heads, key_heads = node.integer("q_num_heads", 0), node.integer("kv_num_heads", 0)
    if not (len(q) == len(k) == len(v) == 3 and heads and key_heads):
        return None
    return 2 * q[0] * q[1] * k[1] * (q[2] + heads * v[2] // key_heads)


def _microsoft_attention(data: int, weight: int) -> Formula:
    """Projection 2 * B * S * elements of W, then 2 * B * S * S * (query width + value width)."""

    def formula(node: NodeShapes) -> int | None:
        x, w = node.input(data), node.input(weight)
        if x is None or w is None or len(x) != 3 or len(w) != 2:
            return None
        widths = node.integers("qkv_hidden_sizes") or [w[1] // 3] * 3
        return 2 * x[0] * x[1] * (math.prod(w) + x[1] * (widths[0] + widths[-1]))

    return formula


def _multi_head_attention(node: NodeShapes) -> int | None:
    """2 * B * queries * keys * (query width + value width), for separate inputs of rank 3."""
    q, k, v = node.input(0), node.input(1), node.input(2)
    if q is None or k is None or v is None or not len(q) == len(k) == len(v) == 3:
        return None
    return 2 * q[0] * q[1] * k[1] * (q[2] + v[2])


_MS = "com.microsoft::"

FORMULAS: dict[str, Formula] = {
    "Conv": _convolution(0, 1),
    "ConvInteger": _convolution(0, 1),
    "QLinearConv": _convolution(0, 3),
    _MS + "QLinearConv": _convolution(0, 3),
    _MS + "FusedConv": _convolution(0, 1),
    "ConvTranspose": _transposed_convolution,
    "Gemm": _matrix_product(0, 1),
    "MatMul": _matrix_product(0, 1),
    "MatMulInteger": _matrix_product(0, 1),
    "QLinearMatMul": _matrix_product(0, 3),
    _MS + "QGemm": _matrix_product(0, 3),
    _MS + "FusedGemm": _matrix_product(0, 1),
    _MS + "FusedMatMul": _matrix_product(0, 1),
    _MS + "DynamicQuantizeMatMul": _matrix_product(0, 1),
    _MS + "MatMulIntegerToFloat": _matrix_product(0, 1),
    _MS + "MatMulNBits": _packed_matrix_product,
    "RNN": _recurrent,
    "GRU": _recurrent,
    "LSTM": _recurrent,
    _MS + "DynamicQuantizeLSTM": _recurrent,
    "Einsum": _einsum,
    "Attention": _attention,
    _MS + "Attention": _microsoft_attention(0, 1),
    _MS + "QAttention": _microsoft_attention(0, 1),
    _MS + "MultiHeadAttention": _multi_head_attention,
}
"""Operators that multiply and add. What is not here counts as zero."""
