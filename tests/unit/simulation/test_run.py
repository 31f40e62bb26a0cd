"""The event loop: nothing is lost, nothing is left, and the same seed is the same run."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.simulation.fleets import scenario
from triton_router.routing.types import Verdict
from triton_router.simulation.contenders import CONTENDERS
from triton_router.simulation.measures import compare, measure, regret
from triton_router.simulation.run import Run, Simulation

POISSON = {"kind": "poisson", "per_second": 900.0}
EPISODES = [
    {"target": "small", "from_s": 0.05, "to_s": 0.1, "fail": 0.7},
    {"target": "gpu", "from_s": 0.0, "to_s": 0.1, "slow": 5.0},
]


def live(run: Run) -> list[int]:
    return sorted(one.request for one in run.served if not one.mirrored)


@pytest.mark.parametrize("policy", CONTENDERS)
@pytest.mark.parametrize("arrivals", [{"kind": "closed", "clients": 7, "think_ms": 0.2}, POISSON])
def test_every_request_is_answered_once_and_nothing_is_left(policy: str, arrivals: dict[str, object]) -> None:
    """Whatever the policy and the trouble: each request has one answer, and what is in flight returns to zero."""
    simulation = Simulation(scenario(arrivals=arrivals, episodes=EPISODES, rules={"mirror": 0.1}), requests=200)
    run = simulation.run(policy)
    assert live(run) == list(range(200))
    assert run.left_in_flight == 0
    assert any(one.failed for one in run.served) == (policy != "oracle")
    assert all(one.ended >= one.arrived for one in run.served)


@settings(max_examples=25, deadline=None)
@given(
    clients=st.integers(1, 40),
    slots=st.integers(1, 4),
    fail=st.floats(0.0, 1.0),
    policy=st.sampled_from(CONTENDERS),
    split=st.sampled_from([{"routers": 1}, {"routers": 3}, {"cell_size": 2}]),
    seed=st.integers(0, 1000),
)
def test_conservation_holds_for_any_fleet(
    *, clients: int, slots: int, fail: float, policy: str, split: dict[str, int], seed: int
) -> None:
    """Any number of clients, devices, slots and routers, and any share of failures: one answer each, none left."""
    fleet = scenario(
        devices=[
            {"name": "cpu", "kind": "shared", "slots": slots, "copies": 5},
            {"name": "gpu", "backend": "gpu"},
        ],
        arrivals={"kind": "closed", "clients": clients},
        episodes=[{"target": "small", "from_s": 0.0, "to_s": 9.0, "fail": fail}],
        rules={"mirror": 0.05},
        **split,
    )
    run = Simulation(fleet, seed, 60).run(policy)
    assert live(run) == list(range(60))
    assert run.left_in_flight == 0


def test_observed_outcomes_are_the_runs() -> None:
    """Each of an engine's decisions is observed with its outcome, exactly once."""
    seen: list[tuple[str, Verdict, float]] = []
    simulation = Simulation(
        scenario(arrivals=POISSON, episodes=EPISODES),
        requests=200,
        observe=lambda decision, outcome, _: seen.append((decision.target.name, outcome.verdict, outcome.latency_ms)),
    )
    run = simulation.run("latency")
    names = [target.target.name for target in simulation.fleet.targets]
    verdicts = {False: Verdict.SUCCESS, True: Verdict.TARGET_ERROR}
    assert seen == [(names[one.target], verdicts[one.failed], one.latency_ms) for one in run.served]


def test_the_same_seed_is_the_same_run_and_another_is_not() -> None:
    """Two simulations with one seed agree in every figure; another seed differs."""
    fleet = scenario(arrivals=POISSON, rules={"explore": 0.05, "mirror": 0.05})
    first, second, other = (
        [measures for _, measures in compare(Simulation(fleet, seed, 300), CONTENDERS)] for seed in (4, 4, 5)
    )
    assert first == second
    assert first != other


def test_all_policies_meet_the_same_traffic_and_the_same_chance() -> None:
    """A request that two contenders send to the same idle target takes equally long, to the last bit."""
    simulation = Simulation(scenario(), requests=300)
    one, other = (
        {s.request: s for s in simulation.run(policy).served if not s.mirrored} for policy in ("random", "oracle")
    )
    same = [number for number in one if one[number].target == other[number].target]
    assert len(same) > 50
    assert [one[number].alone_ms for number in same] == [other[number].alone_ms for number in same]


def test_the_oracle_has_no_regret_and_chance_has() -> None:
    """The oracle's choices cost nothing against the best; random ones do."""
    simulation = Simulation(scenario(arrivals=POISSON), requests=400)
    assert regret(simulation.run("oracle").served) == pytest.approx(0.0, abs=1e-9)
    assert (regret(simulation.run("random").served) or 0.0) > 0.2


def test_measured_means_come_near_the_true_curve() -> None:
    """With noise and a tail, the mean of many latencies is what the curve says: the noise has mean 1."""
    noisy = scenario(
        targets=[
            {
                "name": "only",
                "device": "gpu",
                "curve": {"kind": "affine", "base_ms": 2.0},
                "noise": 0.2,
                "tail": {"share": 0.02, "factor": 5.0},
            }
        ]
    )
    simulation = Simulation(noisy, requests=6000)
    assert measure(simulation, simulation.run("random")).mean_ms == pytest.approx(2.0, rel=0.02)


def test_cells_split_the_fleet_and_stay_even() -> None:
    """Forty targets in cells of eight: all are used, and no cell has more than 1.5 times its share."""
    fleet = scenario(
        devices=[{"name": "cpu", "copies": 40}],
        targets=[
            {"name": "a", "device": "cpu", "curve": {"kind": "affine", "base_ms": 2.0}, "measured": [1, 16]},
        ],
        arrivals={"kind": "poisson", "per_second": 12_000.0},
        cell_size=8,
    )
    simulation = Simulation(fleet, requests=1500)
    run = simulation.run("latency")
    assert {one.target for one in run.served} == set(range(40))
    assert (measure(simulation, run).cell_peak or 9.0) < 1.5
