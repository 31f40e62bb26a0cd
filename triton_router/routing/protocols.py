"""Filter -> score -> pick: the three signatures that every routing policy is made of.

A filter rejects targets and says why. A scorer rates all that are left, each in [0, 1], and knows no weight. A
picker takes one of the rated. Each sees all candidates in one call: with sixty targets, a call per target costs more
than what it computes. None has side effects; a policy names and weighs them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import exp
from typing import TYPE_CHECKING, Protocol

from triton_router.profiling.load_law import IDLE, Load
from triton_router.routing.mirroring import FIRST_DISTANCE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from triton_router.profiling.profile import TargetProfile
    from triton_router.routing.health import Health
    from triton_router.routing.types import RoutingContext, Target


_new = tuple.__new__

UTILIZATION_MEMORY_S = 5.0
"""Time constant of a device's utilization: what was longer ago weighs less than e^-1."""
_PRESSURE_RATE = 0.05
"""Weight of the newest request in the mean of what requests leave behind on a device. Where they come and go one by one
they find as much; and when one ends, nobody waits for a decision."""
_STEADINESS_RATE = 0.01
"""Likewise where it is told how much that varies: so slowly that the ups and downs of a queue are not taken for its
mean."""
_SUPPOSED = 1.0
"""Evidence that a device does one thing at a time, before there is any: what one request says that had company all the
time."""


@dataclass(slots=True, eq=False)
class Device:
    """What the targets of one backend share.

    Attributes:
        in_flight: Requests at all of them.
        ms_in_flight: What they take alone, all together; milliseconds.
        busy: Targets that have something in flight.
        hindrance: By what share (0 to 1) of its own time a request at one of its targets delays one at another: what
            they have found (`Candidate.felt`), each weighed by its evidence.
        hindrance_known: That evidence, all together.
        pressure: 1 + how many others a request finds there to hinder, on average; see `scorers.latency`.
        usual: That mean without the 1, over more requests.
        variance: How much it varies, as the variance of that number over as many.
        is_shared: Whether several of the present targets are on it: nothing is wasted where there is no other choice.
        steadiness: By what share more a request's waste of time there is charged for, because the number hardly varies;
            0 where it is not shared.
        rated_for: The shape that was decided last while ``steadiness`` was not 0...
        least_ms: ... and what the fastest of those that may serve it takes alone.
        utilization: Share of the recent past in which it had something to do, 0 to 1; kept only where a rule asks.
        settled_at: Until when that is known, in monotonic seconds.
        peers_in_flight: Requests of other instances of the routed model at all of them, which ``in_flight`` leaves out.
        peers_ms: What they take alone, all together; milliseconds.
        peers_busy: Targets that have some of those.
        load: What a request finds in flight at a target that has nothing in flight itself; None until it is asked for.
    """

    in_flight: int = 0
    ms_in_flight: float = 0.0
    busy: int = 0
    hindrance: float = 1.0
    hindrance_known: float = _SUPPOSED
    pressure: float = 1.0
    usual: float = 0.0
    variance: float = 0.0
    is_shared: bool = False
    steadiness: float = 0.0
    rated_for: tuple[float, float] | None = None
    least_ms: float = 0.0
    utilization: float = 0.0
    settled_at: float = 0.0
    peers_in_flight: int = 0
    peers_ms: float = 0.0
    peers_busy: int = 0
    load: Load | None = None

    def note_left(self, hindered: float) -> None:
        """Keep count of how many others a request that ended has left there to hinder."""
        self.pressure += _PRESSURE_RATE * (1.0 + hindered - self.pressure)
        off = hindered - self.usual
        self.usual += _STEADINESS_RATE * off
        self.variance += _STEADINESS_RATE * ((1.0 - _STEADINESS_RATE) * off * off - self.variance)
        if not self.is_shared:
            return
        steadiness = (1.0 + self.usual) / (1.0 + self.variance)
        self.steadiness = steadiness * steadiness - 1.0 if steadiness > 1.0 else 0.0

    def load_elsewhere(self) -> Load:
        """Return `load`: the same for most targets of most devices at most decisions."""
        busy = max(self.busy, self.peers_busy)
        company, elsewhere = self.in_flight + self.peers_in_flight, self.ms_in_flight + self.peers_ms
        self.load = load = _new(Load, (0.0, 0, elsewhere, company, busy)) if company else IDLE
        return load

    def shared_by(self, targets: int) -> None:
        """Be the device of so many present targets."""
        self.is_shared = targets > 1
        if not self.is_shared:
            self.steadiness = 0.0

    def empty(self) -> None:
        """Have nothing in flight: it is counted anew."""
        self.load = None
        self.in_flight = self.busy = 0
        self.ms_in_flight = 0.0
        self.hindrance, self.hindrance_known = 1.0, _SUPPOSED

    def settle(self, now: float) -> None:
        """Bring `utilization` up to ``now`` (monotonic seconds): an exponential mean of being busy or idle."""
        busy = 1.0 if self.in_flight or self.peers_in_flight else 0.0
        kept = exp(-max(0.0, now - self.settled_at) / UTILIZATION_MEMORY_S)
        self.utilization = busy + (self.utilization - busy) * kept
        self.settled_at = now


