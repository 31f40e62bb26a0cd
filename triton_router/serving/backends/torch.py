"""Executes ``model.pt2`` (a ``torch.export`` program) on CPU, CUDA or Apple's GPU.

A ``.pt2`` runs code while it is loaded. It is therefore loaded only if the SHA-256 of its exact bytes stands in
the model's ``manifest.json``, which ``triton-router add`` writes for files it made itself; and what is loaded are
those very bytes, read once, not the file a second time.
"""

from __future__ import annotations

import hashlib
import hmac
import importlib
import io
import json
from typing import TYPE_CHECKING, Any

from triton_router.errors import ConfigError, InvalidInputError, ModelFileError, UnsupportedError
from triton_router.files import open_regular
from triton_router.serving.backends.base import ExecutingModel
from triton_router.torch_call import ProgramCall, result_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from triton_router.serving.backends.context import ModelContext

    Tensors = dict[str, NDArray[np.generic]]

MANIFEST = "manifest.json"
_MANIFEST_BYTES = 8 << 20
_ADD_AGAIN = "make it with 'triton-router add' on a machine you trust; a .pt2 from elsewhere can run any code"


class TorchSession:
    """One exported program on one device.

    Args:
        context: The model.
        warn: Logs a line.

    Raises:
        UnsupportedError: torch or the device is missing.
        ModelFileError: The file is not in the manifest, or not an exported program.
        ConfigError: ``config.pbtxt`` and the program disagree, or a parameter is not valid.
    """

    def __init__(self, context: ModelContext, warn: Callable[[str], None]) -> None:
        data = read_listed(context.directory, context.version, context.file("model.pt2"))
        torch = _torch()
        device = _device(context, torch)
        _set_threads(context, torch, warn)
        try:
            program = torch.export.load(io.BytesIO(data))
        except Exception as error:  # the loader raises whatever the content provokes
            raise ModelFileError(
                f"model.pt2 of {context.name!r} is not a program this torch {torch.__version__} loads: {error}",
                hint="make it again with 'triton-router add' and this version of torch",
            ) from error
        if device.type != "cpu":
            program = torch.export.passes.move_to_device_pass(program, device)
        self._torch = torch
        self._device = device
        self._order = _input_order(context, program.graph_signature.user_inputs)
        self._names = _output_order(context, result_keys(program), len(program.graph_signature.user_outputs))
        self._call = ProgramCall(program, self._order)

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """Run one batch on the device; the answers come back as CPU arrays."""
        missing = [name for name in self._order if name not in inputs]
        if missing:
            raise InvalidInputError(f"input {missing[0]!r} is missing", hint="send every input of the model")
        torch = self._torch
        with torch.inference_mode():
            tensors = {name: self._tensor(inputs[name]) for name in self._order}
            try:
                result = self._call(tensors)
            except (AssertionError, IndexError) as error:
                # Exported programs guard their shapes with assertions; an index beyond a table is an IndexError.
                raise InvalidInputError(f"the inputs do not fit the model: {error}") from error
            named = dict(zip(self._names, result, strict=True))
            return {name: named[name].detach().cpu().contiguous().numpy() for name in outputs}

    def _tensor(self, array: NDArray[np.generic]) -> Any:
        # torch cannot hold read-only memory without a warning; a copy is the honest way out.
        usable = array if array.flags.writeable and array.flags.c_contiguous else array.copy()
        return self._torch.from_numpy(usable).to(self._device)


class TorchModel(ExecutingModel):
    """The ``TritonPythonModel`` of the ``torch`` backend."""

    open_session = TorchSession


