"""What came of a run, in figures that are the same for the same seed."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from triton_router.simulation.contenders import ORACLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triton_router.simulation.run import Run, Served, Simulation

EARLY = 1000
"""Requests whose regret is told apart: while a router still learns."""
_MS_PER_HOUR = 3.6e6


@dataclass(frozen=True, slots=True)
class Measures:
    """One contender in one scenario. Latencies are of answered requests, in milliseconds; mirrored ones do not count.

    Attributes:
        answered, failed: Requests, by how they ended.
        mirrored: Copies that were sent only to learn from.
        retried: Attempts that failed, and whose requests were tried again.
        per_second: Requests answered in a second of simulated time.
        regret_early: True expected latency of the first `EARLY` requests' choices, over that of the best target in the
            same state, less 1; None where the fleet is too large to compare.
        regret_late: The same of all further requests; None where there are none.
        above_oracle: Mean latency over that of the oracle's run, less 1; None where there is no such run.
        peak: Requests in flight at the busiest target over the mean of all, on average; None likewise.
        cell_peak: Busy time of the busiest cell over the mean of all; None where there are no cells.
        cost: Price of a million requests, in the scenario's currency, for the time that devices worked on them.
        energy_j: Energy of a request, mirrored ones' included, in joules.
        shares: Share of the answered requests by target; copies of a target count as one.
    """

    policy: str
    answered: int
    failed: int
    mirrored: int
    retried: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    per_second: float
    regret_early: float | None
    regret_late: float | None
    above_oracle: float | None
    peak: float | None
    cell_peak: float | None
    cost: float
    energy_j: float
    shares: dict[str, float]


def measure(simulation: Simulation, run: Run, oracle_mean_ms: float | None = None) -> Measures:
    """Return the figures of a run.

    Args:
        simulation: What was simulated.
        run: What came of it.
        oracle_mean_ms: Mean latency of the oracle's run, if there was one.
    """
    live = [one for one in run.served if not one.mirrored and not one.retried]
    answered = [one for one in live if not one.failed]
    latencies = sorted(one.latency_ms for one in answered)
    mean = sum(latencies) / len(latencies) if latencies else 0.0
    begin = min((one.arrived for one in live), default=0.0)
    lasted = max((one.ended for one in live), default=0.0) - begin
    targets = simulation.fleet.targets
    specs = [targets[one.target].spec for one in run.served]
    used = [one.alone_ms for one in run.served]
    cost = sum(spec.price_per_hour * ms for spec, ms in zip(specs, used, strict=True)) / _MS_PER_HOUR
    energy = sum(spec.power_w * ms for spec, ms in zip(specs, used, strict=True)) / 1e3
    requests = len(live) or 1
    peaks = [one.peak for one in live if one.peak]
    names = Counter(targets[one.target].spec.name for one in answered)
    return Measures(
        policy=run.policy,
        answered=len(answered),
        failed=len(live) - len(answered),
        mirrored=sum(one.mirrored for one in run.served),
        retried=sum(one.retried for one in run.served),
        mean_ms=mean,
        p50_ms=_quantile(latencies, 0.5),
        p90_ms=_quantile(latencies, 0.9),
        p99_ms=_quantile(latencies, 0.99),
        per_second=len(answered) / lasted if lasted > 0.0 else 0.0,
        regret_early=regret([one for one in live if one.request < EARLY]),
        regret_late=regret([one for one in live if one.request >= EARLY]),
        above_oracle=mean / oracle_mean_ms - 1.0 if oracle_mean_ms else None,
        peak=sum(peaks) / len(peaks) if peaks else None,
        cell_peak=_cell_peak(simulation, run),
        cost=cost * 1e6 / requests,
        energy_j=energy / requests,
        shares={name: count / len(answered) for name, count in sorted(names.items(), key=lambda n: (-n[1], n[0]))},
    )


def regret(served: Sequence[Served]) -> float | None:
    """Return how much longer the chosen targets take than the best ones would have, as a share; None if unknown.

    Requests that failed are left out: they took no time.
    """
    compared = [one for one in served if one.best_ms > 0.0 and not one.failed]
    if not compared:
        return None
    return sum(one.expected_ms for one in compared) / sum(one.best_ms for one in compared) - 1.0


def compare(simulation: Simulation, policies: Sequence[str]) -> list[tuple[Run, Measures]]:
    """Run each policy in turn over the same traffic, the oracle's first where it is among them."""
    runs = {policy: simulation.run(policy) for policy in sorted(policies, key=lambda policy: policy != ORACLE)}
    mean = measure(simulation, runs[ORACLE]).mean_ms if ORACLE in runs else None
    return [(runs[policy], measure(simulation, runs[policy], mean)) for policy in policies]


def _quantile(ordered: Sequence[float], probability: float) -> float:
    """Return the smallest value that so large a share does not exceed; 0.0 of nothing."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, max(0, -int(-probability * len(ordered) // 1) - 1))]


def _cell_peak(simulation: Simulation, run: Run) -> float | None:
    size = simulation.scenario.cell_size
    if not size or not run.served:
        return None
    busy = defaultdict[int, float](float)
    for one in run.served:
        busy[one.target // size] += one.alone_ms
    cells = -(-len(simulation.fleet.targets) // size)
    return max(busy.values()) * cells / sum(busy.values())
