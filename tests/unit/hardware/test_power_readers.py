"""Meters of power: on recorded trees and texts, since few machines have one."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from triton_router.hardware.nvml import NvmlReader
from triton_router.hardware.power import readers
from triton_router.hardware.power_sampling import PowerSampling
from triton_router.hardware.powermetrics import PowermetricsReader
from triton_router.hardware.rapl import RaplReader
from triton_router.profiling.figures import Figure, Source
from triton_router.profiling.profile import TargetProfile
from triton_router.routing.engine import RoutingEngine
from triton_router.routing.policies import policy_named
from triton_router.routing.types import Backend, Outcome, RoutingContext, Target, Verdict

if TYPE_CHECKING:
    from pathlib import Path

RANGE = 262_143_328_850


class Rapl:
    """A powercap tree as Linux shows it, and the time."""

    def __init__(self, root: Path) -> None:
        self.now = 0.0
        self.root = root
        for zone, name in (("intel-rapl:0", "package-0"), ("intel-rapl:1", "package-1"), ("intel-rapl:2", "psys")):
            self.zone(zone, name)
        self.zone("intel-rapl:0:0", "core")
        self.reader = RaplReader(root, lambda: self.now)

    def zone(self, zone: str, name: str) -> None:
        (self.root / zone).mkdir()
        (self.root / zone / "name").write_text(f"{name}\n")
        (self.root / zone / "max_energy_range_uj").write_text(f"{RANGE}\n")
        self.set(zone, 1000)

    def set(self, zone: str, energy: int) -> None:
        (self.root / zone / "energy_uj").write_text(f"{energy}\n")


def test_rapl_adds_up_packages_alone(tmp_path: Path) -> None:
    """Two packages of 10 and 20 W are 30 W; their parts and the platform around them do not count twice."""
    rapl = Rapl(tmp_path)
    assert rapl.reader.watts() is None, "one reading of a counter is no power"
    rapl.now = 2.0
    for zone, watts in (("intel-rapl:0", 10), ("intel-rapl:1", 20), ("intel-rapl:2", 50), ("intel-rapl:0:0", 7)):
        rapl.set(zone, 1000 + watts * 2_000_000)
    assert rapl.reader.watts() == pytest.approx(30.0)


def test_rapl_counters_wrap_around(tmp_path: Path) -> None:
    """At the end of its range a counter begins anew; no negative power comes of it."""
    rapl = Rapl(tmp_path)
    rapl.set("intel-rapl:0", RANGE - 4_000_000)
    rapl.reader.watts()
    rapl.now = 1.0
    rapl.set("intel-rapl:0", 6_000_000)
    assert rapl.reader.watts() == pytest.approx(10.0)


def test_rapl_whose_range_cannot_be_read_says_so(tmp_path: Path) -> None:
    """A counter that has wrapped around tells nothing without its range; the next two readings do again."""
    rapl = Rapl(tmp_path)
    rapl.set("intel-rapl:0", 2000)
    rapl.reader.watts()
    (tmp_path / "intel-rapl:0" / "max_energy_range_uj").unlink()
    rapl.now = 1.0
    rapl.set("intel-rapl:0", 1000)
    assert rapl.reader.watts() is None
    assert "max_energy_range_uj" in rapl.reader.problem
    rapl.now = 2.0
    rapl.set("intel-rapl:0", 5_001_000)
    assert rapl.reader.watts() == pytest.approx(5.0)


@pytest.mark.parametrize("spoil", ["permission", "garbage", "gone", "none"])
def test_rapl_that_cannot_be_read_says_so(tmp_path: Path, spoil: str) -> None:
    """No figure, and the reason; never a guess."""
    rapl = Rapl(tmp_path)
    counter = tmp_path / "intel-rapl:0" / "energy_uj"
    if spoil == "permission":  # root may read everything, so the kernel's answer is played by a directory
        counter.unlink()
        counter.mkdir()
    elif spoil == "garbage":
        counter.write_text("a lot")
    elif spoil == "gone":
        counter.unlink()
    else:
        rapl.reader = RaplReader(tmp_path / "nowhere")
    assert rapl.reader.watts() is None
    assert rapl.reader.problem


def test_two_looks_at_once_are_no_power(tmp_path: Path) -> None:
    """Dividing by next to nothing would give anything."""
    rapl = Rapl(tmp_path)
    rapl.reader.watts()
    rapl.now = 1e-6
    assert rapl.reader.watts() is None


class NvmlError(Exception):
    """As pynvml.NVMLError."""


class Nvml:
    """The part of pynvml that is used."""

    NVMLError = NvmlError

    def __init__(self, *milliwatts: int, error: str = "") -> None:
        self._milliwatts, self._error = milliwatts, error

    def nvmlInit(self) -> None:  # noqa: N802 - the library's name
        if self._error == "init":
            raise NvmlError("Driver Not Loaded")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self._milliwatts)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:  # noqa: N802
        if self._error == "read":
            raise NvmlError("Not Supported")
        return self._milliwatts[handle]


def test_nvml_adds_up_gpus() -> None:
    """Milliwatts of all GPUs become watts."""
    assert NvmlReader(Nvml(70_500, 30_000)).watts() == pytest.approx(100.5)


@pytest.mark.parametrize(
    ("library", "said"),
    [(Nvml(1, error="init"), "Driver Not Loaded"), (Nvml(1, error="read"), "Not Supported"), (Nvml(), "no GPU")],
)
def test_nvml_that_cannot_be_read_says_so(library: Any, said: str) -> None:
    """No driver, no meter, no GPU."""
    reader = NvmlReader(library)
    assert reader.watts() is None
    assert said in reader.problem


POWERMETRICS = """\
*** Sampled system activity (Tue Nov 18 12:00:00 2025 +0100) (101.23ms elapsed) ***

