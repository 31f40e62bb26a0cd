"""One target as people and metrics see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from triton_router.routing.health import Stage

if TYPE_CHECKING:
    from triton_router.profiling.drift import DriftEvent
    from triton_router.profiling.figures import Figure
    from triton_router.profiling.profile import LatencySummary
    from triton_router.routing.protocols import Candidate
    from triton_router.routing.types import Target


@dataclass(frozen=True, slots=True)
class TargetSnapshot:
    """One target as it stands. Counts are since the routed model was loaded; latencies and drifts, like all that is
    learned, go back to where learning began.

    Attributes:
        chosen: Decisions for it.
        succeeded: Answers it gave.
        failed: Failures that were its own.
        refused: Requests it refused because they were wrong.
        cancelled: Requests whose client left first.
        mirrored: Copies of requests sent to it to learn from; nobody waited for their answers, which are in no other
            count. Its latencies are those of requests and copies.
        resting: Whether it is out for now.
        consecutive_failures: Failures since its last answer, those that a pause has followed included.
        error_rate: Recent share of failures, 0 to 1.
        drifts: Changes of its speed that were noticed.
        last_drift: The latest of them.
        memory_mb: Memory it takes, and where the figure comes from.
        power_w: Power it draws, likewise.
        stage: ``well``, ``out``, ``trial`` (one request at a time finds out how it is) or ``returning``.
        why: What it is out or on trial for, in words; "" while it is well.
        ejections: How often it went out, by cause.
        returns: How often it came back.
        seconds_out: For how long it has been out, all in all.
        retried: Requests that it got because an attempt elsewhere failed; in ``chosen`` too.
        hedged: Requests that it got because one elsewhere took long; likewise.
        peers_in_flight: Requests of other instances of the routed model at it, which ``in_flight`` leaves out.
        removed: Whether it is no longer among the targets, and only finishes what it has in flight.
    """

    target: Target
    in_flight: int
    chosen: int
    succeeded: int
    failed: int
    refused: int
    cancelled: int
    mirrored: int
    resting: bool
    confidence: float
    latency: LatencySummary
    consecutive_failures: int
    error_rate: float
    drifts: int
    last_drift: DriftEvent | None
    memory_mb: Figure
    power_w: Figure
    stage: str
    why: str
    ejections: dict[str, int]
    returns: int
    seconds_out: float
    retried: int
    hedged: int
    removed: bool = False
    peers_in_flight: int = 0


def snapshot_of(candidate: Candidate, now: float, *, removed: bool = False) -> TargetSnapshot:
    """Return what is known of a target at ``now`` (monotonic seconds)."""
    profile, health = candidate.profile, candidate.health
    stage = health.stage(now)
    return TargetSnapshot(
        target=candidate.target,
        in_flight=candidate.in_flight,
        chosen=candidate.chosen,
        succeeded=candidate.succeeded,
        failed=candidate.failed,
        refused=candidate.refused,
        cancelled=candidate.cancelled,
        mirrored=candidate.mirrored,
        resting=stage is Stage.OUT,
        confidence=candidate.confidence,
        latency=profile.summary(),
        consecutive_failures=health.consecutive_failures,
        error_rate=profile.error_rate,
        drifts=profile.drifts,
        last_drift=profile.last_drift,
        memory_mb=profile.memory_mb,
        power_w=profile.power_w,
        stage=stage.value,
        why=health.reason(now),
        ejections={cause.value: count for cause, count in health.ejections.items()},
        returns=health.returns,
        seconds_out=health.seconds_out(now),
        retried=candidate.retried,
        hedged=candidate.hedged,
        removed=removed,
        peers_in_flight=candidate.peers_in_flight,
    )
