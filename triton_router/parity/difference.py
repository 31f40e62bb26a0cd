"""How two answers to the same question differ, each type of element by what counts for it.

Floating point outputs by their largest difference and their direction; integers, booleans and strings by the share of
equal elements; outputs of which only the largest element counts (scores of classes) by the share of rows where it is
the same one. NaN and infinities are equal to themselves at the same place, and to nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from triton_router.parity.tolerance import Tolerance

    # Any element type: what a model answers is known when it has.
    Array = NDArray[Any]

_TINY = 1e-6
"""Outputs whose largest magnitude is smaller are held against this instead: nothing is a share of zero."""
_HUGE = 1e100
"""Values whose squares may be too large for a number."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How two sets of outputs differ; of several, the worst.

    Attributes:
        absolute: Largest absolute difference of a floating point element.
        relative: The same as a share of the largest magnitude of the expected output.
        rms: Root mean square of the difference, as a share of the expected output's.
        cosine: Smallest cosine similarity of a floating point output.
        agreement: Smallest share of equal elements of any other output, or of rows with the same largest element.
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
            return f"only {self.agreement:.1%} of the elements agree, fewer than {tolerance.agreement:.0%}"
        return ""


def difference(
    actual: Mapping[str, Array],
    expected: Mapping[str, Array],
    *,
    argmax: frozenset[str] = frozenset(),
    ignore: frozenset[str] = frozenset(),
) -> Difference:
    """Compare two sets of outputs, name by name.

    Args:
        actual: What is judged.
        expected: What is right.
        argmax: Names of outputs of which only the position of each row's largest element counts.
        ignore: Names of outputs that do not count.
    """
    if actual.keys() - ignore != expected.keys() - ignore:
        return Difference(problem=f"has the outputs {sorted(actual)}, the parent has {sorted(expected)}")
    found = Difference()
    for name, value in expected.items():
        if name not in ignore:
            found = found.worst(_compare(name, actual[name], value, ranked=name in argmax))
    return found


def _compare(name: str, actual: Array, expected: Array, *, ranked: bool) -> Difference:
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return Difference(
            problem=f"output {name!r} is {actual.dtype}{list(actual.shape)}, "
            f"the parent's is {expected.dtype}{list(expected.shape)}"
        )
    if not expected.size:
        return Difference()
    if ranked and expected.ndim and expected.dtype != np.object_:
        return Difference(agreement=float(np.mean(_largest(actual) == _largest(expected))))
    if not np.issubdtype(expected.dtype, np.floating):
        return Difference(agreement=float(np.mean(actual == expected)))
    return _floats(name, actual, expected)


def _floats(name: str, actual: Array, expected: Array) -> Difference:
    left, right = actual.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(right)
    if not np.isfinite(left[finite]).all():
        return Difference(problem=f"output {name!r} has NaN or infinite elements where the parent has not")
    if not np.array_equal(left[~finite], right[~finite], equal_nan=True):
        return Difference(problem=f"output {name!r} is not NaN or infinite where the parent is")
    return _numbers(left[finite], right[finite])


def _largest(values: Array) -> Array:
    """Return the position of each row's largest element; the first NaN, where there is one."""
    return np.argmax(values, axis=-1)


def _numbers(left: Array, right: Array) -> Difference:
    if not right.size:
        return Difference()
    with np.errstate(over="ignore"):  # two enormous values may be more than a number apart: infinitely far
        absolute = float(np.max(np.abs(left - right)))
    largest = float(np.max(np.abs(right)))
    extreme = max(largest, float(np.max(np.abs(left))))
    if extreme > _HUGE:
        left, right = left / extreme, right / extreme
    length = float(np.linalg.norm(right))
    norms = float(np.linalg.norm(left)) * length
    rms = float(np.linalg.norm(left - right)) / max(length, _TINY)
    # A constant zero has no direction; then the absolute difference alone speaks.
    cosine = float(np.dot(left, right)) / norms if norms > 0 else float(absolute == 0.0)
    return Difference(absolute, absolute / max(largest, _TINY), rms, min(cosine, 1.0))
