"""Executes ``model.onnx`` through ONNX Runtime, for servers without Triton's native ``onnxruntime`` backend.

It takes the native backend's own parameters, so that one repository serves on both. ONNX Runtime falls back to
the CPU without an error when a provider is missing; here that is refused, twice: before the session is made, and
by asking the session which provider each operator was given to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from triton_router.errors import ConfigError, InvalidInputError, ModelFileError, UnsupportedError
from triton_router.serving.backends.base import ExecutingModel, strings_to_text, text_to_strings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from triton_router.serving.backends.context import ModelContext, TensorDeclaration

    Tensors = dict[str, NDArray[np.generic]]

_ORT_TYPES = {
    "tensor(bool)": "bool",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(string)": "object",
}
_ACCELERATORS = {"tensorrt": "TensorrtExecutionProvider", "openvino": "OpenVINOExecutionProvider"}
_HEAVY = frozenset({"Attention", "Conv", "ConvTranspose", "Gemm", "GRU", "LSTM", "MatMul", "MultiHeadAttention", "RNN"})
"""Operators that carry a model's cost: on the CPU they mean that the accelerator does not do the work."""

_INSTALL = "pip install 'triton-router[serve]'"


class OnnxSession:
    """One ONNX Runtime session.

    Args:
        context: The model.
        warn: Logs a line.

    Raises:
        UnsupportedError: ONNX Runtime or the provider is missing, or the work would land on the CPU instead.
        ModelFileError: The file is not a model that ONNX Runtime accepts.
        ConfigError: ``config.pbtxt`` and the model disagree, or a parameter is not valid.
    """

    def __init__(self, context: ModelContext, warn: Callable[[str], None]) -> None:
        runtime = _onnxruntime()
        providers = _providers(context, runtime.get_available_providers())
        options = _session_options(context, runtime, warn)
        state = runtime.capi.onnxruntime_pybind11_state
        path = context.file("model.onnx")
        try:
            self._session = runtime.InferenceSession(str(path), options, providers=providers)
        except (
            state.Fail,
            state.InvalidProtobuf,
            state.InvalidGraph,
            state.NotImplemented,
            state.InvalidArgument,
        ) as error:
            raise ModelFileError(
                f"{path.name} of model {context.name!r} is not accepted by ONNX Runtime: {error}",
                hint="check the file with onnx.checker, and that its opset and operators are supported",
            ) from error
        self._client_errors: tuple[type[Exception], ...] = (state.InvalidArgument,)
        _check_placement(context, self._session, providers)
        _check_tensors(context, "input", context.inputs, self._session.get_inputs())
        _check_tensors(context, "output", context.outputs, self._session.get_outputs())
        self._text_inputs = [item.name for item in context.inputs if item.dtype == "object"]
        self._text_outputs = {item.name for item in context.outputs if item.dtype == "object"}

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """Run one batch; numeric tensors are read where they are and returned without a copy."""
        for name in self._text_inputs:
            if name in inputs:
                inputs[name] = strings_to_text(name, inputs[name])
        try:
            results = self._session.run(list(outputs), inputs)
        except self._client_errors as error:
            raise InvalidInputError(str(error)) from error
        return {
            name: text_to_strings(result) if name in self._text_outputs else result
            for name, result in zip(outputs, results, strict=True)
        }


class OnnxModel(ExecutingModel):
    """The ``TritonPythonModel`` of the ``onnx`` backend."""

    open_session = OnnxSession


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise UnsupportedError(f"ONNX Runtime is not installed: {error}", hint=_INSTALL) from error
    return onnxruntime


