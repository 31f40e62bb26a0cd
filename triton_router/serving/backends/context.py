"""What an executing backend is told about its model, read from the arguments of ``initialize``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triton_router.errors import ConfigError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping

_NUMPY_TYPES = {
    "TYPE_BOOL": "bool",
    "TYPE_UINT8": "uint8",
    "TYPE_UINT16": "uint16",
    "TYPE_UINT32": "uint32",
    "TYPE_UINT64": "uint64",
    "TYPE_INT8": "int8",
    "TYPE_INT16": "int16",
    "TYPE_INT32": "int32",
    "TYPE_INT64": "int64",
    "TYPE_FP16": "float16",
    "TYPE_FP32": "float32",
    "TYPE_FP64": "float64",
    "TYPE_STRING": "object",
}
"""Datatypes that numpy can hold; BF16 is not among them."""


@dataclass(frozen=True, slots=True)
class TensorDeclaration:
    """One input or output of ``config.pbtxt``: its name, numpy datatype, and whether it may be left out."""

    name: str
    dtype: str
    optional: bool


@dataclass(frozen=True, slots=True)
class ModelContext:
    """One model version as an executing backend sees it.

    Attributes:
        name: The Triton model.
        version: Its version, as text.
        directory: The model's directory in the repository.
        kind: Where this instance is to run: ``CPU``, ``GPU`` or ``MODEL``.
        device_id: Which device of that kind.
        max_batch_size: 0 means that there is no batch dimension.
        merges: Whether requests may run together: the model asks for dynamic batching.
        inputs: Declared inputs, in order.
        outputs: Declared outputs, in order.
        parameters: The config's parameters.
        accelerators: Names of the execution accelerators the config asks for on this kind of instance.
        default_filename: The model's file, where the config names it.
    """

    name: str
    version: str
    directory: Path
    kind: str
    device_id: int
    max_batch_size: int
    merges: bool
    inputs: tuple[TensorDeclaration, ...]
    outputs: tuple[TensorDeclaration, ...]
    parameters: Mapping[str, str]
    accelerators: tuple[str, ...]
    default_filename: str

    def file(self, default: str) -> Path:
        """Return the path of the model's file.

        Raises:
            NotFoundError: It is not there.
        """
        path = self.directory / self.version / (self.default_filename or default)
        if not path.exists():
            raise NotFoundError(
                f"model {self.name!r} version {self.version} has no {path.name}",
                hint="add the model again with 'triton-router add', or correct default_model_filename",
            )
        return path


def context_of(args: Mapping[str, str]) -> ModelContext:
    """Read the arguments that Triton gives to ``initialize``.

    Raises:
        ConfigError: The config declares a datatype that these backends cannot hold, or no outputs.
    """
    config: dict[str, Any] = json.loads(args["model_config"])
    kind = args["model_instance_kind"]
    if kind not in {"CPU", "GPU", "MODEL"}:
        raise ConfigError(f"instance kind {kind!r} is not known here", hint="use KIND_CPU, KIND_GPU or KIND_MODEL")
    accelerators = config.get("optimization", {}).get("execution_accelerators", {})
    wanted = accelerators.get("gpu_execution_accelerator" if kind == "GPU" else "cpu_execution_accelerator", [])
    batch = int(config.get("max_batch_size", 0))
    return ModelContext(
        name=args["model_name"],
        version=args["model_version"],
        directory=Path(args["model_repository"]),
        kind=kind,
        device_id=int(args.get("model_instance_device_id") or 0),
        max_batch_size=batch,
        merges=batch > 0 and "dynamic_batching" in config,
        inputs=tuple(_declaration(item) for item in config.get("input", [])),
        outputs=tuple(_declaration(item) for item in config.get("output", [])),
        parameters={key: value["string_value"] for key, value in config.get("parameters", {}).items()},
        accelerators=tuple(item["name"] for item in wanted),
        default_filename=config.get("default_model_filename", ""),
    )


def _declaration(item: Mapping[str, Any]) -> TensorDeclaration:
    dtype = _NUMPY_TYPES.get(item["data_type"])
    if dtype is None:
        raise ConfigError(
            f"tensor {item['name']!r} is {item['data_type']}, which this backend cannot hold",
            hint="declare another datatype and convert inside the model, for instance FP32 for BF16",
        )
    return TensorDeclaration(item["name"], dtype, bool(item.get("optional", False)))
