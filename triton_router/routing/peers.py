"""What other instances of the same routed model do at the same targets: their load counts in decisions, and what they
are answered teaches as if it had been asked here.

The engine posts its own load on a board and now and then takes the peers' from it. Where that board hangs, and who
the peers are, is the caller's business.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from triton_router.profiling.load_law import Load
    from triton_router.routing.protocols import Candidate, Device
    from triton_router.routing.types import RoutingDecision, Target


class PeerLoad(NamedTuple):
    """What one peer has in flight at one target.

    Attributes:
        target: `target_key` of it.
        device: `device_key` of it, as the peer sees it.
        in_flight: Requests.
        ms: What they were expected to take alone, all together; milliseconds.
    """

    target: int
    device: int
    in_flight: int
    ms: float


class PeerAnswer(NamedTuple):
    """What a peer learned from one answer; see `TargetProfile.record_latency`.

    Attributes:
        target: `target_key` of who answered.
    """

    target: int
    latency_ms: float
    work: float
    rows: float
    load: Load
    alone: bool


class LoadBoard(Protocol):
    """Where instances see each other. The engine calls it under its lock.

    Attributes:
        due: From when on `loads` is worth asking, in monotonic seconds.
    """

    due: float

    def moor(self, candidates: Sequence[Candidate]) -> None:
        """Give each candidate its berth, and post what it has in flight."""
        ...

    def post(self, candidate: Candidate) -> None:
        """Post what a candidate has in flight now."""
        ...

    def tell(self, decision: RoutingDecision, latency_ms: float, *, alone: bool) -> None:
        """Tell the peers of an answer."""
        ...

    def loads(self, now: float) -> Sequence[PeerLoad] | None:
        """Return what the peers have in flight; None if that is what it was when last asked."""
        ...


def target_key(target: Target) -> int:
    """Return what a target is known by among instances, whose names for it may differ: its model and version."""
    return _key(f"{target.model}\0{target.version}")


def device_key(target: Target) -> int:
    """Return what its device is known by."""
    return _key(target.device or target.backend)


class Peers:
    """The peers' load, as the candidates of one engine carry it."""

    def __init__(self) -> None:
        self._targets: dict[int, list[Candidate]] = {}
        self._devices: dict[int, Device] = {}

    def meet(self, candidates: Iterable[Candidate]) -> None:
        """From now on these are the candidates; what they carried is to be put on them anew."""
        self._targets, self._devices = {}, {}
        for candidate in candidates:
            self._targets.setdefault(target_key(candidate.target), []).append(candidate)
            self._devices[device_key(candidate.target)] = candidate.device

    def carry(self, loads: Iterable[PeerLoad]) -> None:
        """Put the peers' load on candidates and devices, in place of what they carried."""
        for device in self._devices.values():
            device.peers_in_flight = device.peers_busy = 0
            device.peers_ms = 0.0
            device.load = None
        for same in self._targets.values():
            for candidate in same:
                candidate.peers_in_flight, candidate.peers_ms = 0, 0.0
        for load in loads:
            same = self._targets.get(load.target, ())
            for candidate in same:
                candidate.peers_in_flight += load.in_flight
                candidate.peers_ms += load.ms
            # A target that is not known here may be on a device that is.
            device = same[0].device if same else self._devices.get(load.device)
            if device is not None:
                device.peers_in_flight += load.in_flight
                device.peers_ms += load.ms
                device.peers_busy += load.in_flight > 0

    def named(self, target: int) -> Sequence[Candidate]:
        """Return the candidates that a peer means by a `target_key`."""
        return self._targets.get(target, ())


def learn(candidate: Candidate, answer: PeerAnswer) -> None:
    """Learn from an answer that a peer was given. It was predicted and counted there."""
    candidate.profile.record_latency(
        answer.latency_ms,
        answer.work,
        0.0,
        alone=answer.alone,
        rows=answer.rows,
        load=answer.load,
    )
    candidate.is_proven = candidate.profile.is_proven
    candidate.learn_of_load()


def _key(text: str) -> int:
    """Return a number from 1 to 2^63 - 1."""
    return int.from_bytes(blake2b(text.encode(errors="surrogateescape"), digest_size=8).digest()) >> 1 or 1
