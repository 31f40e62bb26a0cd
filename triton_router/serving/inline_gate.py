"""When ``execute()`` may call a target itself instead of handing the request to a worker.

A thread hop costs about 90 us: much for a lone client of a 200 us model, nothing under load. Serving inline
blocks ``execute()``, and while it blocks Triton holds further requests back: in flight then always reads zero, and
concurrency stays unseen. So a run of lonely executions is asked for first, and one request in so many goes
to a worker all the same, to look.
"""

from __future__ import annotations

_LONELY_RUN = 8
_LOOK_EVERY = 32
"""Unseen concurrency is served one by one for 32 requests at most: with calls under 1 ms, for 32 ms."""
_SHORT_MS = 1.0


class InlineGate:
    """Watches the executions of one routed model. Used by its ``execute()`` thread only."""

    __slots__ = ("_enabled", "_run")

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._run = 0

    def enable(self, *, enabled: bool) -> None:
        """Open from now on, or no more."""
        self._enabled = enabled

    def opens(self, *, requests: int, in_flight: int) -> bool:
        """Whether this execution's request may be served inline if it is short.

        Args:
            requests: Requests in this execution.
            in_flight: Requests dispatched earlier and not yet answered.
        """
        if requests != 1 or in_flight:
            self._run = 0
            return False
        self._run += 1
        return self._enabled and self._run > _LONELY_RUN and self._run % _LOOK_EVERY != 0

    @staticmethod
    def is_short(expected_latency_ms: float) -> bool:
        """Whether a request of this predicted latency may hold ``execute()`` up; an unknown one (0) may not."""
        return 0.0 < expected_latency_ms < _SHORT_MS