def read_listed(directory: Path, version: str, file: Path) -> bytes:
    """Read a model file and return its bytes, if the manifest beside it lists exactly these.

    Args:
        directory: The model's directory, which holds ``manifest.json``.
        version: Version directory the file lies in.
        file: The file.

    Raises:
        ModelFileError: No manifest, it does not list the file, or the bytes are others.
    """
    try:
        with open_regular(directory / MANIFEST) as stream:
            manifest: Any = json.loads(stream.read(_MANIFEST_BYTES))
        listed = manifest["versions"][version]["files"][file.name]["sha256"]
    except FileNotFoundError as error:
        raise ModelFileError(f"{file.name} has no {MANIFEST} beside its model", hint=_ADD_AGAIN) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelFileError(
            f"{MANIFEST} does not list {file.name} of version {version} with a sha256", hint=_ADD_AGAIN
        ) from error
    data = file.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if not isinstance(listed, str) or not hmac.compare_digest(found, listed):
        raise ModelFileError(
            f"{file.name} is not the file in {MANIFEST}: its SHA-256 is {found}, listed is {listed}", hint=_ADD_AGAIN
        )
    return data


def _torch() -> Any:
    try:
        import torch

        # A submodule that torch does not import by itself.
        importlib.import_module("torch.export.passes")
    except ImportError as error:
        raise UnsupportedError(f"torch is not installed: {error}", hint="pip install 'triton-router[torch]'") from error
    return torch


def _device(context: ModelContext, torch: Any) -> Any:
    """Return the device of this instance, and refuse one that is not there rather than use another."""
    name = context.parameters.get("device", "cuda" if context.kind == "GPU" else "cpu")
    available = {
        "cpu": lambda: True,
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
    }
    if name not in available:
        raise ConfigError(f"device {name!r} of model {context.name!r} is not known", hint="use cpu, cuda or mps")
    if not available[name]():
        raise UnsupportedError(
            f"model {context.name!r} is to run on {name}, which torch {torch.__version__} does not find here",
            hint="check the driver and the torch build, or use KIND_CPU",
        )
    return torch.device(name, context.device_id) if name == "cuda" else torch.device(name)


def _set_threads(context: ModelContext, torch: Any, warn: Callable[[str], None]) -> None:
    setters = {
        "intra_op_thread_count": torch.set_num_threads,
        "inter_op_thread_count": torch.set_num_interop_threads,
    }
    ignored: list[str] = []
    for key, value in context.parameters.items():
        setter = setters.get(key.lower())
        if setter is None:
            ignored += [] if key == "device" else [key]
        elif value.isdigit() and int(value) > 0:
            setter(int(value))
        else:
            raise ConfigError(
                f"parameter {key} of model {context.name!r} is {value!r}, not a number of threads",
                hint=f"set it to 1 or more, or remove {key}",
            )
    if ignored:
        warn(f"model {context.name!r}: parameters not used by the torch backend: {', '.join(sorted(ignored))}")


def _input_order(context: ModelContext, program_inputs: Sequence[str]) -> list[str]:
    """Return the config's input names in the order of the program's arguments.

    Names decide where they agree; where none does (``INPUT__0`` style), the order of ``config.pbtxt`` decides.
    """
    declared = [item.name for item in context.inputs]
    if set(declared) == set(program_inputs):
        return list(program_inputs)
    if len(declared) == len(program_inputs) and not set(declared) & set(program_inputs):
        return declared
    raise ConfigError(
        f"config.pbtxt of {context.name!r} declares the inputs {', '.join(declared)}; "
        f"the program takes {', '.join(program_inputs)}",
        hint="use the program's names, or add the model again with 'triton-router add'",
    )


def _output_order(context: ModelContext, keys: Sequence[str], count: int) -> list[str]:
    """Return names for the program's results: its own keys if it returns a dict, else those of ``config.pbtxt``.

    A config may leave results out: those of a dict that it does not name, or the last ones of a tuple.
    """
    declared = [item.name for item in context.outputs]
    if set(declared) <= set(keys):
        return list(keys)
    if len(declared) > count or set(declared) & set(keys):
        raise ConfigError(
            f"config.pbtxt of {context.name!r} declares the outputs {', '.join(declared)}; "
            f"the program returns {', '.join(keys) or f'{count} tensors'}",
            hint="use the program's names, or add the model again with 'triton-router add'",
        )
    return [*declared, *(f"result {index}" for index in range(len(declared), count))]
