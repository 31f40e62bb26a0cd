"""The characteristics of a PyTorch model, read from its exported graph."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch.export.graph_signature import InputKind, TensorArgument
from torch.utils.flop_counter import FlopCounterMode

from triton_router.analysis.report import AnalysisReport
from triton_router.analysis.torch_program import (
    BATCH,
    dynamic_axes,
    inputs_of,
    outputs_of,
    static_sizes,
    symbol_bounds,
    symbol_names,
)
from triton_router.analysis.torch_source import ExportedSource, TorchSource, export_source
from triton_router.errors import ModelFileError
from triton_router.routing.characteristics import ModelCharacteristics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor
    from torch.export import ExportedProgram

DEFAULT_DIMENSION = 128
"""Size of a dynamic dimension other than the batch, as for ONNX models."""

KSERVE_TYPES: dict[torch.dtype, str] = {
    torch.bool: "BOOL",
    torch.uint8: "UINT8",
    torch.uint16: "UINT16",
    torch.uint32: "UINT32",
    torch.uint64: "UINT64",
    torch.int8: "INT8",
    torch.int16: "INT16",
    torch.int32: "INT32",
    torch.int64: "INT64",
    torch.float16: "FP16",
    torch.bfloat16: "BF16",
    torch.float32: "FP32",
    torch.float64: "FP64",
}
"""torch dtype to KServe v2 datatype; the others cannot be sent to Triton."""

_OWN_NAMESPACES = frozenset({"aten", "prim", "prims", "higher_order", "quantized_decomposed", "profiler"})
_CONTROL_FLOW = frozenset({"cond", "while_loop", "map_impl", "map", "scan", "associative_scan"})
_UNKNOWN_COST = frozenset({"while_loop"})
_CONVOLUTIONS = ("conv", "convolution")
_ENGINE_TYPES = frozenset({"FP16", "FP32", "INT32", "INT64", "BOOL"})


@dataclass(frozen=True, slots=True)
class _Flops:
    total: int = 0
    by_operator: dict[str, int] = field(default_factory=dict[str, int])
    uncounted: tuple[str, ...] = ()
    assumed: dict[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True)
class _Interface:
    shapes: dict[str, tuple[int, ...]]
    types: dict[str, str]
    symbols: dict[str, dict[int, str]]


def analyse_torch(
    model: TorchSource | ExportedSource,
    *,
    name: str,
    content: tuple[str, int] = ("", 0),
    sizes: Mapping[str, int] | None = None,
) -> AnalysisReport:
    """Read what a PyTorch model is. A module is exported for that; it and a given program stay as they are.

    Args:
        model: What `load_factory` or `load_exported` returned.
        name: The model's name in the report.
        content: SHA-256 and size of what it was loaded from.
        sizes: Sizes of dynamic dimensions, by symbol, for the FLOP count.

    Raises:
        UnsupportedError: ``torch.export`` cannot trace the module.
        ModelFileError: An input or output has a type that Triton cannot carry.
    """
    if isinstance(model, ExportedSource):
        source, program = model.source, model.program
    else:
        source, program = model, export_source(model)
    names = _symbols(program, source)
    inputs = _interface(inputs_of(program), names)
    outputs = _interface(dict(zip(source.output_names, outputs_of(program), strict=True)), names)
    bounds = symbol_bounds(program, names)
    flops = _count(program, inputs, bounds, sizes or {})
    operators = _operators(program)
    batched = all(axes.get(0) == BATCH for axes in (*inputs.symbols.values(), *outputs.symbols.values()))
    return AnalysisReport(
        characteristics=_characteristics(name, program, inputs, outputs, flops, batched=batched),
        content_sha256=content[0],
        content_bytes=content[1],
        operators=dict(sorted(operators.items())),
        dynamic_dims={key: axes for key, axes in {**inputs.symbols, **outputs.symbols}.items() if axes},
        dim_bounds=bounds,
        batch_symbol=BATCH if batched else "",
        batchable_by_shape=batched,
        has_convolutions=any(any(word in operator for word in _CONVOLUTIONS) for operator in operators),
        parameter_types=_parameter_types(program),
        flops_by_operator=flops.by_operator,
        uncounted_operators=flops.uncounted,
        assumed_dims=flops.assumed,
        custom_domains=tuple(_custom_namespaces(operators)),
        producer=f"pytorch {torch.__version__}",
        notes=tuple(_notes(flops, batched=batched)),
    )


def _symbols(program: ExportedProgram, source: TorchSource) -> dict[str, str]:
    """Return the program's symbols under the names that the source gives them."""
    names = symbol_names(list(inputs_of(program).values()))
    for key, value in inputs_of(program).items():
        for axis, symbol in source.dynamic_axes.get(key, {}).items():
            names[str(value.shape[axis])] = symbol
    return names


