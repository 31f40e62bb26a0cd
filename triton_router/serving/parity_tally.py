"""What comparisons have found of one target so far, for metrics and status."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from triton_router.parity.difference import Difference


class Tally:
    """One target's comparisons since the model was loaded.

    Attributes:
        agreed, differed, failed: How many there were of each kind; one that failed had nothing to compare.
        relative: Largest difference of a floating point element, as a share of the largest magnitude in its output.
        cosine: Smallest cosine similarity of a floating point output.
        agreement: Smallest share of equal elements of other outputs.
        last: The latest divergence, in JSON's types; None if there was none.
    """

    def __init__(self) -> None:
        self.agreed = self.differed = self.failed = 0
        self.relative = 0.0
        self.cosine = self.agreement = 1.0
        self.last: dict[str, object] | None = None

    def note(self, found: Difference, *, agrees: bool) -> None:
        """Count a comparison."""
        self.agreed += agrees
        self.differed += not agrees
        if isfinite(found.relative):
            self.relative = max(self.relative, found.relative)
        self.cosine = min(self.cosine, found.cosine)
        self.agreement = min(self.agreement, found.agreement)

    def status(self) -> dict[str, object]:
        """Return it in JSON's types."""
        return {
            "agreed": self.agreed,
            "differed": self.differed,
            "failed": self.failed,
            "largest_difference": self.relative,
            "smallest_cosine": self.cosine,
            "smallest_agreement": self.agreement,
            "last": self.last,
        }
