"""Example inputs at several sizes, made from a few real ones.

Values stay within what the examples hold, so that embedding look-ups, masks and logarithms stay valid: whole rows
are picked, dimensions are cut or tiled, and floating point rows get noise clipped to the examples' range. Where
the examples have only one row, integers with more than two values are drawn again from those values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from triton_router.repository.build.job import IoSpec, TensorSpec
    from triton_router.repository.build.samples import Array, Tensors

BATCHES = (1, 2, 3, 8)
"""One row, the two that exporters confuse with one, an odd number, and one that fills vector units."""
UNBOUNDED = 1 << 16
_GUESSES = (16, 224)
"""Sizes tried for a dynamic dimension that nothing is known of: a short text, a usual picture."""


def sizes(io: IoSpec, example: dict[str, int]) -> list[dict[str, int]]:
    """Return the combinations of symbol sizes to sample, the smallest first.

    Args:
        io: Symbols and their bounds.
        example: Size of each symbol in the examples.
    """
    others = [axis for axis in symbols(io) if axis != io.batch_axis]
    middle = {axis: _clamp(io, axis, example[axis]) for axis in others}
    low = {axis: _clamp(io, axis, size // 2) for axis, size in middle.items()}
    high = {axis: _clamp(io, axis, size * 2) for axis, size in middle.items()}
    if not io.batch_axis:
        return _unique([low, middle, high])
    batches = [_clamp(io, io.batch_axis, batch) for batch in BATCHES]
    chosen = [{**middle, io.batch_axis: batch} for batch in batches]
    chosen += [{**low, io.batch_axis: batches[1]}, {**high, io.batch_axis: batches[-1]}]
    return _unique(chosen)


def symbols(io: IoSpec) -> tuple[str, ...]:
    """Return the symbols of the inputs in order of appearance."""
    return tuple(dict.fromkeys(axis for spec in io.inputs for axis in spec.axes if axis))


def example_sizes(io: IoSpec, examples: Tensors) -> dict[str, int]:
    """Return the size that each symbol has in the examples."""
    return {
        axis: size
        for spec in io.inputs
        for axis, size in zip(spec.axes, examples[spec.name].shape, strict=True)
        if axis
    }


def resized(io: IoSpec, examples: Tensors, wanted: dict[str, int], rng: np.random.Generator) -> Tensors:
    """Return inputs of the ``wanted`` sizes."""
    rows = wanted.get(io.batch_axis, 0)
    present = example_sizes(io, examples).get(io.batch_axis, 0)
    # The same rows of every input belong together: a mask and its tokens.
    picked = rng.permutation(np.arange(rows) % present) if rows else None
    return {
        spec.name: _resize(
            spec, examples[spec.name], wanted, picked if spec.axes[:1] == (io.batch_axis,) else None, rng
        )
        for spec in io.inputs
    }


def invented(io: IoSpec, limits: dict[str, int], rng: np.random.Generator, guess: int = 0) -> Tensors:
    """Return plausible inputs for a model that came without examples.

    Args:
        io: Names, types, shapes.
        limits: Exclusive upper bound of an integer input, where it indexes a table.
        rng: Source of randomness.
        guess: Which guess to take for dimensions that nothing is known of.
    """
    unknown = _GUESSES[guess % len(_GUESSES)]
    sized = {axis: _clamp(io, axis, 3 if axis == io.batch_axis else unknown) for axis in symbols(io)}
    return {
        spec.name: _invent(
            spec,
            tuple(sized[axis] if axis else size for axis, size in zip(spec.axes, spec.shape, strict=True)),
            limits.get(spec.name, 2),
            rng,
        )
        for spec in io.inputs
    }


GUESS_COUNT = len(_GUESSES)


def _invent(spec: TensorSpec, shape: tuple[int, ...], limit: int, rng: np.random.Generator) -> Array:
    if spec.datatype == "BYTES":
        return np.full(shape, "example", dtype=np.object_)
    dtype = NUMPY_TYPES[spec.datatype]
    if spec.datatype.startswith("FP"):
        return np.asarray(np.clip(rng.standard_normal(shape), -3, 3), dtype)
    if spec.datatype != "BOOL" and limit > 2:
        return np.asarray(rng.integers(0, limit, shape), dtype)
    # A mask of zeros only makes many models divide by zero: mostly ones, and always one in front.
    mask = np.asarray(rng.random(shape) < 0.8)
    if mask.ndim > 1:
        mask[..., 0] = True
    return mask.astype(dtype)


NUMPY_TYPES: dict[str, type[np.generic]] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}
"""KServe v2 name to numpy type; BF16 has none."""


def kserve_name(dtype: np.dtype[np.generic]) -> str:
    """Return the KServe v2 name of a numpy type.

    Raises:
        KeyError: Triton has no such type.
    """
    return {np.dtype(kind): name for name, kind in NUMPY_TYPES.items()}[dtype]


def _resize(
    spec: TensorSpec,
    example: Array,
    wanted: dict[str, int],
    picked: Array | None,
    rng: np.random.Generator,
) -> Array:
    value = example
    for position, axis in enumerate(spec.axes):
        if axis and not (position == 0 and picked is not None):
            value = np.take(value, np.arange(wanted[axis]) % value.shape[position], axis=position)
    if picked is None:
        return value
    value = np.take(value, picked, axis=0)
    if not example.size:
        return value
    if np.issubdtype(value.dtype, np.floating):
        return _noisy(value, example, rng)
    if example.shape[0] == 1 and np.issubdtype(value.dtype, np.integer):
        seen = np.unique(example)
        if len(seen) > 2:
            value[1:] = rng.choice(seen, value[1:].shape)
    return value


def _noisy(value: Array, example: Array, rng: np.random.Generator) -> Array:
    spread = float(np.std(example)) if example.size > 1 else 1.0
    noisy = value + rng.standard_normal(value.shape) * spread
    return np.clip(noisy, np.min(example), np.max(example)).astype(value.dtype)


def _clamp(io: IoSpec, axis: str, size: int) -> int:
    low, high = io.bounds.get(axis, (1, UNBOUNDED))
    return max(low, min(high, size))


def _unique(items: list[dict[str, int]]) -> list[dict[str, int]]:
    return [item for index, item in enumerate(items) if item not in items[:index]]
