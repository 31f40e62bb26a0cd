"""Completes a routed model's ``config.pbtxt`` from its targets' configurations.

What the file says stays. What it leaves out is taken so that any request the routed model accepts is one that
every target accepts: the common outputs, the stricter of two shapes, the smallest batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from triton_router.config.cycles import refuse_cycle
from triton_router.config.router_config import ROUTER_FILE, load_router_config
from triton_router.errors import ConfigError, NotFoundError, TritonRouterError
from triton_router.repository.dependencies import cycle_from
from triton_router.repository.model_config import read

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInput, ModelOutput

    from triton_router.config.router_config import RouterConfig

_WILD = -1


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor as a caller sees it. ``dims`` leave out the batch dimension where the model batches."""

    name: str
    data_type: str
    dims: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and gives. ``max_batch_size`` 0 means that it does not batch."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch_size: int


def complete_config(config: Any, model_directory: Path) -> Any:
    """Fill in a stub's ``ModelConfig`` object and return it.

    Args:
        config: What Triton passes to ``auto_complete_config``.
        model_directory: The routed model's directory; its targets lie beside it.

    Raises:
        ConfigError: A file is not valid, the routed model leads back to itself, a target answers in a way that
            it cannot pass on, or no request could suit all targets.
        NotFoundError: A target's configuration is missing.
    """
    repository = model_directory.parent
    settings = load_router_config(model_directory / ROUTER_FILE)
    refuse_cycle(cycle_from(repository, model_directory.name))
    refuse_decoupled(repository, settings)
    declared = config.as_dict()
    if not (declared["input"] and declared["output"]):
        signature = signature_of_targets(repository, settings)
        if not declared["input"]:
            for tensor in signature.inputs:
                config.add_input({**_as_config(tensor), **({"optional": True} if tensor.optional else {})})
        if not declared["output"]:
            for tensor in signature.outputs:
                config.add_output(_as_config(tensor))
        if not declared["max_batch_size"]:
            config.set_max_batch_size(signature.max_batch_size)
    if settings.streaming and "model_transaction_policy" not in declared:
        config.set_model_transaction_policy({"decoupled": True})
    return config


def refuse_decoupled(repository: Path, settings: RouterConfig) -> None:
    """Compare the targets with ``streaming``; one whose files are missing or not valid is left to its own load.

    Raises:
        ConfigError: A unary routed model has a decoupled target.
    """
    if settings.streaming:
        return
    for target in settings.targets:
        if _is_decoupled(repository / target.model):
            raise ConfigError(
                f"target {target.name!r} ({target.model!r}) is decoupled: it may answer a request several times or "
                "never, and this routed model takes one answer",
                hint=f"set 'streaming: true' in {ROUTER_FILE} of a routed model of its own for streaming, "
                "or remove the target",
            )


def signature_of_targets(repository: Path, settings: RouterConfig) -> Signature:
    """Return the common signature of a routed model's targets, through those that are routed models themselves.

    Raises:
        ConfigError: A target declares nothing, or there is no common signature.
        NotFoundError: A target is not in the repository, or has no ``config.pbtxt``.
    """
    return _common(repository, settings, {})


def common_signature(signatures: dict[str, Signature]) -> Signature:
    """Return the signature whose every request suits all of ``signatures`` (at least one, by model name).

    Raises:
        ConfigError: There is none: inputs or data types differ.
    """
    batched = all(signature.max_batch_size > 0 for signature in signatures.values())
    spread = {name: _spread(signature, batched=batched) for name, signature in signatures.items()}
    first_name, first = next(iter(spread.items()))
    inputs, outputs = list(first.inputs), list(first.outputs)
    for name, signature in list(spread.items())[1:]:
        _require_same_inputs(first_name, inputs, name, signature.inputs)
        inputs = [_stricter(tensor, _named(signature.inputs, tensor.name), name) for tensor in inputs]
        theirs = {tensor.name for tensor in signature.outputs}
        outputs = [
            _wider(tensor, _named(signature.outputs, tensor.name), name) for tensor in outputs if tensor.name in theirs
        ]
    if not outputs:
        raise ConfigError(
            f"the targets {', '.join(signatures)} have no output in common",
            hint="rename their outputs to agree; a routed model answers with what all its targets give",
        )
    smallest = min(signature.max_batch_size for signature in signatures.values()) if batched else 0
    return Signature(tuple(inputs), tuple(outputs), smallest)


def _common(repository: Path, settings: RouterConfig, known: dict[str, Signature]) -> Signature:
    models = dict.fromkeys(target.model for target in settings.targets)
    return common_signature({model: _signature_of(repository / model, known) for model in models})


