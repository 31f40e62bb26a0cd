"""Posts this instance's load and reads the peers': what happens on the path of every request.

Posting stores three words. Reading compares one word of each peer, at most once in two milliseconds, and goes on only
where that has changed.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from triton_router.profiling.load_law import Load
from triton_router.routing.peers import PeerAnswer, PeerLoad, device_key, target_key
from triton_router.sharing import layout

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from triton_router.routing.protocols import Candidate
    from triton_router.routing.types import RoutingDecision
    from triton_router.sharing.shared_file import SharedFile

LOOK_EVERY_S = 0.002
_NEVER = 1 << 64
"""What no word holds."""
_NO_TARGET = 0
"""No `target_key`: what carries it counts on its device alone."""
_ANSWER = Struct("=QQ9d")
_MOST_MS = 86_400_000.0
_MOST_ROWS = 1e9


class Board:
    """See `LoadBoard`. All but `see` is called under the engine's lock.

    Args:
        file: Where it hangs.

    Attributes:
        due: When to look next, in monotonic seconds.
    """

    def __init__(self, file: SharedFile) -> None:
        self.due = 0.0
        at = layout.slot_at(file.slot)
        self._at = at
        self._words = file.words
        self._bytes = file.words.cast("B")
        self._in_flight = file.words[at + layout.IN_FLIGHT : at + layout.IN_FLIGHT + layout.BERTHS + 1]
        self._time = file.doubles[at + layout.TIME : at + layout.TIME + layout.BERTHS + 1]
        self._changes_at = at + layout.CHANGES
        self._told_at = at + layout.TOLD
        self._changes = 0
        self._told = 0
        self._peers: tuple[Peer, ...] = ()
        self._is_news = True

    def moor(self, candidates: Sequence[Candidate]) -> None:
        """See `LoadBoard.moor`."""
        words, at = self._words, self._at
        shown = candidates[: layout.BERTHS]
        words[at + layout.IN_USE] = 0
        for berth, candidate in enumerate(candidates):
            candidate.berth = min(berth, layout.BERTHS)
            self.post(candidate)
        for berth, candidate in enumerate(shown):
            words[at + layout.KEYS + berth] = target_key(candidate.target)
            words[at + layout.DEVICES + berth] = device_key(candidate.target)
        words[at + layout.IN_USE] = len(shown)
        words[at + layout.NAMES] += 1
        self._changes += 1
        words[self._changes_at] = self._changes
        self._is_news = True

    def post(self, candidate: Candidate) -> None:
        """See `LoadBoard.post`."""
        berth = candidate.berth
        self._in_flight[berth] = candidate.in_flight
        self._time[berth] = candidate.ms_in_flight
        self._changes = changes = self._changes + 1
        self._words[self._changes_at] = changes

    def tell(self, decision: RoutingDecision, latency_ms: float, *, alone: bool) -> None:
        """See `LoadBoard.tell`."""
        number = self._told + 1
        at = self._at + layout.RING + number % layout.ANSWERS * layout.ANSWER_WORDS
        _ANSWER.pack_into(
            self._bytes,
            at * layout.WORD,
            number,
            self._words[self._at + layout.KEYS + min(decision.candidate.berth, layout.BERTHS - 1)],
            latency_ms,
            decision.work,
            decision.context.batch_size,
            alone,
            *decision.load,
        )
        self._told = number
        self._words[self._told_at] = number

    def loads(self, now: float) -> list[PeerLoad] | None:
        """See `LoadBoard.loads`."""
        self.due = now + LOOK_EVERY_S
        is_news = self._is_news
        self._is_news = False
        peers = self._peers
        for peer in peers:
            is_news |= peer.has_changed()
        return [load for peer in peers for load in peer.loads] if is_news else None

    def see(self, peers: Iterable[Peer]) -> None:
        """Look at these peers from now on."""
        self._peers = tuple(peers)
        self._is_news = True

    def close(self) -> None:
        """Let go of the file; the engine must not know of this board any more."""
        for view in (self._in_flight, self._time, self._bytes):
            view.release()


class Peer:
    """Another instance, as this one reads it.

    Args:
        file: Where its slot is.
        slot: The slot's number.
        heard: The number of the last of its answers that are known already.
        shares_targets: Whether it is in the same server: another one has models of its own, if on the same devices.

    Attributes:
        slot: The slot's number.
        loads: What it has in flight, as last read.
        problem: What is wrong with what it writes; "" while nothing is.
    """

    def __init__(self, file: SharedFile, slot: int, heard: int, *, shares_targets: bool) -> None:
        self.slot = slot
        self.loads: list[PeerLoad] = []
        self.problem = ""
        self._words = file.words
        self._doubles = file.doubles
        self._at = layout.slot_at(slot)
        self._changes_at = self._at + layout.CHANGES
        self._changes = _NEVER
        self._names = _NEVER
        self._keys: list[tuple[int, int]] = []
        self._shares_targets = shares_targets
        self._heard = heard
        self._whole = heard

    @property
    def serves(self) -> bool:
        """Whether it answers when it is asked for a snapshot."""
        return bool(self._words[self._at + layout.SERVES])

    @property
    def written(self) -> int:
        """The number of the last request for a snapshot that it has met."""
        return self._words[self._at + layout.WRITTEN]

    def has_changed(self) -> bool:
        """Read its load, if that is not as it was."""
        changes = self._words[self._changes_at]
        if changes == self._changes:
            return False
        self._changes = changes
        self._read()
        return True

    def answers(self) -> list[PeerAnswer]:
        """Return the answers that it told of between the last two calls but one.

        What it tells at this moment is read the next time: by then all of it has reached this processor.
        """
        told = self._words[self._at + layout.TOLD]
        until, self._whole = self._whole, told
        # The one behind the newest may be written over right now.
        first = max(self._heard + 1, max(told, until) + 2 - layout.ANSWERS)
        found = [answer for number in range(first, until + 1) if (answer := self._answer(number)) is not None]
        self._heard = max(self._heard, until)
        return found

    def _read(self) -> None:
        at = self._at
        if self._words[at + layout.NAMES] != self._names:
            self._names = self._words[at + layout.NAMES]
            count = min(self._words[at + layout.IN_USE], layout.BERTHS)
            keys = self._words[at + layout.KEYS : at + layout.KEYS + count].tolist()
            devices = self._words[at + layout.DEVICES : at + layout.DEVICES + count].tolist()
            self._keys = list(zip(keys if self._shares_targets else [_NO_TARGET] * count, devices, strict=True))
        count = len(self._keys)
        in_flight = self._words[at + layout.IN_FLIGHT : at + layout.IN_FLIGHT + count].tolist()
        times = self._doubles[at + layout.TIME : at + layout.TIME + count].tolist()
        loads = [
            PeerLoad(key, device, number, max(0.0, amount))
            for (key, device), number, amount in zip(self._keys, in_flight, times, strict=True)
            if number
        ]
        if all(load.in_flight <= layout.MOST_IN_FLIGHT and load.ms <= layout.MOST_WORK for load in loads):
            self.loads = loads
        else:
            self.loads = []
            self.problem = "it posts a load that no instance can have; it is not counted"

    def _answer(self, number: int) -> PeerAnswer | None:
        at = self._at + layout.RING + number % layout.ANSWERS * layout.ANSWER_WORDS
        found, target = self._words[at : at + 2].tolist()
        values = self._doubles[at + 2 : at + layout.ANSWER_WORDS].tolist()
        latency_ms, work, rows, alone, *amounts = values
        if found != number:  # written over in the meantime
            return None
        # Comparisons that a NaN does not pass.
        if not (
            0.0 <= latency_ms <= _MOST_MS
            and 0.0 <= work <= layout.MOST_WORK
            and 0.0 <= rows <= _MOST_ROWS
            and all(-layout.MOST_WORK <= amount <= layout.MOST_WORK for amount in amounts)
        ):
            self.problem = "it tells of an answer that nobody can have had; it is not learned"
            return None
        return PeerAnswer(target, latency_ms, work, rows, Load(*[max(0.0, amount) for amount in amounts]), alone > 0.0)
