"""Mirrored requests: copies sent to another target only to learn from, and when one is due.

A target is looked at for two reasons. At growing distances from when it was new or found to have become slower: a cold
start must not pass for its speed, and that a slow-down is over should be seen in less time than it lasted. And whenever
the time saved up for it allows: a share of the time that serving takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from triton_router.routing.protocols import Candidate

FIRST_DISTANCE = 20
"""Served requests between the first two looks at a target that is as fast as the one that serves, and at least between
any two that are not paid for: many routers that start together must not flood their targets. A target that takes n
times as long is looked at after n times as many: looking costs the same whatever it looks at."""
_GROWTH = 1.5
"""Each distance as a multiple of the one before."""
_SURPRISE = 0.6
"""An answer within this share of what was expected may mean that a slow-down is over..."""
_MOST_DEAR = 10.0
"""Times that a look counts as dear at most: a wrong first impression must not last."""
_SOON = 5
"""... and as one look proves nothing, so many requests later there is another. Where none is due, so many later it is
asked again whether one is."""
_COMPANY = 1
"""Requests in flight on a device up to which it is looked at: the one that is copied. A copy would delay all others,
and tell only how a lone stranger fares among them. A target of which nothing is known does not wait for that for ever:
on a device that is always busy it would never get a request."""
_MOST_SAVED_MS = 1000.0
"""However long nothing was spent: a budget is no reserve to burst with."""


class Mirroring:
    """Says when a copy is due and for which target. One copy at a time is under way.

    Attributes:
        share: Time that copies may take, as a share of the time that served requests took; 0 for no copies at all.
        under_way: Whether a copy is out, so that what it really takes is known before the next one.
    """

    __slots__ = ("_is_paid", "_next_look", "_saved_ms", "_served", "_served_ms", "_wanted_ms", "share", "under_way")

    def __init__(self, share: float = 0.0) -> None:
        self.share = share
        self._served = 0
        self._served_ms = 0.0
        self._next_look = 0.0
        self._saved_ms = 0.0
        # What the last copy that was too dear would have cost: until that is saved, no request needs to ask again.
        self._wanted_ms = 0.0
        self._is_paid = False
        self.under_way = False

    @property
    def is_open(self) -> bool:
        """Whether a copy may be due."""
        return (
            self.share > 0.0
            and not self.under_way
            and (self._served >= self._next_look or self._saved_ms > self._wanted_ms)
        )

    def earn(self, served_ms: float) -> None:
        """Note that a request was served, and how long it kept its device busy."""
        self._served += 1
        self._served_ms += served_ms
        self._saved_ms = min(self._saved_ms + self.share * served_ms, _MOST_SAVED_MS)

    def suspect(self, candidate: Candidate) -> None:
        """Begin anew to look at a target, which has become slower: that may pass."""
        self._look_again(candidate, FIRST_DISTANCE)

    def answered(self, candidate: Candidate, took_ms: float, expected_ms: float) -> None:
        """Note how fast a target answered a copy: where that surprises, look again soon."""
        if took_ms < _SURPRISE * expected_ms:
            self._look_again(candidate, _SOON)

    def choose(
        self, candidates: Sequence[Candidate], work: float, rows: float, rng: Callable[[], float]
    ) -> Candidate | None:
        """Return the target to look at with a request, if any; its copy is then under way.

        Of those that are due, any: many routers must not all look at the same. Else the one not measured for longest,
        which waits until it can be paid for: skipping it for a cheaper one would leave it unknown for ever.
        """
        idle = [candidate for candidate in candidates if self._can_be_looked_at(candidate)]
        chosen = self._due(idle, rng) if self._served >= self._next_look else None
        self._is_paid = chosen is None
        if chosen is None:
            chosen = self._affordable(idle, work, rows)
        else:
            self._look_later(chosen, chosen.profile.predict_alone(work, rows))
        self.under_way = chosen is not None
        return chosen

    def end(self, took_ms: float) -> None:
        """Note that the copy is back, and pay for it."""
        self.under_way = False
        if self._is_paid:
            self._saved_ms -= took_ms
            self._wanted_ms = 0.0

    def fail(self, took_ms: float, expected_ms: float) -> None:
        """Note that the copy came back without an answer, and pay as if it had run.

        What fails at once would be tried again at once. Of an unknown target that is as long as requests take.
        """
        self.end(max(took_ms, expected_ms or self._usual_ms))

    @property
    def _usual_ms(self) -> float:
        return self._served_ms / self._served if self._served else 0.0

    def _look_again(self, candidate: Candidate, distance: int) -> None:
        candidate.look_distance = FIRST_DISTANCE
        candidate.look_at = self._served + distance
        self._next_look = min(self._next_look, candidate.look_at)

    def _due(self, idle: Sequence[Candidate], rng: Callable[[], float]) -> Candidate | None:
        due = [candidate for candidate in idle if candidate.look_at <= self._served]
        # Who cannot be looked at now may be idle next time, and who is new is due at once.
        self._next_look = self._served + (FIRST_DISTANCE if due else _SOON)
        return due[int(rng() * len(due))] if due else None

    def _look_later(self, candidate: Candidate, price_ms: float) -> None:
        usual_ms = self._usual_ms
        dearness = min(max(1.0, price_ms / usual_ms), _MOST_DEAR) if usual_ms else 1.0
        candidate.look_at = self._served + int(candidate.look_distance * dearness)
        candidate.look_distance = int(candidate.look_distance * _GROWTH)

    def _affordable(self, idle: Sequence[Candidate], work: float, rows: float) -> Candidate | None:
        if self._saved_ms <= self._wanted_ms:
            return None
        priced = [(max(c.measured_at, c.copied_at), c.profile.predict_alone(work, rows), c) for c in idle]
        # What is never saved up would keep all others waiting: it is looked at when its turn comes.
        payable = [offer for offer in priced if offer[1] < _MOST_SAVED_MS]
        if not payable:
            return None
        _, price, oldest = min(payable, key=lambda offer: offer[0])
        if price <= self._saved_ms:
            return oldest
        self._wanted_ms = price
        return None

    def _can_be_looked_at(self, candidate: Candidate) -> bool:
        if (candidate.needs_live_try and not candidate.is_proven) or candidate.in_flight or candidate.peers_in_flight:
            return False
        device = candidate.device
        is_overdue = not candidate.is_proven and self._served >= candidate.look_at + FIRST_DISTANCE
        return is_overdue or device.in_flight + device.peers_in_flight <= _COMPANY