def _signature_of(directory: Path, known: dict[str, Signature]) -> Signature:
    if directory.name not in known:
        known[directory.name] = _read_signature(directory, known)
    return known[directory.name]


def _read_signature(directory: Path, known: dict[str, Signature]) -> Signature:
    if not directory.is_dir():
        raise NotFoundError(
            f"target model {directory.name!r} is not in {directory.parent}",
            hint=f"add it, or declare input, output and max_batch_size in the routed model's config.pbtxt, "
            f"or take {directory.name!r} out of {ROUTER_FILE}",
        )
    config: ModelConfig = read(directory)
    inputs = tuple(_spec(tensor, optional=tensor.optional) for tensor in config.input)
    outputs = tuple(_spec(tensor) for tensor in config.output)
    if inputs and outputs:
        return Signature(inputs, outputs, config.max_batch_size)
    if (directory / ROUTER_FILE).is_file():  # it will be completed in the same way
        below = _common(directory.parent, load_router_config(directory / ROUTER_FILE), known)
        return Signature(
            inputs or below.inputs, outputs or below.outputs, config.max_batch_size or below.max_batch_size
        )
    raise ConfigError(
        f"target {directory.name!r} declares no inputs or outputs in its config.pbtxt, so the routed model's "
        f"cannot be taken from it",
        hint="declare input, output and max_batch_size in the routed model's config.pbtxt",
    )


def _is_decoupled(directory: Path) -> bool:
    try:
        if (directory / ROUTER_FILE).is_file() and load_router_config(directory / ROUTER_FILE).streaming:
            return True
        return read(directory).model_transaction_policy.decoupled
    except TritonRouterError:
        return False


def _spec(tensor: ModelInput | ModelOutput, *, optional: bool = False) -> TensorSpec:
    from tritonclient.grpc.model_config_pb2 import DataType

    return TensorSpec(tensor.name, DataType.Name(tensor.data_type), tuple(tensor.dims), optional)


def _as_config(tensor: TensorSpec) -> dict[str, Any]:
    return {"name": tensor.name, "data_type": tensor.data_type, "dims": list(tensor.dims)}


def _spread(signature: Signature, *, batched: bool) -> Signature:
    """Write a batched signature without batching, where another target does not batch: any number of rows."""
    if batched or not signature.max_batch_size:
        return signature

    def with_rows(tensors: Iterable[TensorSpec]) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(t.name, t.data_type, (_WILD, *t.dims), t.optional) for t in tensors)

    return Signature(with_rows(signature.inputs), with_rows(signature.outputs), 0)


def _named(tensors: Iterable[TensorSpec], name: str) -> TensorSpec:
    return next(tensor for tensor in tensors if tensor.name == name)


def _require_same_inputs(
    first: str, inputs: Sequence[TensorSpec], other: str, other_inputs: Sequence[TensorSpec]
) -> None:
    ours, theirs = {tensor.name for tensor in inputs}, {tensor.name for tensor in other_inputs}
    if ours != theirs:
        raise ConfigError(
            f"targets {first!r} and {other!r} take different inputs: {sorted(ours)} and {sorted(theirs)}",
            hint="targets of one routed model must take the same inputs; route them under different names",
        )


def _require_same_type(tensor: TensorSpec, other: TensorSpec, model: str) -> None:
    if tensor.data_type != other.data_type or len(tensor.dims) != len(other.dims):
        raise ConfigError(
            f"tensor {tensor.name!r} is {tensor.data_type}{list(tensor.dims)} at one target and "
            f"{other.data_type}{list(other.dims)} at {model!r}",
            hint="targets of one routed model must agree on data types and ranks; convert one of them",
        )


def _stricter(tensor: TensorSpec, other: TensorSpec, model: str) -> TensorSpec:
    """Return the shape of the requests that both accept; an input is optional if it is for both."""
    _require_same_type(tensor, other, model)
    dims = tuple(theirs if ours == _WILD else ours for ours, theirs in zip(tensor.dims, other.dims, strict=True))
    for chosen, theirs in zip(dims, other.dims, strict=True):
        if theirs not in {_WILD, chosen}:
            raise ConfigError(
                f"input {tensor.name!r} has shape {list(tensor.dims)} at one target, {list(other.dims)} at {model!r}",
                hint="no request could suit both; route them under different names",
            )
    return TensorSpec(tensor.name, tensor.data_type, dims, tensor.optional and other.optional)


def _wider(tensor: TensorSpec, other: TensorSpec, model: str) -> TensorSpec:
    """Return the shape that covers what either answers."""
    _require_same_type(tensor, other, model)
    dims = tuple(ours if ours == theirs else _WILD for ours, theirs in zip(tensor.dims, other.dims, strict=True))
    return TensorSpec(tensor.name, tensor.data_type, dims)
