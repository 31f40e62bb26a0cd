"""How far a variant's answers may be from the reference's: one table, one reason per row."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What one precision is allowed.

    Attributes:
        relative: Largest difference, as a share of the largest magnitude in the reference's output; infinite where
            single elements say nothing.
        cosine: Smallest cosine similarity between the output and the reference's.
        agreement: Smallest share of equal elements in integer, boolean and text outputs, and of equal rows in those of
            ``argmax``.
        reason: Why these numbers.
        argmax: Names of the outputs of which only the position of each row's largest element counts.
        ignore: Names of the outputs that are not compared.
    """

    relative: float
    cosine: float
    agreement: float
    reason: str
    argmax: frozenset[str] = frozenset()
    ignore: frozenset[str] = frozenset()

    def adjusted(
        self, relative: float | None = None, cosine: float | None = None, agreement: float | None = None
    ) -> Tolerance:
        """Return it with the bounds that somebody has set; None leaves one as it is."""
        if relative is None and cosine is None and agreement is None:
            return self
        return replace(
            self,
            relative=self.relative if relative is None else relative,
            cosine=self.cosine if cosine is None else cosine,
            agreement=self.agreement if agreement is None else agreement,
            reason="as set",
        )

    def of_outputs(self, *, argmax: frozenset[str], ignore: frozenset[str]) -> Tolerance:
        """Return it for a model some of whose outputs count in part, or not at all."""
        return replace(self, argmax=argmax, ignore=ignore)


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
"""From the strictest to the loosest."""

_MARKS = (
    ("int8", "int8"),
    ("int4", "int8"),
    ("fp8", "int8"),
    ("fp16", "fp16"),
    ("coreml", "fp16"),
    ("tensorrt", "fp16"),
)
"""What in a variant's name says how it computes: Core ML and TensorRT do it in fp16."""


def precision(variant: str) -> str:
    """Return the row of the table for a variant such as ``onnx-int8``."""
    return next((name for mark, name in _MARKS if mark in variant), "fp32")


def allowed(variant: str, reference: str, *, same_device: bool) -> Tolerance:
    """Return how far two variants' answers may be apart: what the less precise of them is allowed.

    Args:
        variant: The one.
        reference: The other.
        same_device: Whether both run on the same kind of device. On another one, what is called fp32 may be computed
            with as few bits as fp16: NVIDIA's TF32 has its mantissa, and the Neural Engine computes in fp16.
    """
    names = list(TOLERANCES)
    rows = [names.index(precision(variant)), names.index(precision(reference))]
    if not same_device:
        rows.append(names.index("fp16"))
    return TOLERANCES[names[max(rows)]]
