"""From ``execute()`` to the answer: decide, call the target in a worker, relay, account.

``execute()`` returns at once, so that Triton keeps handing over requests and the targets' dynamic batchers see
them all. Three laws of the stub process hold throughout, each paid for with a crash or a hang of the server when
broken: a request that was taken is answered, whatever happens; nothing is asked of a request after its last
response; and an exception never leaves ``execute()`` once a request is under way.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, NamedTuple

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
        """Take the requests of one execution. Never raises.

        Returns:
            None where the answers go through the requests' senders; the one answer of a request served inline.
        """
        batch = list(requests)
        if self._gate.opens(requests=len(batch), in_flight=len(self._under_way)):
            response = self._serve_inline(batch[0])
            if response is not None:
                return [response]
            return None
        for request in batch:
            self._take(request)
        return None

    def close(self) -> None:
        """Answer what is under way, then end the workers."""
        self._pool.close()

    def _serve_inline(self, request: Request) -> Response | None:
        """Answer a lone request by return, or take it like any other (None) if it is long or of a sequence."""
        try:
            if request.correlation_id():
                self._take(request)
                return None
            call = self._decided(request)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client must hear of it
            return self._relay.broken(error)
        if not self._gate.is_short(call.decision.expected_latency_ms):
            self._take(request, call)
            return None
        verdict, response = self._answer(call, None)
        self._finish(call, verdict, self._clock())
        return response

    def _take(self, request: Request, call: Call | None = None) -> None:
        """Have a worker answer a request, which may be decided already."""
        sender = request.get_response_sender()
        try:
            correlation_id = 0 if call else request.correlation_id()
            if correlation_id:
                self._take_in_sequence(request, sender, correlation_id)
            else:
                decided = call or self._decided(request)
                self._hand_over(decided, lambda: self._serve(decided, sender))
        except Exception as error:  # noqa: BLE001 - whatever it is, the client must hear of it
            self._relay.send_last(sender, self._relay.broken(error))

    def _take_in_sequence(self, request: Request, sender: ResponseSender, correlation_id: int | str) -> None:
        flags = request.flags()
        lane = self._lanes.lane(correlation_id, start=bool(flags & SEQUENCE_START))
        if flags & SEQUENCE_END:
            self._lanes.end(correlation_id)
        call = self._decided(request, pinned=lane.target, may_explore=False)
        lane.target = call.decision.target.name
        if self._lanes.enqueue(lane, (call, sender)):
            self._hand_over(call, lambda: self._lanes.drain(lane, lambda taken: self._serve(*taken)))
        else:
            self._under_way.append(None)

    def _hand_over(self, call: Call, job: Callable[[], None]) -> None:
        self._under_way.append(None)
        try:
            self._pool.submit(job)
        except BaseException:
            self._under_way.pop()
            self._finish(call, Verdict.CANCELLED, self._clock())
            raise

    def _decided(self, request: Request, *, pinned: str = "", may_explore: bool = True) -> Call:
        now = self._clock()
        context = self._forwarder.context(request, pinned=pinned, may_explore=may_explore)
        return Call(request, self._engine.decide(context, now), now)

    def _serve(self, call: Call, sender: ResponseSender) -> None:
        verdict, last = self._answer(call, sender)
        answered_at = self._clock()
        # Before the answer goes out: its receiver's next request must not find this one still under way.
        self._under_way.pop()
        try:
            self._relay.send_last(sender, last)
        except Exception as error:  # noqa: BLE001 - /dev/shm may be full; a short error may still fit
            traceback.print_exc()
            self._relay.send_last(sender, self._relay.broken(error))
        finally:
            # After the answer: the client does not wait for the learning.
            self._finish(call, verdict, answered_at)

    def _finish(self, call: Call, verdict: Verdict, answered_at: float) -> None:
        outcome = Outcome(verdict, (answered_at - call.decided_at) * 1e3)
        self._engine.finish(call.decision, outcome, answered_at)

    def _answer(self, call: Call, sender: ResponseSender | None) -> tuple[Verdict, Response | None]:
        """Call the target and return the verdict and the last response, whatever happens on the way."""
        try:
            self._refuse_if_cancelled(call, self._clock())
            return self._relay.answer(call.decision.target, call.request, sender)
        except RequestCancelledError as error:
            return Verdict.CANCELLED, self._relay.refused(error)
        except TritonRouterError as error:
            return Verdict.CLIENT_ERROR, self._relay.refused(error)
        except Exception as error:  # noqa: BLE001 - a worker that dies leaves its client waiting for ever
            return Verdict.TARGET_ERROR, self._relay.broken(error)

    @staticmethod
    def _refuse_if_cancelled(call: Call, now: float) -> None:
        if now - call.decided_at > _STALE_S and call.request.is_cancelled():
            raise RequestCancelledError("the client cancelled the request before it reached a target")
