"""Which targets there were at each moment of a decision log: they come and go by edits of ``router.yaml``.

A decision names whom it was made among and who was rejected. Where it rated one target alone it may have left others
out (``fallback: false``), and proves nobody's absence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from triton_router.telemetry.decision_format import Record
    from triton_router.telemetry.decision_reading import DecisionTrace

WITHOUT_CHOICE = frozenset({"sequence", "mirror", "shadow", "retry", "hedge"})
"""Reasons of decisions in which no policy had a say. Some targets were taken away from them."""
_RATED_BY_ALL_MEANS = 2


class Presence:
    """The targets of a log as it is walked through.

    Args:
        trace: The log.

    Attributes:
        names: Who is there.
    """

    def __init__(self, trace: DecisionTrace) -> None:
        self.names = trace.at_first or frozenset(target.name for target in trace.targets)
        self._ever = self.names
        for record in trace.records:
            if record.reason not in WITHOUT_CHOICE:
                self.see(record)
                break

    def see(self, record: Record) -> bool:
        """Take note of a decision; whether somebody came or went before it."""
        before = self.names
        if record.reason in WITHOUT_CHOICE:
            # A sequence stays with a target that has been removed.
            if record.target not in self._ever:
                self.names |= {record.target}
        elif len(record.considered) >= _RATED_BY_ALL_MEANS:
            self.names = frozenset(record.named)
        else:
            self.names |= frozenset(record.named)
        self._ever |= self.names
        return self.names != before
