"""The characteristics of an ONNX model, read from its file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnx import TensorProto

from triton_router.analysis.onnx_flops import FlopCount, count_flops
from triton_router.analysis.onnx_formulas import FORMULAS
from triton_router.analysis.onnx_graph import (
    KSERVE_TYPES,
    OWN_DOMAINS,
    element_bits,
    operator_name,
    real_inputs,
    tensor_bytes,
    tensors,
    walk,
)
from triton_router.analysis.onnx_model import OnnxLimits, content_hash, external_files, load_checked
from triton_router.analysis.report import AnalysisReport
from triton_router.routing.characteristics import ModelCharacteristics

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from onnx import ModelProto, NodeProto, ValueInfoProto

_BROUGHT_DOMAINS = OWN_DOMAINS | {"ai.onnx.ml", "com.microsoft"}
_CONVOLUTIONS = frozenset({"Conv", "ConvInteger", "QLinearConv", "ConvTranspose", "FusedConv", "NhwcConv"})
_CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})
_WEIGHT_INPUT = {
    "DequantizeLinear": 0,
    "ConvInteger": 1,
    "MatMulInteger": 1,
    "QLinearConv": 3,
    "QLinearMatMul": 3,
    "com.microsoft::QGemm": 3,
    "com.microsoft::DynamicQuantizeMatMul": 1,
    "com.microsoft::MatMulIntegerToFloat": 1,
    "com.microsoft::DynamicQuantizeLSTM": 1,
    "com.microsoft::QAttention": 1,
}
"""Quantised operators and which input is the weight."""

_ENGINE_TYPES = frozenset({"FP16", "FP32", "INT32", "INT64", "BOOL"})
_BATCH_NAMES = frozenset({"n", "b", "bs"})


@dataclass(frozen=True, slots=True)
class _Interface:
    """Shapes with -1, datatypes and symbols of the inputs or of the outputs, in the model's order."""

    shapes: dict[str, tuple[int, ...]]
    types: dict[str, str]
    symbols: dict[str, dict[int, str]]


def analyse_onnx(
    path: Path,
    *,
    name: str,
    limits: OnnxLimits | None = None,
    sha256: str | None = None,
    sizes: Mapping[str, int] | None = None,
) -> AnalysisReport:
    """Read what an ONNX model is, without running it.

    Args:
        path: The ``.onnx`` file.
        name: The model's name in the report.
        limits: What it may declare.
        sha256: If given, what the file's hash has to be.
        sizes: Sizes of dynamic dimensions, by symbol, for the FLOP count.

    Raises:
        ModelFileError: The file is refused; see `load_checked`.
    """
    model = load_checked(path, limits, sha256=sha256, load_external=False)
    inputs = _interface(real_inputs(model.graph))
    outputs = _interface(list(model.graph.output))
    batch_symbols = _batch_symbols(inputs)
    flops = count_flops(path, model, batch_symbols=batch_symbols, sizes=sizes)
    outputs = _complete_outputs(path, model, outputs, batch_symbols, flops)
    return _report(path, name, model, inputs, outputs, flops)


def _report(
    path: Path, name: str, model: ModelProto, inputs: _Interface, outputs: _Interface, flops: FlopCount
) -> AnalysisReport:
    operators = Counter(operator_name(node) for step in walk(model) for node in step.nodes)
    files = external_files(path, model)
    digest, size = content_hash(path, files)
    batch = _shared_batch(inputs, outputs)
    domains = sorted({node.domain for step in walk(model) for node in step.nodes} - _BROUGHT_DOMAINS - _local(model))
    return AnalysisReport(
        characteristics=_characteristics(name, model, inputs, outputs, flops),
        content_sha256=digest,
        content_bytes=size,
        operators=dict(sorted(operators.items())),
        dynamic_dims={key: axes for key, axes in {**inputs.symbols, **outputs.symbols}.items() if axes},
        batch_symbol=batch,
        batchable_by_shape=bool(batch),
        has_convolutions=any(operator.rpartition("::")[2] in _CONVOLUTIONS for operator in operators),
        parameter_types=_parameter_types(model),
        flops_by_operator=flops.by_operator,
        uncounted_operators=flops.uncounted,
        assumed_dims=flops.assumed,
        custom_domains=tuple(domains),
        external_files={location: file.stat().st_size for location, file in files.items()},
        opset=max((entry.version for entry in model.opset_import if entry.domain in OWN_DOMAINS), default=0),
        ir_version=model.ir_version,
        producer=f"{model.producer_name} {model.producer_version}".strip()[:200],
        notes=tuple(_notes(inputs, batch, flops)),
    )


