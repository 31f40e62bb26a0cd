"""A PyTorch model with what is needed to export it: from a factory function or from a ``.pt2`` file.

Both run the user's own code. A ``.pt2`` is loaded only if its bytes have the SHA-256 that vouches for it.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import io
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch.export import Dim, ExportedProgram

from triton_router.analysis.source import module_file
from triton_router.analysis.torch_program import (
    BATCH,
    dynamic_axes,
    example_inputs_of,
    inputs_of,
    only_tensors,
    output_names_of,
    symbol_bounds,
    symbol_names,
)
from triton_router.errors import ModelFileError, NotFoundError, TritonRouterError, UnsupportedError

if TYPE_CHECKING:
    from torch import Tensor, nn

DEFAULT_BOUNDS = (1, 1024)
"""Smallest and largest size of a dynamic dimension whose bounds are not given."""

_RETURN_HINT = (
    "return (module, example_inputs), with example_inputs a dict of tensors by the names of forward's arguments or "
    "a tuple in their order, or return triton_router.analysis.torch_source.TorchSource(...)"
)
_MESSAGE_CHARS = 400


@dataclass(slots=True)
class TorchSource:
    """A module and how it is called. A factory may return one to say more than ``(module, example_inputs)``.

    Attributes:
        module: In evaluation mode, on the CPU.
        example_inputs: One tensor per argument of ``forward``, by its name, in its order.
        dynamic_axes: Axis to symbol for every input with dynamic dimensions; ``batch`` is the batch.
        output_names: Names of the output tensors in their order; empty takes a returned dict's keys, else
            ``output`` or ``output_0``, ``output_1``...
        bounds: Smallest and largest size of a symbol; `DEFAULT_BOUNDS` without one.
    """

    module: nn.Module
    example_inputs: dict[str, Tensor]
    dynamic_axes: dict[str, dict[int, str]] = field(default_factory=dict[str, dict[int, str]])
    output_names: tuple[str, ...] = ()
    bounds: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])

    def dynamic_shapes(self) -> dict[str, dict[int, Dim]]:
        """Return what ``torch.export`` calls dynamic shapes, with one Dim per symbol."""
        symbols = {symbol for axes in self.dynamic_axes.values() for symbol in axes.values()}
        dims = {symbol: _dim(symbol, self.bounds.get(symbol, DEFAULT_BOUNDS)) for symbol in sorted(symbols)}
        return {
            name: {axis: dims[symbol] for axis, symbol in self.dynamic_axes.get(name, {}).items()}
            for name in self.example_inputs
        }


@dataclass(slots=True)
class ExportedSource:
    """A loaded ``.pt2``.

    Attributes:
        program: The exported program.
        source: The same as a module with example inputs, symbols and names.
        sha256: Of the bytes that were loaded.
    """

    program: ExportedProgram
    source: TorchSource
    sha256: str


def load_factory(reference: str) -> TorchSource:
    """Import a module, call its factory without arguments, and check what it returns by running it once.

    Args:
        reference: ``package.module:factory``; the module is searched in the working directory first.

    Raises:
        NotFoundError: There is no such module or function.
        ModelFileError: It is not callable, raised, or returned something else than a model.
    """
    source = _as_source(reference, _call_factory(reference))
    return _prepared(reference, source)


def load_exported(path: Path, sha256: str) -> ExportedSource:
    """Load a ``.pt2`` whose bytes have the given SHA-256; exactly the bytes that were hashed are loaded.

    Raises:
        ModelFileError: The hash differs, or it is not an exported program of this torch.
    """
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256.lower():
        raise ModelFileError(
            f"the SHA-256 of {path} is {digest}, not {sha256.lower()}; it was not loaded",
            hint="get the file again from where you trust it, or give the hash of the one you mean",
        )
    try:
        program = torch.export.load(io.BytesIO(data))
    except MemoryError:
        raise
    except Exception as error:  # torch.export.load lets through whatever its unpickling meets
        raise ModelFileError(
            f"{path} is not an exported program that torch {torch.__version__} can load: {_first_line(error)}",
            hint="make it with torch.export.save(torch.export.export(model, inputs), path), with this version of "
            "torch; custom operators need their package imported, so give a package.module:factory instead",
        ) from error

    return ExportedSource(program, _source_of(path, program), digest)


def export_source(source: TorchSource) -> ExportedProgram:
    """Trace a module into an exported program with its dynamic dimensions.

    The program takes the inputs as keywords, so that its arguments have the inputs' names, and returns a tensor
    or a tuple of tensors: a returned class (a transformer's output) would have to be importable to load it.

    Raises:
        UnsupportedError: ``torch.export`` cannot trace it; the reason is in the message.
    """
    inputs = source.example_inputs
    try:
        with torch.no_grad():
            module = source.module if _is_plain(source) else _Plain(source.module, list(inputs))
            return torch.export.export(module, (), dict(inputs), dynamic_shapes=source.dynamic_shapes(), strict=False)
    except MemoryError:
        raise
    except Exception as error:  # tracing runs the model's own code, which may raise anything
        raise UnsupportedError(
            f"torch.export cannot trace the model: {_first_line(error)}",
            hint="a dimension that has to stay fixed must not be in dynamic_axes; data-dependent branches need "
            "torch.cond. Return a TorchSource with fitting dynamic_axes from the factory",
        ) from error


class _Plain(torch.nn.Module):
    """Named tensors in, a tuple of tensors out, whatever the module inside takes and returns."""

    def __init__(self, module: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.module = module

        def forward(**inputs: Tensor) -> tuple[Tensor, ...]:
            return tuple(flatten_outputs(module(**inputs)).values())

        # torch.export reads the arguments' names from the signature and cannot trace ``**inputs`` itself.
        forward.__signature__ = inspect.Signature(  # pyright: ignore[reportFunctionMemberAccess] - PEP 362 allows it
            [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names]
        )
        self.forward = forward


def _is_plain(source: TorchSource) -> bool:
    """Tell whether torch.export takes the module as it is: named arguments, and no result of a class of its own."""
    parameters = inspect.signature(source.module.forward).parameters
    if not source.example_inputs.keys() <= parameters.keys():
        return False
    result = source.module(**source.example_inputs)
    return isinstance(result, torch.Tensor) or type(result) in {tuple, list}


def flatten_outputs(result: object) -> dict[str, Tensor]:
    """Name the tensors that a module returned: a tensor, a tuple or list of them, or a dict of them.

    Raises:
        ModelFileError: There is something else in it.
    """
    if isinstance(result, torch.Tensor):
        named: dict[str, object] = {"output": result}
    elif isinstance(result, Mapping):
        named = {str(key): value for key, value in cast("Mapping[object, object]", result).items()}
    elif isinstance(result, (tuple, list)):
        values = list(cast("tuple[object, ...]", result))
        names = ["output"] if len(values) == 1 else [f"output_{index}" for index in range(len(values))]
        named = dict(zip(names, values, strict=True))
    else:
        named = {"output": result}
    if "" in named:
        raise ModelFileError("the model returns a tensor under an empty name", hint="give every key a name")
    tensors = {name: value for name, value in named.items() if isinstance(value, torch.Tensor)}
    if not tensors or len(tensors) != len(named):
        odd = next((value for value in named.values() if not isinstance(value, torch.Tensor)), None)
        raise ModelFileError(
            f"the model returns {type(odd).__name__} where a tensor is needed",
            hint="return a tensor, a tuple of tensors or a dict of tensors from forward; wrap the module if needed",
        )
    return tensors


def _source_of(path: Path, program: ExportedProgram) -> TorchSource:
    if not only_tensors(program):
        raise ModelFileError(
            f"{path} has inputs or outputs that are not tensors",
            hint="export a module whose forward takes tensors and returns a tensor, a tuple or a dict of tensors",
        )
    inputs = inputs_of(program)
    symbols = symbol_names(list(inputs.values()))
    bounds = symbol_bounds(program, symbols)
    axes = {name: dynamic_axes(value, symbols) for name, value in inputs.items()}
    return TorchSource(
        module=program.module(),
        example_inputs=example_inputs_of(program, bounds, axes),
        dynamic_axes={name: found for name, found in axes.items() if found},
        output_names=output_names_of(program),
        bounds=bounds,
    )


def _call_factory(reference: str) -> object:
    module_name, _, attribute = reference.partition(":")
    directory = str(Path.cwd())
    if directory not in sys.path:
        sys.path.insert(0, directory)
    if module_file(module_name) is None:
        raise NotFoundError(
            f"there is no Python module {module_name!r} in {directory} or in the installed packages",
            hint="run the command in the directory that holds it, or set PYTHONPATH, and check the spelling",
        )
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # importing runs the user's code
        raise _user_error(f"importing {module_name} failed", error) from error
    factory = getattr(module, attribute, None)
    if factory is None:
        public = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise NotFoundError(
            f"module {module_name!r} has no {attribute!r}", hint=f"it has: {', '.join(public[:10]) or 'no functions'}"
        )
    if not callable(factory) or isinstance(factory, torch.nn.Module):
        raise ModelFileError(
            f"{reference} is a {type(factory).__name__}, not a function",
            hint=f"write a function without arguments that makes the model; {_RETURN_HINT}",
        )
    try:
        return cast("Callable[[], object]", factory)()
    except (Exception, SystemExit) as error:  # the user's code again
        raise _user_error(f"{reference} failed", error) from error


def _as_source(reference: str, value: object) -> TorchSource:
    if isinstance(value, TorchSource):
        return value
    parts = cast("tuple[object, ...]", value) if isinstance(value, tuple) else ()
    if len(parts) != 2 or not isinstance(parts[0], torch.nn.Module):
        raise ModelFileError(f"{reference} returned {type(value).__name__}", hint=_RETURN_HINT)
    module, inputs = parts[0], _named_inputs(reference, parts[0], parts[1])
    axes = {name: {0: BATCH} for name in inputs}
    return TorchSource(module, cast("dict[str, Tensor]", inputs), dynamic_axes=axes)


def _named_inputs(reference: str, module: nn.Module, inputs: object) -> dict[str, object]:
    if isinstance(inputs, torch.Tensor):
        inputs = (inputs,)
    if isinstance(inputs, Mapping):
        return {str(name): value for name, value in cast("Mapping[object, object]", inputs).items()}
    if not isinstance(inputs, (tuple, list)):
        raise ModelFileError(f"{reference}: example_inputs is a {type(inputs).__name__}", hint=_RETURN_HINT)
    values = list(cast("tuple[object, ...]", inputs))
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [key for key, value in inspect.signature(module.forward).parameters.items() if value.kind in kinds]
    if len(values) > len(names):
        raise ModelFileError(
            f"{reference} gives {len(values)} example inputs and forward takes {len(names)}", hint=_RETURN_HINT
        )
    return dict(zip(names, values, strict=False))


def _prepared(reference: str, source: TorchSource) -> TorchSource:
    """Check a source, put it into evaluation mode, and complete its output names by running it."""
    if not isinstance(source.module, torch.nn.Module) or not source.example_inputs:  # pyright: ignore[reportUnnecessaryIsInstance] - the user's code made it
        raise ModelFileError(f"{reference} gives no module or no example inputs", hint=_RETURN_HINT)
    for name, value in source.example_inputs.items():
        if not isinstance(value, torch.Tensor):  # pyright: ignore[reportUnnecessaryIsInstance] - the same
            raise ModelFileError(
                f"{reference}: example input {name!r} is a {type(value).__name__}, not a tensor", hint=_RETURN_HINT
            )
    _check_axes(reference, source)
    source.module.eval()
    source.example_inputs = _widened(source)
    try:
        with torch.no_grad():
            result = source.module(**source.example_inputs)
    except Exception as error:  # the user's code
        raise _user_error(f"{reference}: the module does not run on its example inputs", error) from error
    names = tuple(flatten_outputs(result))
    if source.output_names and len(source.output_names) != len(names):
        raise ModelFileError(
            f"{reference} names {len(source.output_names)} outputs and the module returns {len(names)}",
            hint="give one name for each returned tensor",
        )
    source.output_names = source.output_names or names
    return source


def _check_axes(reference: str, source: TorchSource) -> None:
    for name, axes in source.dynamic_axes.items():
        if name not in source.example_inputs:
            raise ModelFileError(
                f"{reference}: dynamic_axes names {name!r}, which is no input", hint="use the names of the inputs"
            )
        rank = source.example_inputs[name].dim()
        for axis, symbol in axes.items():
            if not 0 <= axis < rank or not symbol.isidentifier():
                raise ModelFileError(
                    f"{reference}: input {name!r} of rank {rank} has no dynamic axis {axis} named {symbol!r}",
                    hint="the batch is dimension 0 of every input; a scalar input cannot have one. "
                    "State dynamic_axes in a TorchSource if that is not so",
                )


def _widened(source: TorchSource) -> dict[str, Tensor]:
    """Repeat inputs along dynamic dimensions of size 1: an export would take a 1 for a constant."""
    inputs = dict(source.example_inputs)
    for name, axes in source.dynamic_axes.items():
        for axis, symbol in axes.items():
            smallest, largest = source.bounds.get(symbol, DEFAULT_BOUNDS)
            if inputs[name].shape[axis] == 1 and largest >= 2 >= smallest:
                inputs[name] = torch.cat([inputs[name], inputs[name]], dim=axis)
    return inputs


def _dim(symbol: str, bounds: tuple[int, int]) -> Dim:
    return Dim(symbol, min=bounds[0], max=bounds[1])


def _user_error(what: str, error: Exception | SystemExit) -> ModelFileError:
    """Describe an error of the user's code; what is about the machine, not the code, is raised as it is."""
    if isinstance(error, (MemoryError, TritonRouterError)):
        raise error
    if "allocate memory" in str(error):  # how torch's allocator says it
        raise MemoryError(str(error)) from error
    frames = traceback.extract_tb(error.__traceback__)
    where = f" (at {Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return ModelFileError(
        f"{what}: {type(error).__name__}: {_first_line(error)}{where}", hint="repair the function and try it in Python"
    )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:_MESSAGE_CHARS] if lines else type(error).__name__
