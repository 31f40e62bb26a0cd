"""How far a variant may be from its fp32 parent: one table, one reason per row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from triton_router.repository.build.samples import Array, Tensors


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What one precision is allowed.

    Attributes:
        relative: Largest difference, as a share of the largest magnitude in the parent's output; infinite where
            single elements say nothing.
        cosine: Smallest cosine similarity between the output and the parent's.
        agreement: Smallest share of equal elements in integer, boolean and text outputs.
        reason: Why these numbers.
    """

    relative: float
    cosine: float
    agreement: float
    reason: str


TOLERANCES: dict[str, Tolerance] = {
    "fp32": Tolerance(
        1e-3, 0.99999, 1.0, "another order of summation: measured differences are below 1e-5 of the largest value"
    ),
    "fp16": Tolerance(
        5e-2, 0.999, 0.99, "11 bits of mantissa: 5e-4 per operation, growing with the depth of the network"
    ),
    "int8": Tolerance(
        float("inf"),
        0.9,
        0.8,
        "8 bits per activation: single elements may be far off, the direction of an output must stay",
    ),
}


def precision(variant: str) -> str:
    """Return the row of the table for a variant such as ``onnx-int8``."""
    return next((name for name in ("int8", "fp16") if name in variant), "fp32")


@dataclass(frozen=True, slots=True)
class Difference:
    """How two sets of outputs differ; of several, the worst.

    Attributes:
        absolute: Largest absolute difference of a floating point element.
        relative: The same as a share of the largest magnitude of the expected output.
        rms: Root mean square of the difference, as a share of the expected output's.
        cosine: Smallest cosine similarity of a floating point output.
        agreement: Smallest share of equal elements of any other output.
        problem: What makes the outputs incomparable (a shape, a type, a NaN); empty if nothing.
    """

    absolute: float = 0.0
    relative: float = 0.0
    rms: float = 0.0
    cosine: float = 1.0
    agreement: float = 1.0
    problem: str = ""

    def worst(self, other: Difference) -> Difference:
        """Return the worse of both in every respect."""
        return Difference(
            max(self.absolute, other.absolute),
            max(self.relative, other.relative),
            max(self.rms, other.rms),
            min(self.cosine, other.cosine),
            min(self.agreement, other.agreement),
            self.problem or other.problem,
        )

    def exceeds(self, tolerance: Tolerance) -> str:
        """Return in words what is beyond the tolerance; empty if nothing is."""
        if self.problem:
            return self.problem
        if self.relative > tolerance.relative:
            return f"differs by {self.relative:.2g} of the largest value, more than {tolerance.relative:.2g}"
        if self.cosine < tolerance.cosine:
            return f"cosine similarity {self.cosine:.4f} is below {tolerance.cosine}"
        if self.agreement < tolerance.agreement:
            return f"only {self.agreement:.1%} of the integer elements agree, fewer than {tolerance.agreement:.0%}"
        return ""


def difference(actual: Tensors, expected: Tensors) -> Difference:
    """Compare two sets of outputs, name by name."""
    if set(actual) != set(expected):
        return Difference(problem=f"has the outputs {sorted(actual)}, the parent has {sorted(expected)}")
    found = Difference()
    for name, value in expected.items():
        found = found.worst(_compare(name, actual[name], value))
    return found


def _compare(name: str, actual: Array, expected: Array) -> Difference:
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return Difference(
            problem=f"output {name!r} is {actual.dtype}{list(actual.shape)}, "
            f"the parent's is {expected.dtype}{list(expected.shape)}"
        )
    if not np.issubdtype(expected.dtype, np.floating):
        return Difference(agreement=float(np.mean(actual == expected)) if expected.size else 1.0)
    left, right = actual.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(right)
    if not np.array_equal(left[~finite], right[~finite], equal_nan=True) or not np.isfinite(left[finite]).all():
        return Difference(problem=f"output {name!r} has NaN or infinite elements where the parent has not")
    return _numbers(left[finite], right[finite])


def _numbers(left: Array, right: Array) -> Difference:
    if not right.size:
        return Difference()
    absolute = float(np.max(np.abs(left - right)))
    largest = float(np.max(np.abs(right)))
    length = float(np.linalg.norm(right))
    norms = float(np.linalg.norm(left)) * length
    rms = float(np.linalg.norm(left - right)) / max(length, 1e-6)
    # A constant zero has no direction; then the absolute difference alone speaks.
    cosine = float(np.dot(left, right)) / norms if norms > 0 else float(absolute == 0.0)
    return Difference(absolute, absolute / max(largest, 1e-6), rms, min(cosine, 1.0))