def _characteristics(
    name: str, model: ModelProto, inputs: _Interface, outputs: _Interface, flops: FlopCount
) -> ModelCharacteristics:
    nodes = [node for step in walk(model) for node in step.nodes]
    local = _local(model)
    has_control_flow = any(node.op_type in _CONTROL_FLOW and node.domain in OWN_DOMAINS for node in nodes)
    has_custom_ops = any(node.domain not in _BROUGHT_DOMAINS | local for node in nodes)
    bits = _quantization_bits(model, nodes)
    types = {*inputs.types.values(), *outputs.types.values()}
    return ModelCharacteristics(
        model_name=name,
        framework="onnx",
        parameter_count=sum(_elements(tensor) for tensor in tensors(model)),
        flop_count=flops.total,
        memory_footprint_bytes=sum(_stored_bytes(tensor) for tensor in tensors(model)),
        has_dynamic_shapes=any(-1 in shape for shape in inputs.shapes.values()),
        has_control_flow=has_control_flow,
        has_custom_ops=has_custom_ops,
        is_quantized=bits > 0,
        quantization_bits=bits,
        input_shapes=inputs.shapes,
        output_shapes=outputs.shapes,
        input_types=inputs.types,
        output_types=outputs.types,
        supports_batching=bool(_shared_batch(inputs, outputs)),
        supports_neural_engine=not has_control_flow and not has_custom_ops and types <= _ENGINE_TYPES,
        supports_int8_acceleration=any(operator_name(node) in FORMULAS for node in nodes),
    )


def _interface(values: list[ValueInfoProto]) -> _Interface:
    shapes: dict[str, tuple[int, ...]] = {}
    symbols: dict[str, dict[int, str]] = {}
    types: dict[str, str] = {}
    for value in values:
        tensor = value.type.tensor_type
        dims = tensor.shape.dim
        shapes[value.name] = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in dims)
        symbols[value.name] = {axis: dim.dim_param for axis, dim in enumerate(dims) if not dim.HasField("dim_value")}
        types[value.name] = KSERVE_TYPES[tensor.elem_type]
    return _Interface(shapes, types, symbols)


def _batch_symbols(inputs: _Interface) -> frozenset[str]:
    """Return the symbol that every input has as dimension 0; else those at dimension 0 named like a batch."""
    first = {axes.get(0, "") for axes in inputs.symbols.values()}
    if len(first) == 1:
        return frozenset(first - {""})
    return frozenset(symbol for symbol in first if "batch" in symbol.lower() or symbol.lower() in _BATCH_NAMES)


def _complete_outputs(
    path: Path, model: ModelProto, outputs: _Interface, batch_symbols: frozenset[str], once: FlopCount
) -> _Interface:
    """Find out which outputs follow the batch although their declared dimension 0 does not say so.

    Exporters often give it a name of its own. Inferred shapes at two batch sizes show whether it is the batch.
    """
    doubtful = {
        name
        for name, shape in outputs.shapes.items()
        if shape and shape[0] == -1 and outputs.symbols[name].get(0, "") not in batch_symbols
    }
    if not doubtful or len(batch_symbols) != 1:
        return outputs
    thrice = count_flops(path, model, batch_symbols=batch_symbols, batch=3)
    symbols = dict(outputs.symbols)
    for name in doubtful:
        one, three = once.output_shapes.get(name), thrice.output_shapes.get(name)
        if one and three and (one[0], three[0]) == (1, 3):
            symbols[name] = {**symbols[name], 0: next(iter(batch_symbols))}
    return _Interface(outputs.shapes, outputs.types, symbols)


def _shared_batch(inputs: _Interface, outputs: _Interface) -> str:
    first = {axes.get(0, "") for axes in (*inputs.symbols.values(), *outputs.symbols.values())}
    return first.pop() if len(first) == 1 else ""


def _local(model: ModelProto) -> set[str]:
    return {function.domain for function in model.functions}


def _elements(tensor: TensorProto) -> int:
    count = 1
    for dim in tensor.dims:
        count *= dim
    return count


def _stored_bytes(tensor: TensorProto) -> int:
    if tensor.data_type == TensorProto.STRING:
        return sum(len(text) for text in tensor.string_data)
    return tensor_bytes(tensor.data_type, tensor.dims)


def _parameter_types(model: ModelProto) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for tensor in tensors(model):
        shown = KSERVE_TYPES.get(tensor.data_type) or TensorProto.DataType.Name(tensor.data_type)
        counts[shown] += _elements(tensor)
    return dict(sorted(counts.items()))


def _quantization_bits(model: ModelProto, nodes: list[NodeProto]) -> int:
    """Return the bits of the narrowest quantised weight, 0 if no operator is quantised."""
    stored = {
        tensor.name: element_bits(tensor.data_type)
        for step in walk(model)
        if step.graph is not None
        for tensor in step.graph.initializer
    }
    found: set[int] = set()
    for node in nodes:
        operator = operator_name(node)
        if operator == "com.microsoft::MatMulNBits":
            found.add(next((attribute.i for attribute in node.attribute if attribute.name == "bits"), 4))
        elif operator in _WEIGHT_INPUT:
            index = _WEIGHT_INPUT[operator]
            bits = stored.get(node.input[index], 8) if index < len(node.input) else 8
            # A bias is stored in 32 bits beside the weights, an activation in the 8 assumed here.
            found.update({bits} if 0 < bits <= 16 else set())
    return min(found, default=0)


def _notes(inputs: _Interface, batch: str, flops: FlopCount) -> list[str]:
    notes = [f"dynamic dimension {name} was taken as {size} for the FLOP count" for name, size in flops.assumed.items()]
    if flops.uncounted:
        notes.append("not in the FLOP count: " + ", ".join(flops.uncounted))
    if not batch:
        notes.append("not batchable: its inputs and outputs do not share one dynamic first dimension")
    if any(shape and shape[0] > 1 for shape in inputs.shapes.values()):
        notes.append("an input has a fixed first dimension: the FLOP count is for one request, not for one sample")
    return notes
