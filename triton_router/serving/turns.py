"""Gives the requests that wait their turns: a worker each, the most urgent first.

The pool's own queue holds no requests but tokens, and a token takes whoever is first in the waiting room when a worker
comes to it: so all that waits does so in one place, in one order. A token is sent for each request that begins to wait,
and whenever a slot at a target becomes free.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from triton_router.errors import AllFullError
from triton_router.serving.waiting_room import demand_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from triton_router.serving.answering import Answering
    from triton_router.serving.exchange import Exchange
    from triton_router.serving.waiting_room import Demand, WaitingRoom

_MOST_TOKENS = 256


class Turns:
    """The turns of one routed model's waiting requests. Safe to use from several threads.

    Args:
        room: Where they wait.
        answering: Has workers.
        start: Decides a request and returns what serves it. Raises `AllFullError` if no target has room for it.
    """

    def __init__(
        self, room: WaitingRoom, answering: Answering, start: Callable[[Exchange], Callable[[], None]]
    ) -> None:
        self._room = room
        self._answering = answering
        self._start = start
        self._lock = Lock()
        self._tokens = 0
        self._trying = 0
        # Counts slots that became free; two at once may count as one.
        self._released = 0
        self._outcomes = answering.outcomes
        self._outcomes.released = self.released

    def wait(self, exchange: Exchange) -> None:
        """Have a request wait for its turn; it has begun."""
        with self._lock:
            self._outcomes.has_waiting = True
            self._room.put(exchange)
        self.call()

    def released(self) -> None:
        """Take note that a slot has become free."""
        self._released += 1
        if len(self._room):
            self.call()

    def call(self) -> None:
        """Have a worker take the next request, unless enough are about to."""
        with self._lock:
            if self._tokens >= min(len(self._room), _MOST_TOKENS):
                return
            self._tokens += 1
        self._answering.submit(self._take_turn)

    def _take_turn(self) -> None:
        with self._lock:
            self._tokens -= 1
            self._trying += 1
        released = self._released
        # Of each demand one is tried: what the first may not have, because of what it demands, another may.
        refused: dict[Demand, Exchange] = {}
        serve: Callable[[], None] | None = None
        while serve is None and (exchange := self._room.take(refused)) is not None:
            try:
                serve = self._start(exchange)
            except AllFullError:
                refused[demand_of(exchange)] = exchange
        with self._lock:
            for exchange in refused.values():
                self._room.put(exchange)
            self._trying -= 1
            # What is being tried is not in the room, and wants to know of every slot that becomes free meanwhile.
            self._outcomes.has_waiting = bool(len(self._room) or self._trying)
        # A slot that became free after the engine said no, and before they were back here, woke nobody.
        if len(self._room) and (serve is not None or self._released != released):
            self.call()
        if serve is not None:
            serve()