def _providers(context: ModelContext, available: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """Return the providers to ask for, most wanted first; the CPU is last, for operators that belong there."""
    wanted: list[tuple[str, dict[str, str]]] = []
    for name in context.accelerators:
        if name not in _ACCELERATORS:
            raise ConfigError(
                f"execution accelerator {name!r} is not known", hint="use one of " + ", ".join(_ACCELERATORS)
            )
        wanted.append((_ACCELERATORS[name], {}))
    if context.kind == "GPU":
        wanted.append(("CUDAExecutionProvider", {"device_id": str(context.device_id)}))
    missing = [name for name, _ in wanted if name not in available]
    if missing:
        raise UnsupportedError(
            f"model {context.name!r} is to run on {missing[0]}, which this ONNX Runtime lacks "
            f"(it has {', '.join(available)}); it would run on the CPU instead",
            hint="install the ONNX Runtime build for that device, such as onnxruntime-gpu, or use KIND_CPU",
        )
    return [*wanted, ("CPUExecutionProvider", {})]


def _session_options(context: ModelContext, runtime: Any, warn: Callable[[str], None]) -> Any:
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong in a request is answered to its client, not logged per request
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    # Idle threads that spin take the cores from the server, the router and the other targets: measured with 8
    # clients on two cores, a fifth of the throughput. The parameter of this name turns it on again.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    ignored: list[str] = []
    for key, value in context.parameters.items():
        if key in {"intra_op_thread_count", "inter_op_thread_count"}:
            setattr(options, key.replace("thread_count", "num_threads"), _number(context, key, value))
        elif key == "execution_mode":
            parallel = _number(context, key, value) == 1
            mode = runtime.ExecutionMode
            options.execution_mode = mode.ORT_PARALLEL if parallel else mode.ORT_SEQUENTIAL
        elif key == "enable_mem_arena":
            options.enable_cpu_mem_arena = value != "0"
        elif key == "enable_mem_pattern":
            options.enable_mem_pattern = value != "0"
        elif key.startswith("session."):
            options.add_session_config_entry(key, value)
        else:
            ignored.append(key)
    if ignored:
        warn(f"model {context.name!r}: parameters not used by this onnx backend: {', '.join(sorted(ignored))}")
    return options


def _number(context: ModelContext, key: str, value: str) -> int:
    try:
        number = int(value)
    except ValueError:
        number = -1
    if number < 0:
        raise ConfigError(
            f"parameter {key} of model {context.name!r} is {value!r}, not a whole number",
            hint=f"set it to 0 or more in config.pbtxt, or remove {key}",
        )
    return number


def _check_placement(context: ModelContext, session: Any, providers: Sequence[tuple[str, dict[str, str]]]) -> None:
    """Refuse a session whose heavy operators are on the CPU although an accelerator was asked for."""
    if len(providers) == 1:
        return
    accelerated: set[str] = set()
    left: set[str] = set()
    for part in session.get_provider_graph_assignment_info():
        operators = {node.op_type for node in part.get_nodes()}
        (left if part.ep_name == "CPUExecutionProvider" else accelerated).update(operators)
    heavy = sorted(left & _HEAVY)
    if heavy or not accelerated:
        raise UnsupportedError(
            f"model {context.name!r} is to run on {providers[0][0]}, but ONNX Runtime gave "
            f"{', '.join(heavy) or 'every operator'} to the CPU",
            hint="check the driver and the provider's libraries, convert the model for the device, or use KIND_CPU",
        )


def _check_tensors(
    context: ModelContext, role: str, declared: Sequence[TensorDeclaration], actual: Sequence[Any]
) -> None:
    types = {item.name: item.type for item in actual}
    for item in declared:
        if item.name not in types:
            raise ConfigError(
                f"config.pbtxt of {context.name!r} declares {role} {item.name!r}; the model has {', '.join(types)}",
                hint="correct config.pbtxt, or add the model again with 'triton-router add'",
            )
        if _ORT_TYPES.get(types[item.name]) != item.dtype:
            raise ConfigError(
                f"{role} {item.name!r} of {context.name!r} is {types[item.name]} in the model, "
                f"and numpy {item.dtype} by config.pbtxt",
                hint="correct data_type in config.pbtxt",
            )
