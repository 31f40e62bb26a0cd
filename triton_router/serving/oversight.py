"""Sees to it that nothing takes for ever: deadlines, overdue attempts, hedges, and what was answered while it waited.

Deadlines and hedges are met to the moment; all else is found by a look at everything under way, twenty times a
second while there is anything, so that a request pays nothing for it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from triton_router.serving.timekeeper import HORIZON_S, LOOK_EVERY_S, Timekeeper

if TYPE_CHECKING:
    from collections.abc import Callable

    from triton_router.serving.admission import Admission
    from triton_router.serving.answering import Answering
    from triton_router.serving.exchange import Attempt, Exchange
    from triton_router.serving.failover import Failover
    from triton_router.serving.merging import Merging
    from triton_router.serving.turns import Turns
    from triton_router.serving.waiting_room import WaitingRoom


class Oversight:
    """Watches the requests of one routed model.

    Args:
        answering: Knows what is under way, and acts.
        failover: Says when an attempt is overdue.
        merging: Where requests wait for company.
        room: Where requests wait for a worker or a slot.
        admission: Learns how fast they are answered.
        clock: Monotonic seconds.
    """

    def __init__(  # noqa: PLR0913 - everything that is watched
        self,
        answering: Answering,
        failover: Failover,
        merging: Merging,
        room: WaitingRoom,
        admission: Admission,
        turns: Turns,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._replies, self._outcomes, self._further = answering.replies, answering.outcomes, answering.further
        self._failover = failover
        self._merging = merging
        self._room = room
        self._admission = admission
        self._turns = turns
        self._clock = clock
        self._timekeeper = Timekeeper(self.look, clock=clock)

    def start(self) -> None:
        """Begin to watch."""
        self._timekeeper.start()

    def close(self) -> None:
        """Watch no more."""
        self._timekeeper.close()

    def watch(self, exchange: Exchange) -> None:
        """Meet the moments of a request that has one soon; later ones are found by a look."""
        self._meet(exchange, self._clock() + HORIZON_S)

    def look(self, now: float) -> bool:
        """Look at everything under way at ``now``, in monotonic seconds; return whether there is anything."""
        exchanges, abandoned = self._replies.exchanges(), self._outcomes.abandoned()
        for exchange in exchanges:
            if exchange.due_at < now + HORIZON_S:
                self._meet(exchange, now + HORIZON_S)
            for attempt in exchange.attempts:
                self._give_up_if_overdue(attempt, now)
            if exchange.attempts and exchange.attempts[-1].is_given_up:
                self._further.ask_again(exchange, now)
        for attempt in abandoned:
            self._give_up_if_overdue(attempt, now)
        self._merging.sweep()
        if len(self._room):
            self._room.sweep()
            self._turns.call()
        self._admission.look(now)
        return bool(exchanges or abandoned or len(self._room))

    def _meet(self, exchange: Exchange, horizon: float) -> None:
        if exchange.deadline < horizon and not exchange.is_timed:
            exchange.is_timed = True
            self._timekeeper.at(exchange.deadline, partial(self._replies.expire, exchange))
        if exchange.hedge_at < horizon:
            self._timekeeper.at(exchange.hedge_at, partial(self._further.hedge, exchange))
            exchange.hedge_at = float("inf")

    def _give_up_if_overdue(self, attempt: Attempt, now: float) -> None:
        if attempt.has_ended or attempt.is_given_up or now - attempt.begun_at < LOOK_EVERY_S:
            return
        if now >= self._failover.overdue_at(attempt):
            self._further.overdue(attempt, now)
