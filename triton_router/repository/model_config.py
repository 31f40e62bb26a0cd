"""Triton's ``config.pbtxt`` as typed messages: read, checked, and written so that it reads back the same.

The message types come from tritonclient, which carries Triton's own ``model_config.proto``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelInput, ModelOutput

from triton_router.errors import ConfigError, NotFoundError
from triton_router.files import open_regular

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CONFIG_FILE = "config.pbtxt"
MAX_CONFIG_BYTES = 1 << 20
"""Larger files are refused unread: the largest hand-written configs are tens of kilobytes."""

KSERVE_TO_TRITON = {
    "BOOL": "TYPE_BOOL",
    "UINT8": "TYPE_UINT8",
    "UINT16": "TYPE_UINT16",
    "UINT32": "TYPE_UINT32",
    "UINT64": "TYPE_UINT64",
    "INT8": "TYPE_INT8",
    "INT16": "TYPE_INT16",
    "INT32": "TYPE_INT32",
    "INT64": "TYPE_INT64",
    "FP16": "TYPE_FP16",
    "FP32": "TYPE_FP32",
    "FP64": "TYPE_FP64",
    "BYTES": "TYPE_STRING",
    "BF16": "TYPE_BF16",
}
"""KServe v2 datatype to the name in ``config.pbtxt``."""

TRITON_TO_KSERVE = {triton: kserve for kserve, triton in KSERVE_TO_TRITON.items()}


def parse(text: str, *, source: str) -> ModelConfig:
    """Parse the text of a ``config.pbtxt``.

    Args:
        text: Protobuf text format.
        source: Where it came from, for the error.

    Raises:
        ConfigError: It is not a valid Triton model configuration.
    """
    if len(text) > MAX_CONFIG_BYTES:
        raise ConfigError(
            f"{source} has more than {MAX_CONFIG_BYTES} characters",
            hint="a model configuration is a few kilobytes; check that this is the right file",
        )
    try:
        return text_format.Parse(text, ModelConfig())
    except text_format.ParseError as error:
        raise ConfigError(
            f"{source} is not a valid Triton model configuration: {error}",
            hint="compare it with Triton's model configuration documentation, or remove it and add the model again",
        ) from error


def render(config: ModelConfig) -> str:
    """Return the text of a config; parsing it gives an equal message."""
    text = text_format.MessageToString(config)
    if parse(text, source="rendered config") != config:  # pragma: no cover - a defect of protobuf, not of input
        raise ConfigError("the rendered config.pbtxt does not read back the same", hint="please report this")
    return text


def read(model_directory: Path) -> ModelConfig:
    """Read the configuration of the model in ``model_directory``; its name defaults to the directory's.

    Raises:
        NotFoundError: There is no ``config.pbtxt``.
        ConfigError: It is not valid.
    """
    path = model_directory / CONFIG_FILE
    try:
        with open_regular(path) as file:
            text = file.read(MAX_CONFIG_BYTES + 1).decode()
    except FileNotFoundError as error:
        raise NotFoundError(
            f"model {model_directory.name!r} has no {CONFIG_FILE} in {model_directory}",
            hint=f"create {path}, or check the model's name and --repository",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", hint="check its permissions and encoding") from error
    config = parse(text, source=str(path))
    if not config.name:
        config.name = model_directory.name
    return config


def model_input(name: str, datatype: str, dims: Sequence[int], *, optional: bool = False) -> ModelInput:
    """Return an input declaration. ``datatype`` is a KServe name, ``dims`` leave out the batch dimension."""
    return ModelInput(name=name, data_type=_data_type(datatype), dims=dims, optional=optional)


def model_output(name: str, datatype: str, dims: Sequence[int]) -> ModelOutput:
    """Return an output declaration. ``datatype`` is a KServe name, ``dims`` leave out the batch dimension."""
    return ModelOutput(name=name, data_type=_data_type(datatype), dims=dims)


def string_inputs(config: ModelConfig) -> list[str]:
    """Return the names of the inputs that hold strings."""
    return [tensor.name for tensor in config.input if tensor.data_type == DataType.Value("TYPE_STRING")]


def kserve_type(data_type: int) -> str:
    """Return the KServe v2 name of a ``DataType`` value.

    Raises:
        ConfigError: The value is ``TYPE_INVALID`` or unknown.
    """
    name = DataType.Name(data_type) if data_type in DataType.values() else str(data_type)
    if name not in TRITON_TO_KSERVE:
        raise ConfigError(f"tensor data type {name} is not usable", hint="use one of " + ", ".join(TRITON_TO_KSERVE))
    return TRITON_TO_KSERVE[name]


def _data_type(datatype: str) -> DataType:
    if datatype not in KSERVE_TO_TRITON:
        raise ConfigError(
            f"datatype {datatype!r} is not a KServe v2 datatype", hint="use one of " + ", ".join(KSERVE_TO_TRITON)
        )
    return cast("DataType", DataType.Value(KSERVE_TO_TRITON[datatype]))
