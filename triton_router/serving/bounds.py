"""How long a request may take, and what its client is told when that time has passed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_router.errors import DeadlineError

if TYPE_CHECKING:
    from triton_router.serving.exchange import Attempt, Exchange

_DAY_MS = 86_400_000.0


class Bounds:
    """The bounds of one routed model's requests.

    Args:
        enforce: Whether a request is answered with an error when its time has passed.
        default_ms: The bound of requests that have none; 0 for none.
    """

    def __init__(self, *, enforce: bool = True, default_ms: float = 0.0) -> None:
        self.go_by(enforce=enforce, default_ms=default_ms)

    def go_by(self, *, enforce: bool, default_ms: float) -> None:
        """Go by these settings from now on."""
        self._enforce = enforce
        self.default_ms = default_ms

    def apply(self, exchange: Exchange, timeout_us: int) -> None:
        """Bound a request by what it asks for itself, the smaller of two, or else by the default.

        What it asks for bounds the choice of its target too; the default is only what nobody waits longer than.

        Args:
            exchange: Its context has the latency bound of the request's parameters, if there is one.
            timeout_us: Triton's ``timeout``, 0 for none.
        """
        context = exchange.context
        asked_ms = [ms for ms in (context.max_latency_ms, timeout_us / 1e3) if 0.0 < ms <= _DAY_MS]
        exchange.timeout_us = timeout_us
        context.max_latency_ms = min(asked_ms, default=0.0)
        exchange.bound_ms = context.max_latency_ms or self.default_ms
        if exchange.bound_ms and self._enforce:
            exchange.deadline = exchange.taken_at + exchange.bound_ms / 1e3


def deadline_error(exchange: Exchange, now: float) -> DeadlineError:
    """Return what the client of a request is told when its time has passed at ``now`` (monotonic seconds)."""
    # In the order in which they were asked; "did not serve" is true of one that had no room as well.
    asked = [f"target {decision.target.name!r} did not serve it" for decision in exchange.failed]
    asked += [_whereabouts(attempt, now) for attempt in exchange.attempts]
    where = ", ".join(asked) or "it was still waiting in the router, and no target was asked"
    return DeadlineError(
        f"no answer within {exchange.bound_ms:g} ms: {where}",
        hint="allow more time (router_max_latency_ms, timeout, deadline.default_ms), or send less at once",
    )


def _whereabouts(attempt: Attempt, now: float) -> str:
    target = f"target {attempt.decision.target.name!r}"
    if attempt.asked_at is None:
        return f"it was still waiting in the router for {target}, which was not asked"
    return f"{target} was asked {(now - attempt.asked_at) * 1e3:.0f} ms ago"
