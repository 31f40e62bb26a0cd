"""Filters: each rejects targets for one reason.

Constraints are the request's own and hold whatever happens. What the state of things forbids gives way when nothing
would be left: a slow answer, or a try at a target that failed, is better than none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_router.profiling.figures import Source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triton_router.profiling.figures import Figure
    from triton_router.routing.protocols import Candidate, Filter
    from triton_router.routing.types import RoutingContext

    Rejected = Sequence[tuple[Candidate, str]]


def disallowed(context: RoutingContext, candidates: Sequence[Candidate], _now: float) -> Rejected:
    """Reject backends that the request does not allow."""
    allowed = context.allowed_backends
    if allowed is None:
        return ()
    return [(c, "backend not allowed by the request") for c in candidates if c.target.backend not in allowed]


def over_memory(context: RoutingContext, candidates: Sequence[Candidate], _now: float) -> Rejected:
    """Reject targets known to take more memory than the request's bound; an unknown footprint passes."""
    bound = context.max_memory_mb
    if not bound:
        return ()
    return [(c, f"takes more than {bound:g} MB") for c in candidates if _known(c.profile.memory_mb) > bound]


def over_power(context: RoutingContext, candidates: Sequence[Candidate], _now: float) -> Rejected:
    """Reject targets known to draw more power than the request's bound; an unknown draw passes."""
    bound = context.max_power_w
    if not bound:
        return ()
    return [(c, f"draws more than {bound:g} W") for c in candidates if _known(c.profile.power_w) > bound]


def below_throughput(context: RoutingContext, candidates: Sequence[Candidate], _now: float) -> Rejected:
    """Reject targets that cannot reach the request's rows per second, were nothing else to do; unknown ones pass."""
    bound = context.min_throughput
    return _below(bound, context, candidates) if bound else ()


CONSTRAINTS: tuple[Filter, ...] = (disallowed, over_memory, over_power, below_throughput)
"""What a request may demand. Where no target meets it, the request is refused."""


def full(_context: RoutingContext, candidates: Sequence[Candidate], _now: float) -> Rejected:
    """Reject targets that have as many requests in flight as they may. Gives way to nothing: a request can wait."""
    return [(c, f"has the {c.cap:g} requests in flight that it may have") for c in candidates if c.in_flight >= c.cap]


def unproven_and_busy(_context: RoutingContext, candidates: Sequence[Candidate], _now: float) -> Rejected:
    """Reject targets of unknown speed that are already being tried: one request finds out, not a herd."""
    return [
        (c, "unproven, and being tried") for c in candidates if not c.is_proven and (c.in_flight or c.peers_in_flight)
    ]


def unproven(_context: RoutingContext, candidates: Sequence[Candidate], _now: float) -> Rejected:
    """Reject targets of unknown speed while one of known speed is left: a mirrored request finds out about them."""
    unknown = [
        (c, "unproven, and left to mirrored requests") for c in candidates if not c.is_proven and not c.needs_live_try
    ]
    return unknown if len(unknown) < len(candidates) else ()


def not_preferred(_context: RoutingContext, candidates: Sequence[Candidate], _now: float) -> Rejected:
    """Reject backends that the rules do not prefer, if one that they prefer is left."""
    others = [(c, "another backend is preferred") for c in candidates if not c.is_preferred]
    return others if len(others) < len(candidates) else ()


class Slow:
    """Rejects targets predicted to take more than ``bound_ms``, load included, if another is not."""

    def __init__(self, bound_ms: float) -> None:
        self._bound_ms = bound_ms

    def __call__(self, _context: RoutingContext, candidates: Sequence[Candidate], _now: float) -> Rejected:
        """Judge all candidates."""
        bound = self._bound_ms
        slow = [(c, f"predicted to take more than {bound:g} ms") for c in candidates if c.expected_latency_ms > bound]
        return slow if len(slow) < len(candidates) else ()


class Sluggish:
    """Rejects targets that would serve fewer than ``bound`` rows per second of such requests, if another would not."""

    def __init__(self, bound: float) -> None:
        self._bound = bound

    def __call__(self, context: RoutingContext, candidates: Sequence[Candidate], _now: float) -> Rejected:
        """Judge all candidates."""
        slow = _below(self._bound, context, candidates)
        return slow if len(slow) < len(candidates) else ()


class Overloaded:
    """Rejects targets whose device is busy and was for more than ``bound`` (0 to 1) of late, if another's was not.

    One that is idle now is not overloaded: a lone client who asks again and again keeps a device busy all the time.
    """

    def __init__(self, bound: float) -> None:
        self._bound = bound

    def __call__(self, _context: RoutingContext, candidates: Sequence[Candidate], _now: float) -> Rejected:
        """Judge all candidates."""
        bound = self._bound
        busy = [
            (c, f"device busy for more than {bound:.0%} of the time")
            for c in candidates
            if (c.device.in_flight or c.device.peers_in_flight) and c.device.utilization > bound
        ]
        return busy if len(busy) < len(candidates) else ()


FORGOTTEN_S = 30.0
"""After so long without a measurement a target is tried by a request that will hardly be in time anyway."""
_HARDLY = 0.5


class Late:
    """Rejects targets that do not meet the request's latency bound with ``probability``, if one does.

    Where none does, all but the fastest: the decision is then flagged as late. Should even that hardly be in time,
    all but one that nobody has measured for long, or ever, if there is one that is idle: it may have become faster,
    and requests that all have bounds would never find out.
    """

    def __init__(self, probability: float) -> None:
        self._probability = probability

    def __call__(self, context: RoutingContext, candidates: Sequence[Candidate], now: float) -> Rejected:
        """Judge all candidates."""
        bound = context.max_latency_ms
        if not bound:
            return ()
        late = [c for c in candidates if not self.meets(c, bound)]
        if len(late) < len(candidates):
            return [(c, f"not expected to answer within {bound:g} ms") for c in late]
        chosen = min(candidates, key=lambda c: c.expected_latency_ms or float("inf"))
        if _chance(chosen, bound) < _HARDLY:
            idle = [c for c in candidates if not (c.in_flight or c.peers_in_flight)]
            forgotten = min(idle, key=lambda c: (c.measured_at, c.expected_latency_ms), default=chosen)
            chosen = forgotten if now - forgotten.measured_at > FORGOTTEN_S else chosen
        return [(c, f"not expected to answer within {bound:g} ms") for c in candidates if c is not chosen]

    def meets(self, candidate: Candidate, bound_ms: float) -> bool:
        """Whether it is expected to answer in time; of unknown speed nothing is."""
        return _chance(candidate, bound_ms) >= self._probability


def _chance(candidate: Candidate, bound_ms: float) -> float:
    expected = candidate.expected_latency_ms
    return candidate.profile.probability_within(expected, bound_ms) if expected > 0.0 else 0.0


def _below(bound: float, context: RoutingContext, candidates: Sequence[Candidate]) -> Rejected:
    slowest_ms = context.batch_size * 1e3 / bound
    return [(c, f"reaches less than {bound:g} rows/s") for c in candidates if c.alone_ms > slowest_ms]


def _known(figure: Figure) -> float:
    return 0.0 if figure.source is Source.UNKNOWN else figure.value
