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
_SHORT_CALL_S = 0.001
_SMOOTHING = 0.1
_OUTLIER = 3.0


class InlineGate:
    """Watches the executions of one routed model. Used by its ``execute()`` thread only, but for `called`."""

    __slots__ = ("_enabled", "_mean_call_s", "_run")

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._run = 0
        self._mean_call_s = 0.0

    def opens(self, *, requests: int, in_flight: int) -> bool:
        """Whether this execution's request may be served inline.

        Args:
            requests: Requests in this execution.
            in_flight: Requests dispatched earlier and not yet answered.
        """
        if requests != 1 or in_flight:
            self._run = 0
            return False
        self._run += 1
        return (
            self._enabled
            and self._run > _LONELY_RUN
            and self._run % _LOOK_EVERY != 0
            and 0.0 < self._mean_call_s < _SHORT_CALL_S
        )

    def called(self, seconds: float) -> None:
        """Note how long a call to a target took."""
        if self._mean_call_s == 0.0:
            self._mean_call_s = seconds
        else:
            # One call that a busy machine held up must not close the gate for the next twenty.
            bounded = min(seconds, _OUTLIER * self._mean_call_s)
            self._mean_call_s += _SMOOTHING * (bounded - self._mean_call_s)
