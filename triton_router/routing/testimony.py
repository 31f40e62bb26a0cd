"""What the arms of experiments and rollouts are told of a request that was assigned to them."""

from __future__ import annotations

from math import log, nan
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from triton_router.profiling.profile import TargetProfile
    from triton_router.routing.types import RoutingDecision, Verdict


def testify(decision: RoutingDecision, usual: TargetProfile, verdict: Verdict, latency_ms: float) -> None:
    """Tell the witnesses and judges of a decision how it ended; before anything is learned from that.

    Latencies come as logarithms of multiples of what the yardstick needs for the same request. Judges hear of none
    where more of it was waiting for others than work, and else of what goes beyond the waiting that was to be expected:
    that is known best by whom it happens to, because one that was never busy knows little of it.

    Args:
        decision: Which one.
        usual: Profile of the yardstick, the first stable target.
        verdict: How it ended.
        latency_ms: From decision to answer.
    """
    usual_ms = usual.predict_alone(decision.work, decision.context.batch_size)
    for witness in decision.witnesses:
        witness.note(verdict, latency_ms, _log_ratio(latency_ms, usual_ms))
    if not decision.judges:
        return
    own, load = decision.candidate.profile, decision.load
    if load.in_flight:
        is_known = load.most_wait_ms(usual_ms) <= usual_ms
        usual_ms += max(usual.wait_of(usual_ms, *load), own.wait_of(usual_ms, *load)) if is_known else nan
    for judge in decision.judges:
        judge.note(verdict, latency_ms, _log_ratio(latency_ms, usual_ms))


def _log_ratio(latency_ms: float, usual_ms: float) -> float:
    return log(latency_ms / usual_ms) if latency_ms > 0.0 < usual_ms else nan
