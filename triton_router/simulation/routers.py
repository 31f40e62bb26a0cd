"""Which contenders take part in a scenario: one, several that do not know of each other, or one for each cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_router.simulation.cells import Cells
from triton_router.simulation.contenders import (
    ORACLE,
    EngineContender,
    Oracle,
    PeakEwma,
    RoundRobin,
    engine_policy,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from triton_router.simulation.contenders import Contender
    from triton_router.simulation.fleet import SimulatedTarget
    from triton_router.simulation.run import Simulation
    from triton_router.simulation.traffic import Request


def routers_of(
    simulation: Simulation,
    policy: str,
    rng: Random,
    expected_ms: Callable[[SimulatedTarget, Request, float], float],
) -> list[Contender]:
    """Return the routers of a scenario, which do not know of each other. Raises `ConfigError` for an unknown policy."""
    scenario, targets = simulation.scenario, simulation.fleet.targets
    if policy == ORACLE:
        return [Oracle(targets, expected_ms)]
    if policy == "round-robin":
        return [RoundRobin(targets) for _ in range(scenario.routers)]
    if policy == "ewma":
        return [PeakEwma(targets, rng.random) for _ in range(scenario.routers)]

    def engine(members: Sequence[SimulatedTarget]) -> EngineContender:
        logged = simulation.observe is not None
        return EngineContender(members, engine_policy(policy), scenario.rules, rng.random, log_propensities=logged)

    if not scenario.cell_size:
        return [engine(targets) for _ in range(scenario.routers)]
    parts = [targets[begin : begin + scenario.cell_size] for begin in range(0, len(targets), scenario.cell_size)]
    return [Cells([(engine(part), [target.index for target in part]) for part in parts], rng.random)]
