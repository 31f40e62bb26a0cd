"""One served fleet that all scenarios share: three switched targets behind routed models, and two slower ones."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from triton_router.testing.chaos import Chaos
from triton_router.testing.served_triton import served_triton
from triton_router.testing.switched_fleet import SwitchedFleet

if TYPE_CHECKING:
    from collections.abc import Iterator

HEALTH = {"first_pause_s": 0.3, "longest_pause_s": 1.0, "slow_start_s": 0.3, "check_interval_s": 0.2}
"""Shorter pauses than the defaults, so that targets are back soon; the same otherwise."""

ROUTED = {"policy": "least-request", "health": HEALTH, "queue": {"limit": 5000}}
"""Settings of "routed". Requests whose clients have left count until they are executed: on a slow machine thousands."""

TARGETS = ("a", "b", "c")
SLOW_TARGETS = ("slow-a", "slow-b")
STATEFUL = Path(__file__).parents[1] / "integration" / "conformance" / "models" / "sequence"
SUMS = ("sum-a", "sum-b")
LOOSE = """\
backend: "router"
max_batch_size: 8
input { name: "X" data_type: TYPE_FP64 dims: [ -1 ] }
output { name: "Y" data_type: TYPE_FP64 dims: [ -1 ] }
"""


def write_fleet(fleet: SwitchedFleet) -> None:
    """Three targets behind three routed models that send to all of them; two slow and two stateful ones behind one."""
    for target in TARGETS:
        fleet.add_target(target)
    fleet.add_routed("routed", TARGETS, **ROUTED)
    fleet.add_routed("hedged", TARGETS, policy="least-request", health=HEALTH, hedge={"share": 0.3})
    merging = [{"name": name, "model": name, "batch_independent": True, "instances": 1} for name in TARGETS]
    fleet.add_routed("merged", merging, policy="least-request", health=HEALTH)
    # It takes more than its targets do: what is wrong for them reaches them.
    (fleet.repository / "merged" / "config.pbtxt").write_text(LOOSE)
    for target in SLOW_TARGETS:
        fleet.add_target(target, service_ms=100.0)
    # What waits at a target is executed even if its client has been refused meanwhile: little is let there.
    capped = [{"name": name, "model": name, "max_in_flight": 2} for name in SLOW_TARGETS]
    fleet.add_routed("busy", capped, policy="least-request", health=HEALTH, queue={"limit": 64})
    for target in SUMS:
        shutil.copytree(STATEFUL, fleet.repository / target)
        config = fleet.repository / target / "config.pbtxt"
        config.write_text(config.read_text().replace("idle_microseconds: 20000000", "idle_microseconds: 600000000"))
    fleet.add_routed("summed", SUMS, policy="random", health=HEALTH)


@pytest.fixture(scope="package")
def shared_chaos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chaos]:
    """The fleet, served by ``triton-router serve``."""
    directory = tmp_path_factory.mktemp("chaos")
    fleet = SwitchedFleet(directory)
    write_fleet(fleet)
    # The checks would refuse "merged", whose clients make mistakes that only its targets notice.
    with served_triton(fleet.repository, directory / "log", more=["--skip-checks"]) as served:
        yield Chaos(fleet, served)


@pytest.fixture
def chaos(shared_chaos: Chaos) -> Iterator[Chaos]:
    """The fleet, well before and after, with the same server and the same process of the routed model."""
    shared_chaos.heal("routed", *TARGETS)
    yield shared_chaos
    assert shared_chaos.served.process.poll() is None, "the server is gone"
