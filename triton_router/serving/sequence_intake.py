"""Takes the requests of sequences: each stays with the target of the one before, and waits for it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from triton_router.errors import AllFullError, UnsupportedError
from triton_router.routing.types import Verdict
from triton_router.serving.sequence_places import Nowhere
from triton_router.serving.sequences import Lane, SequenceLanes
from triton_router.serving.stub import SEQUENCE_END, SEQUENCE_START

if TYPE_CHECKING:
    from triton_router.serving.admission import Admission
    from triton_router.serving.answering import Answering
    from triton_router.serving.exchange import Attempt, Exchange
    from triton_router.serving.intake import Intake
    from triton_router.serving.sequence_places import Places
    from triton_router.serving.stub import Request, ResponseSender
    from triton_router.serving.worker_pool import WorkerPool

    _Step = tuple[Attempt, int | str | None]
    """A request's attempt, and the sequence that it ends if it does."""


class SequenceIntake:
    """Takes the requests of one routed model's sequences, from one thread.

    Args:
        intake: Reads and decides them.
        answering: Sees to answers and outcomes.
        admission: Says who may come in.
        pool: Where they are served. They are pinned, whatever happens to their targets: one that hangs must not take
            the workers of all others.

    Attributes:
        is_open: Whether all requests of a sequence come to this instance; where they do not, they are refused.
        places: Remembers where sequences are beyond this instance's life.
    """

    def __init__(self, intake: Intake, answering: Answering, admission: Admission, pool: WorkerPool) -> None:
        self._intake = intake
        self._answering = answering
        self._admission = admission
        self._pool = pool
        self._lanes: SequenceLanes[_Step] = SequenceLanes()
        self.is_open = True
        self.places: Places = Nowhere()

    def resize(self, limit: int) -> None:
        """Have at most so many sequences served at once from now on."""
        self._pool.resize(limit)

    def close(self) -> None:
        """See what was taken to its end, then end the workers."""
        self._pool.close()
        self.places.close()

    def take(self, request: Request, sender: ResponseSender, correlation_id: int | str) -> Exchange:
        """Begin a request behind those of its sequence that came before, and have it served in its turn.

        Raises:
            TritonRouterError: It cannot be; the caller has to answer it.
        """
        if not self.is_open:
            raise UnsupportedError(
                "the routed model has several instances, and its sequences would be scattered over them",
                hint="set instance_group [ { kind: KIND_CPU count: 1 } ], or give it a sequence batcher",
            )
        flags = request.flags()
        lane: Lane[_Step] = Lane() if flags & SEQUENCE_START else self._lane_of(correlation_id)
        exchange = self._intake.read(request, holder=lane.target, may_explore=False)
        exchange.sender = sender
        exchange.is_pinned = True
        self._admission.admit(exchange)
        try:
            attempt = self._intake.decided(exchange, exchange.taken_at)
        except AllFullError as error:
            # Only its first request meets that. It is not put off: those that follow come in order behind it.
            raise self._admission.refusal_of_sequence(error) from error
        # Only from here on: what was refused has changed nothing, and may be sent again.
        self._lanes.keep(correlation_id, lane)
        target = attempt.decision.target
        if lane.target is not target:
            lane.target = target
            self.places.note(correlation_id, target)
        self._answering.replies.begin(exchange)
        if self._lanes.enqueue(lane, (attempt, correlation_id if flags & SEQUENCE_END else None)):
            job = partial(self._lanes.drain, lane, partial(self._serve, lane))
            try:
                self._pool.submit(job)
            except RuntimeError:  # no thread can be had for it
                self._answering.submit(job)
        return exchange

    def _lane_of(self, correlation_id: int | str) -> Lane[_Step]:
        """Return the lane of a sequence that goes on; one that nobody knows is routed afresh."""
        return self._lanes.find(correlation_id) or Lane(self.places.holder(correlation_id))

    def _serve(self, lane: Lane[_Step], step: _Step) -> None:
        attempt, ending = step
        verdict, last = self._answering.call(attempt)
        # An end that did not get through is sent again, and has to find its sequence.
        if ending is not None and verdict is Verdict.SUCCESS and self._lanes.end(ending, lane):
            self.places.forget(ending)
        self._answering.ended(attempt, verdict, last)
