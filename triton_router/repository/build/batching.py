"""Does merging requests change an answer? f(concat) is held against concat(f)."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from triton_router.parity.difference import Difference, difference
from triton_router.parity.tolerance import TOLERANCES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from triton_router.repository.build.job import BatchVerdict
    from triton_router.repository.build.samples import Sample, Tensors

    Run = Callable[[Tensors], Tensors]


def batch_difference(run: Run, samples: Sequence[Sample]) -> Difference | None:
    """Return how far merged answers are from separate ones; None if no sample has two rows.

    Args:
        run: A model whose every input and output has the batch as dimension 0.
        samples: Inputs of any number of rows; those of one row are ignored.
    """
    found: Difference | None = None
    for sample in samples:
        rows = _rows(sample.inputs)
        if rows < 2:
            continue
        one = _difference(run, sample, rows)
        found = one if found is None else found.worst(one)
    return found


def _difference(run: Run, sample: Sample, rows: int) -> Difference:
    try:
        merged = run(sample.inputs)
        parts = [run(_slice(sample.inputs, start, end)) for start, end in pairwise(_edges(rows))]
        separate = {name: np.concatenate([part[name] for part in parts]) for name in merged}
    except (RuntimeError, AssertionError, ValueError) as error:
        return Difference(problem=f"cannot be called with other batch sizes: {str(error).splitlines()[:1]}")
    return difference(merged, separate)


def verdict(found: Difference | None, precision: str, parent: BatchVerdict) -> BatchVerdict:
    """Judge a difference.

    Args:
        found: What `batch_difference` returned.
        precision: Row of `TOLERANCES`.
        parent: The verdict on the fp32 parent, ``untested`` while that itself is judged.
    """
    if found is None:
        return "untested"
    # Another batch size takes other kernels: what fp32 allows between runtimes is no influence of other rows.
    if not found.exceeds(TOLERANCES["fp16" if precision == "fp16" else "fp32"]):
        return "independent"
    quantised = precision == "int8" and parent == "independent"
    return "quantisation" if quantised and not found.exceeds(TOLERANCES["int8"]) else "dependent"


def _edges(rows: int) -> list[int]:
    """Cut ``rows`` in a single row, some rows, and the rest."""
    return sorted({0, 1, 1 + (rows - 1) // 2, rows})


def _rows(inputs: Tensors) -> int:
    return min((int(value.shape[0]) if value.ndim else 0 for value in inputs.values()), default=0)


def _slice(inputs: Tensors, start: int, end: int) -> Tensors:
    return {name: value[start:end] for name, value in inputs.items()}
