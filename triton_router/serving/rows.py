"""Which requests can run as one batch, and how their tensors are joined and taken apart again. Pure.

Requests run together when they have the same inputs with the same datatypes and the same shapes but for the
batch dimension. Order is kept: the answers of a group are slices in the order of its requests. The backends that
execute models do this with the requests of one ``execute()``; the router with those that wait for one target.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Tensors = Mapping[str, NDArray[np.generic]]


def groups(requests: Sequence[Tensors], max_batch_size: int) -> list[list[int]]:
    """Return the indices of the requests that can run as one batch.

    Args:
        requests: Each request's inputs by name, first dimension the batch.
        max_batch_size: Most rows of one batch; 0 means that the model has no batch dimension and nothing merges.
    """
    if max_batch_size <= 0:
        return [[index] for index in range(len(requests))]
    found: list[list[int]] = []
    open_groups: dict[tuple[object, ...], tuple[list[int], int]] = {}
    for index, inputs in enumerate(requests):
        rows = batch_rows(inputs)
        if rows is None:
            found.append([index])
            continue
        key = layout(inputs)
        members, used = open_groups.get(key, ([], 0))
        if not members or used + rows > max_batch_size:
            members, used = [], 0
            found.append(members)
        members.append(index)
        open_groups[key] = members, used + rows
    return found


def layout(inputs: Tensors) -> tuple[object, ...]:
    """Return what requests must have in common to run together: names, datatypes and shapes of a row."""
    return tuple(sorted((name, tensor.dtype.str, tensor.shape[1:]) for name, tensor in inputs.items()))


def batch_rows(inputs: Tensors) -> int | None:
    """Return the batch size all inputs share; None if they have no inputs or do not agree."""
    sizes = {tensor.shape[0] if tensor.ndim else None for tensor in inputs.values()}
    return sizes.pop() if len(sizes) == 1 else None


def joined(requests: Sequence[Tensors]) -> dict[str, NDArray[np.generic]]:
    """Return the inputs of one group as one batch; a single request's tensors are passed on without a copy."""
    if len(requests) == 1:
        return dict(requests[0])
    return {name: np.concatenate([request[name] for request in requests]) for name in requests[0]}


def separated(outputs: Tensors, rows: Sequence[int]) -> list[dict[str, NDArray[np.generic]]] | None:
    """Cut a batch's outputs into one part per request.

    Returns:
        The parts, as views; None if an output's first dimension is not the batch, so that it cannot be cut.
    """
    total = sum(rows)
    if any(tensor.ndim == 0 or tensor.shape[0] != total for tensor in outputs.values()):
        return None
    edges = np.cumsum([0, *rows])
    return [{name: tensor[start:end] for name, tensor in outputs.items()} for start, end in itertools.pairwise(edges)]
