"""From ``execute()`` to the answer: decide, call the target in a worker, relay, account.

``execute()`` returns at once, so that Triton keeps handing over requests and the targets' dynamic batchers see
them all. Three laws of the stub process hold throughout, each paid for with a crash or a hang of the server when
broken: a request that was taken is answered, whatever happens; nothing is asked of a request after its last
response; and an exception never leaves ``execute()`` once a request is under way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

from triton_router.errors import RequestCancelledError, TritonRouterError
from triton_router.routing.types import Outcome, RoutingDecision, Verdict
from triton_router.serving.sequences import SequenceLanes
from triton_router.serving.stub import SEQUENCE_END, SEQUENCE_START

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from triton_router.routing.engine import RoutingEngine
    from triton_router.serving.forwarding import Forwarder
    from triton_router.serving.inline_gate import InlineGate
    from triton_router.serving.relay import Relay
    from triton_router.serving.stub import Request, Response, ResponseSender
    from triton_router.serving.worker_pool import WorkerPool

_STALE_S = 0.005
"""A request that waited longer for a worker is asked whether its client is still there; asking costs 85 us."""


class Call(NamedTuple):
    """One request under way: taken from Triton, decided, not yet answered. ``decided_at`` is in monotonic seconds."""

    request: Request
    decision: RoutingDecision
    decided_at: float


class Dispatcher:
    """Serves the requests of one routed model. `execute` is called by one thread.

    Args:
        engine: Chooses the target.
        forwarder: Tells the engine what is asked.
        relay: Calls the target and answers the client.
        pool: Where calls wait for their targets.
        gate: Says when no thread is needed.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        engine: RoutingEngine,
        forwarder: Forwarder,
        relay: Relay,
        pool: WorkerPool,
        gate: InlineGate,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._forwarder = forwarder
        self._relay = relay
        self._pool = pool
        self._gate = gate
        self._clock = clock
        self._lanes: SequenceLanes[tuple[Call, ResponseSender]] = SequenceLanes()
        # Appending and popping are atomic, which counting is not.
        self._under_way: list[None] = []

    def execute(self, requests: Iterable[Request]) -> list[Response] | None:
        """Take the requests of one execution.

        Returns:
            None where the answers go through the requests' senders; the one answer of a request served inline.
        """
        batch = list(requests)
        if self._gate.opens(requests=len(batch), in_flight=len(self._under_way)) and not batch[0].correlation_id():
            return [self._serve_inline(batch[0])]
        for request in batch:
            self._take(request)
        return None

    def close(self) -> None:
        """Answer what is under way, then end the workers."""
        self._pool.close()

    def _serve_inline(self, request: Request) -> Response:
        try:
            call = self._decided(request, "")
        except Exception as error:  # noqa: BLE001 - whatever it is, the client must hear of it
            return self._relay.broken(error)
        verdict, response = self._answer(call, None)
        self._finish(call, verdict, self._clock())
        return cast("Response", response)  # only streams end without one, and they are never served inline

    def _take(self, request: Request) -> None:
        sender = request.get_response_sender()
        try:
            correlation_id = request.correlation_id()
            if correlation_id:
                self._take_in_sequence(request, sender, correlation_id)
                return
            call = self._decided(request, "")
        except Exception as error:  # noqa: BLE001 - whatever it is, the client must hear of it
            self._relay.send_last(sender, self._relay.broken(error))
            return
        self._under_way.append(None)
        self._pool.submit(lambda: self._serve(call, sender))

    def _take_in_sequence(self, request: Request, sender: ResponseSender, correlation_id: int | str) -> None:
        flags = request.flags()
        lane = self._lanes.lane(correlation_id, start=bool(flags & SEQUENCE_START))
        call = self._decided(request, lane.target)
        lane.target = call.decision.target.name
        if flags & SEQUENCE_END:
            self._lanes.end(correlation_id)
        self._under_way.append(None)
        if self._lanes.enqueue(lane, (call, sender)):
            self._pool.submit(lambda: self._lanes.drain(lane, lambda taken: self._serve(*taken)))

    def _decided(self, request: Request, pinned: str) -> Call:
        now = self._clock()
        return Call(request, self._engine.decide(self._forwarder.context(request, pinned), now), now)

    def _serve(self, call: Call, sender: ResponseSender) -> None:
        verdict, last = self._answer(call, sender)
        answered_at = self._clock()
        # Before the answer goes out: its receiver's next request must not find this one still under way.
        self._under_way.pop()
        self._relay.send_last(sender, last)
        # After it: the client does not wait for the learning.
        self._finish(call, verdict, answered_at)

    def _finish(self, call: Call, verdict: Verdict, answered_at: float) -> None:
        outcome = Outcome(verdict, (answered_at - call.decided_at) * 1e3)
        self._engine.finish(call.decision, outcome, answered_at)

    def _answer(self, call: Call, sender: ResponseSender | None) -> tuple[Verdict, Response | None]:
        """Call the target and return the verdict and the last response, whatever happens on the way."""
        before = self._clock()
        try:
            self._refuse_if_cancelled(call, before)
            answer = self._relay.answer(call.decision.target, call.request, sender)
        except TritonRouterError as error:
            cancelled = isinstance(error, RequestCancelledError)
            return (Verdict.CANCELLED if cancelled else Verdict.CLIENT_ERROR), self._relay.refused(error)
        except Exception as error:  # noqa: BLE001 - a worker that dies leaves its client waiting for ever
            return Verdict.TARGET_ERROR, self._relay.broken(error)
        self._gate.called(self._clock() - before)
        return answer

    @staticmethod
    def _refuse_if_cancelled(call: Call, now: float) -> None:
        if now - call.decided_at > _STALE_S and call.request.is_cancelled():
            raise RequestCancelledError("the client cancelled the request before it reached a target")
