"""From ``execute()`` to the answer: decide, call the target in a worker, relay, account.

``execute()`` returns at once, so that Triton keeps handing over requests and the targets' dynamic batchers see
them all. Three laws of the stub process hold throughout, each paid for with a crash or a hang of the server when
broken: a request that was taken is answered, whatever happens; nothing is asked of a request after its last
response; and an exception never leaves ``execute()`` once a request is under way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_router.serving.answering import Call
from triton_router.serving.sequences import SequenceLanes
from triton_router.serving.stub import SEQUENCE_END, SEQUENCE_START

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from triton_router.config.router_config import DispatchConfig
    from triton_router.routing.engine import RoutingEngine
    from triton_router.serving.answering import Answering
    from triton_router.serving.call_lane import CallLane
    from triton_router.serving.forwarding import Forwarder
    from triton_router.serving.inline_gate import InlineGate
    from triton_router.serving.merging import Merging
    from triton_router.serving.mirrors import Mirrors
    from triton_router.serving.stub import Request, Response, ResponseSender


class Dispatcher:
    """Serves the requests of one routed model. `execute` is called by one thread.

    Args:
        engine: Chooses the target.
        forwarder: Tells the engine what is asked.
        answering: Sees to answers and outcomes.
        merging: Serves the targets that take merged calls.
        mirrors: Sends copies to other targets, to learn from.
        gate: Says when no thread is needed.
        clock: Monotonic seconds.
    """

    def __init__(  # noqa: PLR0913 - the parts of a request's way
        self,
        engine: RoutingEngine,
        forwarder: Forwarder,
        answering: Answering,
        merging: Merging,
        mirrors: Mirrors,
        gate: InlineGate,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._forwarder = forwarder
        self._answering = answering
        self._merging = merging
        self._mirrors = mirrors
        self._gate = gate
        self._clock = clock
        self._lanes: SequenceLanes[Call] = SequenceLanes()

    def execute(self, requests: Iterable[Request]) -> list[Response] | None:
        """Take the requests of one execution. Never raises.

        Returns:
            None where the answers go through the requests' senders; the one answer of a request served inline.
        """
        batch = list(requests)
        if self._gate.opens(requests=len(batch), in_flight=self._answering.under_way):
            response = self._serve_inline(batch[0])
            if response is not None:
                return [response]
            return None
        for request in batch:
            self._take(request)
        return None

    @property
    def lanes(self) -> Mapping[str, CallLane]:
        """The lanes of merged calls, by name of the target."""
        return self._merging.lanes

    def reconfigure(self, settings: DispatchConfig, lanes: Mapping[str, CallLane], *, inline: bool) -> None:
        """Serve further requests by other settings; those under way are not touched.

        Args:
            settings: How requests travel.
            lanes: For merged calls, by name of the target.
            inline: Whether a lone request may be served without a thread.
        """
        self._answering.resize(settings.max_concurrency)
        self._gate.enable(enabled=inline)
        self._merging.use(lanes)

    def merged_counts(self) -> dict[str, dict[str, float]]:
        """Return what was merged so far, by target and then by metric."""
        return self._merging.counts()

    def close(self) -> None:
        """Answer what is under way, then end the workers."""
        self._answering.close()
        self._mirrors.close()

    def _serve_inline(self, request: Request) -> Response | None:
        """Answer a lone request by return, or take it like any other (None) if it is long or of a sequence."""
        try:
            if request.correlation_id():
                self._take(request)
                return None
            call = self._decided(request)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client must hear of it
            return self._answering.response_for(error)
        if call.explanation is not None or not self._gate.is_short(call.decision.expected_latency_ms):
            self._take(request, call)
            return None
        self._mirrors.take(call)
        verdict, response = self._answering.attempt(call)
        self._answering.finish(call, verdict, self._clock())
        return response

    def _take(self, request: Request, call: Call | None = None) -> None:
        """Have a worker answer a request, which may be decided already."""
        sender = request.get_response_sender()
        try:
            correlation_id = 0 if call else request.correlation_id()
            if correlation_id:
                self._take_in_sequence(request, sender, correlation_id)
                return
            decided = (call or self._decided(request))._replace(sender=sender)
            self._mirrors.take(decided)
            if decided.explanation is not None or not self._merging.take(decided):
                self._answering.hand_over(decided, lambda: self._answering.serve(decided))
        except Exception as error:  # noqa: BLE001 - whatever it is, the client must hear of it
            self._answering.refuse(sender, error)

    def _take_in_sequence(self, request: Request, sender: ResponseSender, correlation_id: int | str) -> None:
        flags = request.flags()
        lane = self._lanes.lane(correlation_id, start=bool(flags & SEQUENCE_START))
        if flags & SEQUENCE_END:
            self._lanes.end(correlation_id)
        call = self._decided(request, pinned=lane.target, may_explore=False)._replace(sender=sender)
        lane.target = call.decision.target.name
        self._answering.begin()
        if self._lanes.enqueue(lane, call):
            self._answering.submit(lambda: self._lanes.drain(lane, self._answering.serve))

    def _decided(self, request: Request, *, pinned: str = "", may_explore: bool = True) -> Call:
        now = self._clock()
        wish = self._forwarder.wish(request)
        context = self._forwarder.context(request, wish, pinned=pinned, may_explore=may_explore)
        explanation = self._engine.explain(context, now) if wish is not None and wish.explain else None
        return Call(request, self._engine.decide(context, now), now, explanation=explanation)