**** Processor usage ****
E-Cluster HW active frequency: 1087 MHz
CPU Power: 4321 mW
GPU Power: 38 mW
ANE Power: 0 mW
Combined Power (CPU + GPU + ANE): 4359 mW
"""


@pytest.mark.parametrize(("part", "watts"), [("CPU", 4.321), ("GPU", 0.038), ("ANE", 0.0)])
def test_powermetrics_is_read_by_part(part: str, watts: float) -> None:
    """In watts; the combined line is nobody's."""
    assert PowermetricsReader(part, lambda: POWERMETRICS).watts() == pytest.approx(watts)


def test_powermetrics_that_fails_says_so() -> None:
    """It needs root, and prints nothing of a part that the chip lacks."""

    def refused() -> str:
        raise subprocess.CalledProcessError(1, "powermetrics")

    reader = PowermetricsReader("CPU", refused)
    assert reader.watts() is None
    assert "only root" in reader.problem
    reader = PowermetricsReader("ANE", lambda: "CPU Power: 1 mW\n")
    assert reader.watts() is None
    assert reader.problem


class Meter:
    """A meter that shows what it is told to."""

    name, problem = "test", ""

    def __init__(self, watts: float | None) -> None:
        self.shown = watts
        self.asked = 0

    def watts(self) -> float | None:
        self.asked += 1
        return self.shown


def fleet() -> RoutingEngine:
    targets = [Target("a", "m", backend=Backend.CPU), Target("b", "m", backend=Backend.CPU)]
    return RoutingEngine(
        [(target, TargetProfile([(1, 5.0)])) for target in targets], policy_named("least-request"), rng=lambda: 0.5
    )


def power(engine: RoutingEngine) -> dict[str, Figure]:
    return {snapshot.target.name: snapshot.power_w for snapshot in engine.snapshot(0.0)}


def test_a_reading_counts_for_whoever_was_alone_at_work() -> None:
    """From one reading to the next; of two at once nobody can tell, and of an idle device nothing is learned."""
    engine = fleet()
    sampling = PowerSampling({Backend.CPU: Meter(42.0)}, engine, print)
    sampling.sample()
    first = engine.decide(RoutingContext(1, 1.0), 0.0)
    sampling.sample()
    assert power(engine)[first.target.name].source is Source.UNKNOWN, "it was idle at the reading before"
    sampling.sample()
    assert power(engine)[first.target.name] == Figure(42.0, Source.MEASURED)
    second = engine.decide(RoutingContext(1, 1.0), 0.0)
    assert second.target != first.target
    sampling.sample()
    sampling.sample()
    assert power(engine)[second.target.name].source is Source.UNKNOWN
    engine.finish(first, Outcome(Verdict.SUCCESS, 5.0), 0.0)
    sampling.sample()
    sampling.sample()
    assert power(engine)[second.target.name].source is Source.MEASURED


def test_a_meter_that_gives_nothing_is_left_alone() -> None:
    """After some tries; the status says why there is no figure."""
    meter = Meter(None)
    meter.problem = "only root may"
    sampling = PowerSampling({Backend.CPU: meter}, fleet(), print)
    for _ in range(50):
        sampling.sample()
    assert meter.asked < 10
    assert sampling.status() == {"cpu": "test: only root may"}
    sampling.start()
    sampling.close()


def test_meters_are_those_of_the_backends_in_use() -> None:
    """A routed model without a GPU does not load the GPU's library."""
    assert set(readers(frozenset({Backend.CPU}))) <= {Backend.CPU}
