"""From Triton's request to the first attempt at answering it: read, bounded in time, decided."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_router.serving.exchange import Attempt, Exchange

if TYPE_CHECKING:
    from collections.abc import Callable

    from triton_router.routing.engine import RoutingEngine
    from triton_router.routing.types import Target
    from triton_router.serving.bounds import Bounds
    from triton_router.serving.failover import Failover
    from triton_router.serving.forwarding import Forwarder
    from triton_router.serving.stub import Request


class Intake:
    """Reads and decides the requests of one routed model.

    Args:
        engine: Chooses the target.
        forwarder: Tells the engine what is asked.
        bounds: How long a request may take.
        failover: Says when a second target is to be asked.
        clock: Monotonic seconds.

    Attributes:
        bounds: As passed; its settings may be changed while requests are served.
    """

    def __init__(
        self,
        engine: RoutingEngine,
        forwarder: Forwarder,
        bounds: Bounds,
        failover: Failover,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._forwarder = forwarder
        self.bounds = bounds
        self._failover = failover
        self._clock = clock

    def read(self, request: Request, *, holder: Target | None = None, may_explore: bool = True) -> Exchange:
        """Return a request as an exchange, which has no sender yet. Raises what it asks for in vain.

        Args:
            request: As Triton gave it.
            holder: The target that holds its sequence's state, if there is one.
            may_explore: Whether it may go to a target to learn about that.
        """
        now = self._clock()
        wish = self._forwarder.wish(request)
        context = self._forwarder.context(request, wish, may_explore=may_explore)
        if holder is not None:
            context.pinned, context.holder = holder.name, holder
        elif self._engine.wants_keys and not context.key:
            context.key = self._forwarder.own_key(request)
        exchange = Exchange(request, context, now)
        if wish is not None:
            exchange.priority, exchange.wants_explanation = wish.priority, wish.explain
        timeout_us = request.timeout()
        if timeout_us or context.max_latency_ms or self.bounds.default_ms:
            self.bounds.apply(exchange, timeout_us)
        return exchange

    def decided(self, exchange: Exchange, now: float) -> Attempt:
        """Return the first attempt of a request, its slot reserved. Raises what `RoutingEngine.decide` raises."""
        if exchange.wants_explanation:
            exchange.explanation = self._engine.explain(exchange.context, now)
        attempt = Attempt(exchange, self._engine.decide(exchange.context, now), now)
        exchange.attempts = (attempt,)
        if self._failover.hedges:
            exchange.hedge_at = self._failover.hedge_at(attempt)
        return attempt