def _interface(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> _Interface:
    for key, value in tensors.items():
        if value.dtype not in KSERVE_TYPES:
            raise ModelFileError(
                f"{key!r} has the type {value.dtype}, which Triton cannot carry",
                hint="convert it inside the module, for example complex numbers with torch.view_as_real",
            )
    return _Interface(
        shapes={key: static_sizes(value) for key, value in tensors.items()},
        types={key: KSERVE_TYPES[value.dtype] for key, value in tensors.items()},
        symbols={key: dynamic_axes(value, names) for key, value in tensors.items()},
    )


def _characteristics(
    name: str,
    program: ExportedProgram,
    inputs: _Interface,
    outputs: _Interface,
    flops: _Flops,
    *,
    batched: bool,
) -> ModelCharacteristics:
    operators = _operators(program)
    stored = _stored(program)
    has_control_flow = any(operator.rpartition("::")[2] in _CONTROL_FLOW for operator in operators)
    has_custom_ops = bool(_custom_namespaces(operators))
    quantized = any(operator.startswith("quantized_decomposed::") for operator in operators)
    types = {*inputs.types.values(), *outputs.types.values()}
    return ModelCharacteristics(
        model_name=name,
        framework="pytorch",
        parameter_count=sum(tensor.numel() for tensor in stored),
        flop_count=flops.total,
        memory_footprint_bytes=sum(tensor.numel() * tensor.element_size() for tensor in stored),
        has_dynamic_shapes=any(-1 in shape for shape in inputs.shapes.values()),
        has_control_flow=has_control_flow,
        has_custom_ops=has_custom_ops,
        is_quantized=quantized,
        quantization_bits=8 if quantized else 0,
        input_shapes=inputs.shapes,
        output_shapes=outputs.shapes,
        input_types=inputs.types,
        output_types=outputs.types,
        supports_batching=batched,
        supports_neural_engine=not has_control_flow and not has_custom_ops and types <= _ENGINE_TYPES,
        supports_int8_acceleration=bool(flops.by_operator),
    )


def _stored(program: ExportedProgram) -> list[Tensor]:
    """Return every stored tensor once; tied weights share one."""
    constants = [value for value in program.constants.values() if isinstance(value, torch.Tensor)]
    found = {id(tensor): tensor for tensor in (*program.state_dict.values(), *constants)}
    return list({tensor.data_ptr() or key: tensor for key, tensor in found.items()}.values())


def _parameter_types(program: ExportedProgram) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for tensor in _stored(program):
        counts[KSERVE_TYPES.get(tensor.dtype, str(tensor.dtype))] += tensor.numel()
    return dict(sorted(counts.items()))


def _operators(program: ExportedProgram) -> Counter[str]:
    """Count ``namespace::name`` of every call in the graph and its subgraphs."""
    found: Counter[str] = Counter()
    for module in program.graph_module.modules():
        if not isinstance(module, torch.fx.GraphModule):
            continue
        for node in module.graph.nodes:
            namespace = getattr(node.target, "namespace", None)
            if node.op == "call_function" and isinstance(namespace, str):
                name = node.target.name() if callable(getattr(node.target, "name", None)) else str(node.target)
                found[f"{namespace}::{name.rpartition('::')[2].partition('.')[0]}"] += 1
    return found


def _custom_namespaces(operators: Mapping[str, int]) -> list[str]:
    return sorted({operator.partition("::")[0] for operator in operators} - _OWN_NAMESPACES)


def _count(
    program: ExportedProgram, inputs: _Interface, bounds: Mapping[str, tuple[int, int]], sizes: Mapping[str, int]
) -> _Flops:
    """Count on the meta device, where nothing is computed and every matrix product is visible."""
    unknown = sorted(name for name in _operators(program) if name.rpartition("::")[2] in _UNKNOWN_COST)
    if unknown:
        return _Flops(uncounted=tuple(unknown))
    batch = max(1, bounds.get(BATCH, (1, 1))[0])
    assumed: dict[str, int] = {}
    arguments: dict[str, Tensor] = {}
    for key, value in inputs_of(program).items():
        shape: list[int] = []
        for axis, size in enumerate(inputs.shapes[key]):
            symbol = inputs.symbols[key].get(axis)
            if symbol is None:
                shape.append(size)
            elif symbol == BATCH:
                shape.append(batch)
            else:
                low, high = bounds.get(symbol, (1, DEFAULT_DIMENSION))
                assumed[symbol] = min(max(sizes.get(symbol, DEFAULT_DIMENSION), low), high)
                shape.append(assumed[symbol])
        arguments[key] = torch.empty(shape, dtype=value.dtype, device="meta")
    try:
        counts = _run_on_meta(program, arguments)
    except (RuntimeError, NotImplementedError, TypeError, AssertionError) as error:
        return _Flops(uncounted=(f"whole model ({type(error).__name__} on the meta device)",), assumed=assumed)
    by_operator = {name: flops // batch for name, flops in sorted(counts.items())}
    return _Flops(sum(by_operator.values()), by_operator, assumed=assumed)


def _run_on_meta(program: ExportedProgram, arguments: Mapping[str, Tensor]) -> dict[str, int]:
    # The copy shares nothing with the original and holds no data: its tensors are swapped while it is made.
    held = [*program.state_dict.values(), *program.constants.values()]
    swapped = {id(value): _meta(value) for value in held if isinstance(value, torch.Tensor)}
    graph = copy.deepcopy(program.graph_module, swapped)
    for module in graph.modules():
        if isinstance(module, torch.fx.GraphModule):
            _move_to_meta(module)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        graph(*_flat_arguments(program, arguments))
    total = counter.get_flop_counts().get("Global", {})
    return {str(operator): int(flops) for operator, flops in total.items() if flops}


def _move_to_meta(module: torch.fx.GraphModule) -> None:
    """Replace every device that tracing burnt into the graph."""
    meta = torch.device("meta")
    for node in module.graph.nodes:
        if "device" in node.kwargs:
            node.kwargs = {**node.kwargs, "device": meta}
        node.args = tuple(meta if isinstance(value, torch.device) else value for value in node.args)
    module.recompile()


def _flat_arguments(program: ExportedProgram, arguments: Mapping[str, Tensor]) -> list[object]:
    """Return what the graph takes: stored tensors, lifted to inputs by tracing, then the caller's."""
    flat: list[object] = []
    for spec in program.graph_signature.input_specs:
        if spec.kind == InputKind.USER_INPUT:
            flat.append(arguments[spec.arg.name] if isinstance(spec.arg, TensorArgument) else None)
            continue
        value = program.state_dict.get(str(spec.target), program.constants.get(str(spec.target)))
        flat.append(_meta(value) if isinstance(value, torch.Tensor) else value)
    return flat


def _meta(value: Tensor) -> Tensor:
    empty = value.detach().to("meta")
    return torch.nn.Parameter(empty, value.requires_grad) if isinstance(value, torch.nn.Parameter) else empty


def _notes(flops: _Flops, *, batched: bool) -> list[str]:
    notes = [f"dynamic dimension {name} was taken as {size} for the FLOP count" for name, size in flops.assumed.items()]
    if flops.uncounted:
        notes.append("not in the FLOP count: " + ", ".join(flops.uncounted))
    if not batched:
        notes.append("not batchable: its inputs and outputs do not share one dynamic first dimension")
    return notes