@dataclass(slots=True, eq=False)
class Candidate:
    """A target as the engine considers it: what is held of it, and the figures for the request at hand.

    There is one for each target as long as the engine lives: making new ones for each request would take as long as
    deciding. Filters, scorers and pickers read it; only the engine changes it.

    Attributes:
        in_flight: Requests reserved at the target and not yet finished.
        ms_in_flight: What they were expected to take alone, all together; milliseconds.
        queueing: By what share of its own time a request delays another at the target, 0 to 1.
        felt: By what share of its own time a request elsewhere on the device was seen to delay one here, 0 to 1.
        felt_known: Evidence for that.
        peers_in_flight: Requests of other instances of the routed model, which ``in_flight`` leaves out.
        peers_ms: What they take alone, all together; milliseconds.
        berth: Where its load is posted for them.
        weight: What its score is multiplied with, in [0, 1], by the rules in force.
        is_preferred: Whether the rules in force prefer its backend.
        needs_live_try: Whether a copy of a request could not be sent to it since its last answer: only a request itself
            finds out about it.
        complexity_ms: What such a device should take for one row of the model, from its arithmetic alone; 0 unknown.
        is_proven: Whether any measurement says how fast it is, as last learned.
        confidence: Trust in its predictions, 0 to 1, likewise.
        measured_at: When it was last measured, in monotonic seconds.
        copied_at: When the last copy to it ended, however that went, in monotonic seconds.
        look_at: From how many served requests on a mirrored one is due.
        look_distance: How many until the one after that.
        chosen, succeeded, failed, refused, cancelled, mirrored, retried, hedged: Counts since the routed model was
            loaded.
        cap: Most requests in flight; infinite where there is no bound.
        expected_latency_ms: Predicted time to the answer, what is in flight included; 0 if unknown.
        alone_ms: Predicted time if nothing else were in flight; 0 if unknown.
        others_ms: By how much the request would delay others on the device, those to come included, all together.
        score: Weighted mean of the scorers.
    """

    target: Target
    profile: TargetProfile
    health: Health
    device: Device = field(default_factory=Device)
    in_flight: int = 0
    ms_in_flight: float = 0.0
    queueing: float = 1.0
    felt: float = 1.0
    felt_known: float = 0.0
    peers_in_flight: int = 0
    peers_ms: float = 0.0
    berth: int = 0
    weight: float = 1.0
    is_preferred: bool = False
    needs_live_try: bool = False
    complexity_ms: float = 0.0
    is_proven: bool = False
    confidence: float = 0.0
    measured_at: float = float("-inf")
    copied_at: float = float("-inf")
    look_at: int = 0
    look_distance: int = FIRST_DISTANCE
    chosen: int = 0
    succeeded: int = 0
    failed: int = 0
    refused: int = 0
    cancelled: int = 0
    mirrored: int = 0
    retried: int = 0
    hedged: int = 0
    cap: float = float("inf")
    expected_latency_ms: float = 0.0
    alone_ms: float = 0.0
    others_ms: float = 0.0
    score: float = 0.0

    def load(self) -> Load:
        """Return what a request that is decided now finds in flight."""
        device = self.device
        here = self.in_flight + self.peers_in_flight
        if not here:
            return device.load or device.load_elsewhere()
        ahead = self.ms_in_flight + self.peers_ms
        if here == device.in_flight + device.peers_in_flight:
            return _new(Load, (ahead, here, 0.0, 0, 0))
        _, _, on_device_ms, on_device, busy = device.load or device.load_elsewhere()
        return _new(Load, (ahead, here, on_device_ms - ahead, on_device - here, busy - 1))

    def count_in(self) -> None:
        """Count what is in flight here on the device, and what was found here of it."""
        self.felt_known = 0.0
        self.learn_of_load()
        device = self.device
        device.load = None
        device.in_flight += self.in_flight
        device.ms_in_flight += self.ms_in_flight
        device.busy += self.in_flight > 0

    def take(self, alone_ms: float, *, counted: bool) -> None:
        """Have one more request in flight; ``counted`` says whether on the device as well."""
        if counted:
            device = self.device
            device.load = None
            device.in_flight += 1
            device.ms_in_flight += alone_ms
            device.busy += not self.in_flight
        self.in_flight += 1
        self.ms_in_flight += alone_ms

    def release(self, alone_ms: float, *, counted: bool) -> None:
        """Have one less. Sums of floats keep a residue: nothing in flight is no time in flight."""
        self.in_flight -= 1
        self.ms_in_flight = self.ms_in_flight - alone_ms if self.in_flight else 0.0
        if counted:
            device = self.device
            device.load = None
            device.in_flight -= 1
            device.busy -= not self.in_flight
            device.ms_in_flight = device.ms_in_flight - alone_ms if device.in_flight else 0.0
            here = self.in_flight + self.peers_in_flight
            elsewhere = device.in_flight + device.peers_in_flight - here
            device.note_left(self.queueing * here + device.hindrance * elsewhere)

    def learn_of_load(self) -> None:
        """Note what load was found to cost here. Who shares the target shares its device, at least."""
        device, profile = self.device, self.profile
        felt, felt_known = profile.felt, profile.felt_known
        weighed = device.hindrance * device.hindrance_known + felt * felt_known - self.felt * self.felt_known
        device.hindrance_known = max(_SUPPOSED, device.hindrance_known + felt_known - self.felt_known)
        device.hindrance = min(1.0, max(0.0, weighed / device.hindrance_known))
        self.felt, self.felt_known = felt, felt_known
        # While nothing was found of the device, what was found of the target itself is all that is known.
        is_known = device.hindrance_known > _SUPPOSED
        self.queueing = max(profile.queueing, device.hindrance) if is_known else profile.queueing


class Filter(Protocol):
    """Returns the candidates that cannot serve the request now, each with the reason. ``now`` is in seconds."""

    def __call__(
        self, context: RoutingContext, candidates: Sequence[Candidate], now: float, /
    ) -> Sequence[tuple[Candidate, str]]:
        """Judge all candidates."""
        ...


class Scorer(Protocol):
    """Returns one score in [0, 1] for each candidate, in their order; more is better."""

    def __call__(self, context: RoutingContext, candidates: Sequence[Candidate], /) -> list[float]:
        """Rate all candidates."""
        ...


class Picker(Protocol):
    """Takes one of the rated candidates; there is at least one."""

    def pick(self, candidates: Sequence[Candidate], rng: Callable[[], float]) -> int:
        """Return the index of the chosen one. ``rng`` gives uniform numbers in [0, 1)."""
        ...

    def probabilities(self, candidates: Sequence[Candidate]) -> list[float]:
        """Return for each candidate how probable it is to be picked; they sum to 1."""
        ...
