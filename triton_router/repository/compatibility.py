"""Whether a target can answer every request that its routed model accepts, read from the two configurations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_router.repository.model_config import DataType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInput, ModelOutput


def incompatibilities(routed: ModelConfig, target: ModelConfig) -> list[str]:
    """Return why ``target`` cannot stand in for ``routed``, one sentence each; empty if it can.

    Shapes are compared as clients see them: a batch dimension counts, whether Triton adds it
    (``max_batch_size`` > 0) or the dims spell it out. A side that declares no inputs or no outputs leaves
    them to be completed at load, and is not compared there.
    """
    found: list[str] = []
    if routed.max_batch_size > 0 and 0 < target.max_batch_size < routed.max_batch_size:
        found.append(
            f"it takes batches of at most {target.max_batch_size}, the routed model up to {routed.max_batch_size}"
        )
    if routed.input and target.input:
        found += _inputs(routed, target)
    if routed.output and target.output:
        found += _outputs(routed, target)
    return found


def _inputs(routed: ModelConfig, target: ModelConfig) -> list[str]:
    found: list[str] = []
    theirs = {item.name: item for item in target.input}
    for ours in routed.input:
        if ours.name not in theirs:
            found.append(f"it has no input {ours.name!r}")
            continue
        other = theirs[ours.name]
        found += _datatypes("input", ours, other)
        # What a client may send to the routed model must be acceptable to the target.
        if not _covers(_shape(target, other.dims), _shape(routed, ours.dims)):
            found.append(
                f"input {ours.name!r} takes shape {_shape(target, other.dims)}, "
                f"the routed model accepts {_shape(routed, ours.dims)}"
            )
        if ours.optional and not other.optional:
            found.append(f"input {ours.name!r} is required, the routed model makes it optional")
    known = {item.name for item in routed.input}
    found += [
        f"it needs an input {other.name!r}, which the routed model does not have"
        for other in target.input
        if other.name not in known and not other.optional
    ]
    return found


def _outputs(routed: ModelConfig, target: ModelConfig) -> list[str]:
    found: list[str] = []
    theirs = {item.name: item for item in target.output}
    for ours in routed.output:
        if ours.name not in theirs:
            found.append(f"it has no output {ours.name!r}")
            continue
        other = theirs[ours.name]
        found += _datatypes("output", ours, other)
        # What the target answers must be what the routed model declares.
        if not _covers(_shape(routed, ours.dims), _shape(target, other.dims)):
            found.append(
                f"output {ours.name!r} has shape {_shape(target, other.dims)}, "
                f"the routed model declares {_shape(routed, ours.dims)}"
            )
    return found


def _datatypes(role: str, ours: ModelInput | ModelOutput, other: ModelInput | ModelOutput) -> list[str]:
    if ours.data_type == other.data_type:
        return []
    mine, its = DataType.Name(ours.data_type), DataType.Name(other.data_type)
    return [f"{role} {ours.name!r} is {its}, the routed model declares {mine}"]


def _shape(config: ModelConfig, dims: Sequence[int]) -> list[int]:
    return [-1, *dims] if config.max_batch_size > 0 else list(dims)


def _covers(wide: Sequence[int], narrow: Sequence[int]) -> bool:
    """Whether every shape that fits ``narrow`` fits ``wide``."""
    return len(wide) == len(narrow) and all(one in {-1, other} for one, other in zip(wide, narrow, strict=True))
