"""What an exported program says of itself: names, shapes with symbols, and bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
import torch.utils._pytree as pytree
from torch.export.graph_signature import InputKind, OutputKind, TensorArgument

from triton_router.torch_call import result_keys

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor
    from torch.export import ExportedProgram

BATCH = "batch"
"""Name of the batch dimension where the model gives none."""

_UNBOUNDED = 1 << 20
"""A stated largest size beyond this means that there is none."""


def inputs_of(program: ExportedProgram) -> dict[str, Tensor]:
    """Return the fake tensors (shape with symbols, dtype) of the caller's inputs, by name."""
    return _values(program, _names(program, inputs=True))


def outputs_of(program: ExportedProgram) -> list[Tensor]:
    """Return the fake tensors of the outputs, in order."""
    return list(_values(program, _names(program, inputs=False), unique=False).values())


def symbol_names(inputs: Sequence[Tensor]) -> dict[str, str]:
    """Return a readable name for every symbol: ``batch`` for the shared dimension 0, else its own."""
    first = {str(value.shape[0]) if value.dim() else "" for value in inputs}
    shared = first.pop() if len(first) == 1 else ""
    found = {str(value.shape[axis]): str(value.shape[axis]) for value in inputs for axis in dynamic_positions(value)}
    return {symbol: BATCH if symbol == shared else name for symbol, name in found.items()}


def dynamic_axes(value: Tensor, symbols: Mapping[str, str]) -> dict[int, str]:
    """Return axis to symbol name for the dynamic dimensions of one tensor; a computed size has no name."""
    return {axis: symbols.get(str(value.shape[axis]), "") for axis in dynamic_positions(value)}


def dynamic_positions(value: Tensor) -> list[int]:
    """Return the axes of a fake tensor whose size is a symbol."""
    sizes = cast("Sequence[object]", value.shape)
    return [axis for axis, size in enumerate(sizes) if not isinstance(size, int)]


def static_sizes(value: Tensor) -> tuple[int, ...]:
    """Return the shape of a fake tensor with -1 for symbols."""
    dynamic = dynamic_positions(value)
    return tuple(-1 if axis in dynamic else int(size) for axis, size in enumerate(value.shape))


def symbol_bounds(program: ExportedProgram, symbols: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """Return the smallest and largest size of every named symbol."""
    found: dict[str, tuple[int, int]] = {}
    for symbol, bounds in program.range_constraints.items():
        if str(symbol) in symbols:
            largest = _UNBOUNDED if not bounds.upper.is_finite else min(int(bounds.upper), _UNBOUNDED)
            found[symbols[str(symbol)]] = (max(1, int(bounds.lower)), largest)
    return found


def _names(program: ExportedProgram, *, inputs: bool) -> list[str]:
    signature = program.graph_signature
    if inputs:
        specs = [spec.arg for spec in signature.input_specs if spec.kind == InputKind.USER_INPUT]
    else:
        specs = [spec.arg for spec in signature.output_specs if spec.kind == OutputKind.USER_OUTPUT]
    return [spec.name for spec in specs if isinstance(spec, TensorArgument)]


def only_tensors(program: ExportedProgram) -> bool:
    """Tell whether every input and output is a tensor, and there is at least one of each."""
    signature = program.graph_signature
    inputs = sum(spec.kind == InputKind.USER_INPUT for spec in signature.input_specs)
    outputs = sum(spec.kind == OutputKind.USER_OUTPUT for spec in signature.output_specs)
    tensors = (len(_names(program, inputs=True)), len(_names(program, inputs=False)))
    return (inputs, outputs) == tensors and all(tensors)


def _values(program: ExportedProgram, names: Sequence[str], *, unique: bool = True) -> dict[str, Tensor]:
    nodes = {node.name: node.meta.get("val") for node in program.graph.nodes}
    keys = names if unique else [f"{index}:{name}" for index, name in enumerate(names)]
    return {key: cast("Tensor", nodes[name]) for key, name in zip(keys, names, strict=True)}


def output_names_of(program: ExportedProgram) -> tuple[str, ...]:
    """Return the keys of a returned dict, else ``output`` or ``output_0``, ``output_1``..."""
    count = len(outputs_of(program))
    keys = result_keys(program)
    if keys:
        return keys
    return ("output",) if count == 1 else tuple(f"output_{index}" for index in range(count))


def example_inputs_of(
    program: ExportedProgram,
    bounds: Mapping[str, tuple[int, int]],
    axes: Mapping[str, Mapping[int, str]],
) -> dict[str, Tensor]:
    """Return the example inputs saved with the program; without any, zeros of a small allowed shape."""
    inputs = inputs_of(program)
    if program.example_inputs is not None:
        flat = pytree.tree_leaves(program.example_inputs)
        tensors = [leaf for leaf in flat if isinstance(leaf, torch.Tensor)]
        if len(tensors) == len(inputs):
            return dict(zip(inputs, tensors, strict=True))
    return {
        name: torch.zeros(
            [
                max(2, bounds.get(axes[name][axis], (2, 2))[0]) if axis in axes[name] else size
                for axis, size in enumerate(static_sizes(value))
            ],
            dtype=value.dtype,
        )
        for name, value in inputs.items()
    }
