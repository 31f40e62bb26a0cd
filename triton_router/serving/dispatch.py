"""From ``execute()`` to the answer: decide, call the target in a worker, relay, account.

``execute()`` returns at once, so that Triton keeps handing over requests and the targets' dynamic batchers see
them all. Three laws of the stub process hold throughout, each paid for with a crash or a hang of the server when
broken: a request that was taken is answered, whatever happens; nothing is asked of a request after its last
response; and an exception never leaves ``execute()`` once a request is under way.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from triton_router.errors import AllFullError, OverloadedError
from triton_router.routing.types import Verdict
from triton_router.serving.oversight import Oversight
from triton_router.serving.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from triton_router.routing.engine import RoutingEngine
    from triton_router.serving.admission import Admission
    from triton_router.serving.answering import Answering
    from triton_router.serving.call_lane import CallLane
    from triton_router.serving.comparisons import Comparisons
    from triton_router.serving.exchange import Attempt, Exchange
    from triton_router.serving.failover import Failover
    from triton_router.serving.inline_gate import InlineGate
    from triton_router.serving.intake import Intake
    from triton_router.serving.merging import Merging
    from triton_router.serving.mirrors import Mirrors
    from triton_router.serving.resilience_counts import ResilienceCounts
    from triton_router.serving.sequence_intake import SequenceIntake
    from triton_router.serving.stub import Request, Response
    from triton_router.serving.waiting_room import WaitingRoom


class Dispatcher:
    """Serves the requests of one routed model. `execute` is called by one thread.

    Args:
        engine: Chooses the target.
        intake: Reads and decides requests.
        sequences: Takes those that belong to sequences.
        answering: Sees to answers and outcomes.
        merging: Serves the targets that take merged calls.
        mirrors: Sends copies to other targets, to learn from.
        comparisons: Likewise, to compare their answers.
        gate: Says when no thread is needed.
        failover: Knows other targets.
        admission: Says who may come in.
        room: Where requests wait for a worker or a slot.
        counts: What went wrong.
        clock: Monotonic seconds.

    Attributes:
        admission, comparisons, failover, intake, mirrors, sequences: As passed; their settings may be changed while
            requests are served.
    """

    def __init__(  # noqa: PLR0913 - the parts of a request's way
        self,
        engine: RoutingEngine,
        intake: Intake,
        sequences: SequenceIntake,
        answering: Answering,
        merging: Merging,
        mirrors: Mirrors,
        *,
        comparisons: Comparisons,
        gate: InlineGate,
        failover: Failover,
        admission: Admission,
        room: WaitingRoom,
        counts: ResilienceCounts,
        clock: Callable[[], float],
    ) -> None:
        self._engine = engine
        self.intake = intake
        self.sequences = sequences
        self._answering = answering
        self._replies, self._outcomes = answering.replies, answering.outcomes
        self._merging = merging
        self.mirrors = mirrors
        self.comparisons = comparisons
        self._gate = gate
        self.failover = failover
        self.admission = admission
        self._room = room
        self._counts = counts
        self._clock = clock
        self._turns = Turns(room, answering, self._start_waiting)
        self._oversight = Oversight(answering, failover, merging, room, admission, self._turns, clock=clock)
        self._oversight.start()

    def execute(self, requests: Iterable[Request]) -> list[Response] | None:
        """Take the requests of one execution. Never raises.

        Returns:
            None where the answers go through the requests' senders; the one answer of a request served inline.
        """
        batch = list(requests)
        if self._gate.opens(requests=len(batch), in_flight=self._replies.under_way):
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

    def reconfigure(self, max_concurrency: int, lanes: Mapping[str, CallLane], *, inline: bool, compares: bool) -> None:
        """Serve further requests by other settings; those under way are not touched.

        Args:
            max_concurrency: Most calls in flight at once; as many of sequences besides.
            lanes: For merged calls, by name of the target.
            inline: Whether a lone request may be served without a thread.
            compares: Whether another target may be asked, to tell by which of them leaves outputs out.
        """
        self._answering.go_by(max_concurrency, compares=compares)
        self.sequences.resize(max_concurrency)
        self._gate.enable(enabled=inline)
        self._merging.use(lanes)

    def lose(self, target: str, before: float) -> None:
        """Have what a target got before then (monotonic seconds) served elsewhere: its process has ended."""
        self._answering.further.lose(target, before)
        self._merging.renew(target)

    def merged_counts(self) -> dict[str, dict[str, float]]:
        """Return what was merged so far, by target and then by metric."""
        return self._merging.counts()

    def resilience_counts(self) -> dict[str, int]:
        """Return what went wrong so far, by the names of `ResilienceCounts`, and what is there now.

        ``under_way`` are requests taken and not yet answered, ``waiting`` those of them that wait for a worker or for
        a slot at a target, ``abandoned`` attempts whose requests were answered without them.
        """
        return {
            **self._counts.as_dict(),
            "under_way": self._replies.under_way,
            "waiting": len(self._room),
            "abandoned": len(self._outcomes.abandoned()),
        }

    def retry_counts(self) -> dict[str, float]:
        """Return the retries at hand (``left``), and the attempts that were not granted, by why."""
        return self._engine.retry_counts(self._clock())

    def close(self) -> None:
        """Answer what is under way, then end the workers."""
        self.sequences.close()
        self._answering.close()
        self.mirrors.close()
        self.comparisons.close()
        self._oversight.close()

    def _serve_inline(self, request: Request) -> Response | None:
        """Answer a lone request by return, or take it like any other (None) if it is long or of a sequence."""
        try:
            exchange = None if request.correlation_id() else self.intake.read(request)
            # Whoever may be answered before its target has is not served here, where nobody could answer it.
            if exchange is None or exchange.bound_ms or self.failover.hedges:
                self._take(request)
                return None
            attempt = self.intake.decided(exchange, exchange.taken_at)
        except AllFullError:
            self._take(request)
            return None
        except Exception as error:  # noqa: BLE001 - whatever it is, the client must hear of it
            return self._replies.response_for(error)
        if exchange.explanation is not None or not self._gate.is_short(attempt.decision.expected_latency_ms):
            self._take(request, attempt)
            return None
        return self._called_inline(request, attempt)

    def _called_inline(self, request: Request, attempt: Attempt) -> Response | None:
        """Call the target of a request that is served inline and return the answer; None if another is asked."""
        exchange = attempt.exchange
        self.mirrors.take(attempt)
        self.comparisons.take(attempt)
        verdict, response = self._answering.call(attempt)
        if response is None:  # its client left before the target was asked
            self._outcomes.drop(attempt)
            return self._replies.cancelled()[1]
        if verdict is Verdict.TARGET_ERROR and self.failover.is_possible(exchange):
            exchange.sender = request.get_response_sender()
            self._replies.begin(exchange)
            self._answering.ended(attempt, verdict, response)
            return None
        exchange.end(attempt)
        if exchange.sample is not None:
            exchange.sample.answered(attempt, verdict, response)
        self._outcomes.account(attempt, attempt.blame if verdict is Verdict.TARGET_ERROR else verdict, self._clock())
        return response

    def _take(self, request: Request, attempt: Attempt | None = None) -> None:
        """Have a worker answer a request, which may be decided already."""
        sender = request.get_response_sender()
        try:
            correlation_id = 0 if attempt else request.correlation_id()
            if correlation_id:
                exchange = self.sequences.take(request, sender, correlation_id)
                if exchange.bound_ms:
                    self._oversight.watch(exchange)
                return
            exchange = attempt.exchange if attempt else self.intake.read(request)
            exchange.sender = sender
            if attempt is None:
                if exchange.priority or self._replies.under_way >= self.admission.limit:
                    self.admission.admit(exchange)
                attempt = self._decided_unless_it_waits(exchange)
            if attempt is not None:
                self.mirrors.take(attempt)
                self.comparisons.take(attempt)
                if exchange.explanation is not None or not self._merging.take(attempt):
                    self._answering.hand_over(attempt)
            if exchange.bound_ms or self.failover.hedges:
                self._oversight.watch(exchange)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client must hear of it
            self._replies.refuse(sender, error)

    def _decided_unless_it_waits(self, exchange: Exchange) -> Attempt | None:
        """Return the first attempt of a request; None if it has to wait in the router for a worker or a slot."""
        # Where calls are merged, requests wait for company at their targets and need no worker meanwhile.
        if not self._outcomes.has_waiting and (not self._answering.is_busy() or self._merging.lanes):
            try:
                attempt = self.intake.decided(exchange, exchange.taken_at)
            except AllFullError:
                pass
            else:
                return self._timely(attempt) if exchange.bound_ms else attempt
        self.admission.refuse_late_waiting(exchange)
        self._replies.begin(exchange)
        self._turns.wait(exchange)
        return None

    def _start_waiting(self, exchange: Exchange) -> Callable[[], None]:
        """Decide a request whose turn it is; return what serves it. Raises `AllFullError` if no target has room."""
        now = self._clock()
        try:
            if self._replies.is_over(exchange, exchange.taken_at, now):
                return _nothing
            if exchange.context.max_latency_ms:
                exchange.context.max_latency_ms = max(1e-3, exchange.bound_ms - (now - exchange.taken_at) * 1e3)
            attempt = self.intake.decided(exchange, now)
            if exchange.bound_ms:
                self._timely(attempt)
            self._room.note_sent()
        except AllFullError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the client must hear of it
            if exchange.claim():
                self._replies.answer(exchange, self._replies.response_for(error))
            return _nothing
        if self.failover.hedges:
            self._oversight.watch(exchange)
        if exchange.explanation is None and self._merging.take_begun(attempt):
            return _nothing
        return partial(self._answering.serve, attempt)

    def _timely(self, attempt: Attempt) -> Attempt:
        """Return an attempt that may be made. Raises `OverloadedError` if it would be late because of what is ahead."""
        try:
            self.admission.refuse_late(attempt)
        except OverloadedError:
            self._outcomes.drop(attempt)
            raise
        return attempt


def _nothing() -> None:
    """It has been seen to."""
