"""Decisions whose outcomes are awaited. A caller that forgets one keeps its slot for a while, not for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from triton_router.routing.types import RoutingDecision

Owner = TypeVar("Owner")


class Leases(Generic[Owner]):
    """Open decisions, each with whom it belongs to, in the order of their deadlines.

    Args:
        timeout_s: How long an outcome is awaited.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._open: dict[RoutingDecision, tuple[Owner, float]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def add(self, decision: RoutingDecision, owner: Owner, now: float) -> None:
        """Await an outcome from ``now`` on (monotonic seconds)."""
        self._open[decision] = (owner, now + self.timeout_s)

    def take(self, decision: RoutingDecision) -> Owner | None:
        """Return whom the decision belongs to and await it no more; None if it was not awaited."""
        owner, _ = self._open.pop(decision, (None, 0.0))
        return owner

    def expired(self, now: float) -> Iterator[tuple[RoutingDecision, Owner]]:
        """Yield what has been awaited for too long, and await it no more."""
        while self._open:
            decision, (owner, deadline) = next(iter(self._open.items()))
            if deadline > now:
                return
            del self._open[decision]
            yield decision, owner
