"""What an ONNX model may declare, one check per idea. Every refusal is a `ModelFileError` with a hint."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import EncodeError, Message
from onnx import ModelProto, TensorProto, checker, shape_inference

from triton_router.analysis.onnx_graph import (
    KSERVE_TYPES,
    OWN_DOMAINS,
    element_bits,
    operator_name,
    real_inputs,
    skeleton,
    static_shape,
    tensor_bytes,
    tensors,
    walk,
    walk_function,
)
from triton_router.errors import ModelFileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from onnx import FunctionProto, NodeProto

    from triton_router.analysis.onnx_model import OnnxLimits

_EXPORT_AGAIN = "export the model again; this file is damaged or was made to look like a model"
_SHOWN_CHARS = 120


def shown(text: str) -> str:
    """Return a name from a model for an error message: quoted, without control characters, cut."""
    return repr(text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "...")


def check_model(path: Path, model: ModelProto, limits: OnnxLimits) -> None:
    """Run every check, the cheap ones that guard the others first.

    Raises:
        ModelFileError: The first thing that is wrong.
    """
    _check_texts(path, model)
    _check_versions(path, model, limits)
    _check_sizes(path, model, limits)
    _check_expansion(path, model, limits)
    _check_domains(path, model, limits)
    for tensor in tensors(model):
        _check_tensor(path, tensor, limits)
    _check_interface(path, model)
    _check_interface_sizes(path, model, limits)
    bones = skeleton(model)
    _check_structure(path, bones)
    _check_made_tensors(path, bones, limits)


def _check_texts(path: Path, model: ModelProto) -> None:
    """Read every text once: protobuf gives invalid UTF-8 as bytes, or fails when it is asked for it."""
    try:
        sound = _texts_are_sound(model)
    except UnicodeDecodeError:
        sound = False
    if not sound:
        raise ModelFileError(f"{path} has a name that is not valid UTF-8", hint=_EXPORT_AGAIN)


def _texts_are_sound(message: Message) -> bool:
    for field, value in message.ListFields():
        if field.type in {FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_STRING}:
            alone = isinstance(value, (Message, str, bytes))
            items = [value] if alone else list(cast("Iterable[object]", value))
            if not all(isinstance(item, str) or _is_sound_message(item) for item in items):
                return False
    return True


def _is_sound_message(item: object) -> bool:
    return isinstance(item, Message) and _texts_are_sound(item)


def _check_versions(path: Path, model: ModelProto, limits: OnnxLimits) -> None:
    if model.ir_version > limits.ir_version:
        raise ModelFileError(
            f"{path} has ONNX format version {model.ir_version}, newer than {limits.ir_version}",
            hint="export it for an older format, or set model.ir_version and check that it still loads",
        )
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    newest = max((opsets.get(domain, 0) for domain in OWN_DOMAINS), default=0)
    if newest > limits.opset:
        raise ModelFileError(
            f"{path} uses ONNX operator set {newest}, newer than {limits.opset}",
            hint=f"export it with opset_version={limits.opset} or lower, or use onnx.version_converter",
        )
    if any(version < 1 for version in opsets.values()):
        raise ModelFileError(f"{path} states no valid operator set", hint=_EXPORT_AGAIN)


def _check_sizes(path: Path, model: ModelProto, limits: OnnxLimits) -> None:
    if not model.graph.node:
        raise ModelFileError(f"{path} has an empty graph: no operators", hint="export the model again")
    count = 0
    for step in walk(model):
        count += len(step.nodes)
        if step.depth > limits.depth:
            raise ModelFileError(
                f"{path} nests subgraphs more than {limits.depth} deep", hint="flatten its If, Loop and Scan"
            )
        if count > limits.nodes:
            raise ModelFileError(
                f"{path} has more than {limits.nodes} operators", hint="simplify it, for example with onnxsim"
            )


def _check_expansion(path: Path, model: ModelProto, limits: OnnxLimits) -> None:
    """Bound what local functions, which may call each other, become when a runtime inlines them."""
    functions = {(function.domain, function.name): function for function in model.functions}
    if len(functions) != len(model.functions):
        raise ModelFileError(f"{path} defines a local function twice", hint=_EXPORT_AGAIN)
    sizes: dict[tuple[str, str], int] = {}

    def size(key: tuple[str, str], callers: tuple[tuple[str, str], ...]) -> int:
        if key in callers or len(callers) > limits.depth:
            raise ModelFileError(
                f"{path}: local function {shown(key[1])} calls itself or nests too deep", hint="inline its functions"
            )
        if key not in sizes:
            sizes[key] = sum(
                1 if inner not in functions else size(inner, (*callers, key)) for inner in _called(functions[key])
            )
        return sizes[key]

    total = 0
    for step in walk(model):
        if step.graph is None:
            continue
        for node in step.nodes:
            key = (node.domain, node.op_type)
            total += size(key, ()) if key in functions else 1
            if total > limits.nodes:
                raise ModelFileError(
                    f"{path} has more than {limits.nodes} operators once its local functions are expanded",
                    hint="inline and simplify it with onnx.inliner and onnxsim",
                )


def _called(function: FunctionProto) -> Iterator[tuple[str, str]]:
    for step in walk_function(function):
        for node in step.nodes:
            yield node.domain, node.op_type


def _check_domains(path: Path, model: ModelProto, limits: OnnxLimits) -> None:
    local = {(function.domain, function.name) for function in model.functions}

    def foreign(node: NodeProto) -> bool:
        allowed = node.domain in OWN_DOMAINS or node.domain in limits.domains
        return not allowed and (node.domain, node.op_type) not in local

    names = sorted({operator_name(node) for step in walk(model) for node in step.nodes if foreign(node)})
    if names:
        domains = sorted({name.rpartition("::")[0] for name in names})
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise ModelFileError(
            f"{path} uses custom operators: {', '.join(shown(name) for name in names[:5])}{more}",
            hint="they need an onnxruntime custom op library where the model is built and served; if you have it, "
            + " ".join(f"--allow-domain {domain!r}" for domain in domains[:5])
            + "; else export the model without them",
        )


def _check_tensor(path: Path, tensor: TensorProto, limits: OnnxLimits) -> None:
    name = shown(tensor.name)
    bits = element_bits(tensor.data_type)
    if bits == 0 and tensor.data_type != TensorProto.STRING:
        raise ModelFileError(f"{path}: tensor {name} has no valid element type", hint=_EXPORT_AGAIN)
    if any(dim < 0 for dim in tensor.dims):
        raise ModelFileError(f"{path}: tensor {name} has a negative dimension", hint=_EXPORT_AGAIN)
    count, size = math.prod(tensor.dims), tensor_bytes(tensor.data_type, tensor.dims)
    if max(count, size) > limits.tensor_bytes:
        raise ModelFileError(
            f"{path}: tensor {name} declares {max(count, size)} bytes, more than {limits.tensor_bytes}",
            hint="no single tensor of a model that is served here is that large; check where the file is from",
        )
    if tensor.data_location == TensorProto.EXTERNAL:
        return
    if tensor.HasField("segment"):
        raise ModelFileError(f"{path}: tensor {name} is stored in segments", hint="export the model again")
    if tensor.raw_data:
        held, needed = len(tensor.raw_data), size
    else:
        held, needed = _field_elements(tensor), _field_elements_needed(tensor, count)
    if held != needed:
        raise ModelFileError(
            f"{path}: tensor {name} declares the shape {list(tensor.dims)[:8]} and holds other data than that",
            hint=_EXPORT_AGAIN,
        )


def _field_elements(tensor: TensorProto) -> int:
    fields = (
        tensor.float_data,
        tensor.int32_data,
        tensor.int64_data,
        tensor.double_data,
        tensor.uint64_data,
        tensor.string_data,
    )
    return sum(len(field) for field in fields)


def _field_elements_needed(tensor: TensorProto, count: int) -> int:
    if tensor.data_type in {TensorProto.COMPLEX64, TensorProto.COMPLEX128}:
        return 2 * count
    bits = element_bits(tensor.data_type)
    if 0 < bits < 8:  # several of them are packed into the bytes of one entry
        return (count * bits + 7) // 8
    return count


def _check_interface(path: Path, model: ModelProto) -> None:
    inputs, outputs = real_inputs(model.graph), list(model.graph.output)
    if not inputs or not outputs:
        raise ModelFileError(
            f"{path} has no {'inputs' if not inputs else 'outputs'}",
            hint="a served model needs at least one of each; export it with example inputs",
        )
    names = [value.name for value in (*inputs, *outputs)]
    if not all(names) or len(set(names)) != len(names):
        raise ModelFileError(
            f"{path}: two of its inputs and outputs share a name, or one has none", hint="rename them at export"
        )
    for value in (*inputs, *outputs):
        element = value.type.tensor_type.elem_type if value.type.HasField("tensor_type") else 0
        if element not in KSERVE_TYPES:
            raise ModelFileError(
                f"{path}: {shown(value.name)} is not a tensor of a type that Triton can carry",
                hint="sequences, maps, optionals, complex and sub-byte types have to be turned into tensors "
                "inside the model (for scikit-learn: options={'zipmap': False})",
            )
        if not value.type.tensor_type.HasField("shape"):
            raise ModelFileError(
                f"{path}: {shown(value.name)} has no shape, not even the number of its dimensions",
                hint="onnx.shape_inference.infer_shapes may find it; else state it in model.graph and save again",
            )


def _check_interface_sizes(path: Path, model: ModelProto, limits: OnnxLimits) -> None:
    """Refuse sizes that no request can have."""
    for value in (*real_inputs(model.graph), *model.graph.output):
        dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim if dim.HasField("dim_value")]
        if any(dim < 0 for dim in dims):
            raise ModelFileError(
                f"{path}: {shown(value.name)} has a negative dimension",
                hint="name a dynamic dimension instead (dim_param); onnx.tools.update_model_dims does that",
            )
        size = max(math.prod(dims), tensor_bytes(value.type.tensor_type.elem_type, dims))
        if size > limits.tensor_bytes:
            raise ModelFileError(
                f"{path}: one row of {shown(value.name)} would have {size} bytes, more than {limits.tensor_bytes}",
                hint="no request can be that large; check where the file is from",
            )


def _check_structure(path: Path, bones: ModelProto) -> None:
    try:
        checker.check_model(bones)
    except (checker.ValidationError, ValueError, EncodeError, RuntimeError, TypeError) as error:
        raise ModelFileError(
            f"{path} is not a valid ONNX model: {_first_line(error)}",
            hint="check it with `python -m onnx.checker MODEL`; " + _EXPORT_AGAIN,
        ) from error


def _check_made_tensors(path: Path, bones: ModelProto, limits: OnnxLimits) -> None:
    """Refuse what is small in the file and huge when it runs."""
    inferred = inferred_shapes(path, bones)
    for step in walk(inferred):
        if step.graph is None:
            continue
        for value in (*step.graph.value_info, *step.graph.output, *step.graph.input):
            dims = static_shape(value.type)
            if dims is None:
                continue
            size = max(math.prod(dims), tensor_bytes(value.type.tensor_type.elem_type, dims))
            if size > limits.tensor_bytes:
                raise ModelFileError(
                    f"{path}: {shown(value.name)} would be a tensor of {size} bytes, more than {limits.tensor_bytes}",
                    hint="the model makes a huge constant when it runs; check where the file is from",
                )


def inferred_shapes(path: Path, bones: ModelProto) -> ModelProto:
    """Return the model with the shapes that follow from its inputs.

    Raises:
        ModelFileError: The shapes contradict each other.
    """
    try:
        return shape_inference.infer_shapes(bones, data_prop=True)
    except (
        shape_inference.InferenceError,
        checker.ValidationError,
        ValueError,
        EncodeError,
        RuntimeError,
        TypeError,
    ) as error:
        raise ModelFileError(
            f"the shapes in {path} contradict each other: {_first_line(error)}", hint=_EXPORT_AGAIN
        ) from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shown(lines[0])[1:-1] if lines else type(error).__name__
