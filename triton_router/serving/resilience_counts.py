"""What happened on a routed model's bad days: counts for its status and metrics.

Only what goes wrong is counted here, so that a lock for it costs nothing where all is well.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES: tuple[str, ...] = (
    "retries",
    "retries_helped",
    "hedges",
    "hedges_won",
    "overdue",
    "deadline_errors_waiting",
    "deadline_errors_target",
    "refused_full",
    "refused_displaced",
    "refused_late",
)
"""Every count; docs/failover.md describes each.

``retries`` and ``hedges`` are attempts beyond the first, those that ``helped`` or ``won`` answered the client.
``overdue`` are attempts given up. Deadline errors are split by where the request was: ``waiting`` in the router, or at
a ``target``. Requests are refused because the queue is ``full``, because a more urgent one took their place
(``displaced``), or because they would be answered too ``late``.
"""


_METRICS = {
    **{
        name: f"triton_router_{name}_total" for name in ("retries", "retries_helped", "hedges", "hedges_won", "overdue")
    },
    **{name: f"triton_router_{name}" for name in ("under_way", "waiting", "abandoned")},
    "deadline_errors_waiting": "triton_router_deadline_errors_total{at=router}",
    "deadline_errors_target": "triton_router_deadline_errors_total{at=target}",
    **{f"refused_{why}": f"triton_router_refused_total{{why={why}}}" for why in ("full", "displaced", "late")},
}


def as_metrics(counts: Mapping[str, float], denied: Mapping[str, float]) -> dict[str, float]:
    """Return counts by the names of their metrics.

    Args:
        counts: `Dispatcher.resilience_counts`.
        denied: Attempts that the engine did not grant, by why.
    """
    metrics = {_METRICS[name]: value for name, value in counts.items()}
    return metrics | {f"triton_router_retries_denied_total{{why={why}}}": n for why, n in denied.items()}


class ResilienceCounts:
    """The counts of one routed model. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts = dict.fromkeys(NAMES, 0)

    def add(self, name: str) -> None:
        """Count one more."""
        with self._lock:
            self._counts[name] += 1

    def as_dict(self) -> dict[str, int]:
        """Return all of them by name."""
        with self._lock:
            return dict(self._counts)
