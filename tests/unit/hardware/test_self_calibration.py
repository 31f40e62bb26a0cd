"""What this machine can do is measured once, kept, and believed only if it is this kind of machine's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from triton_router.hardware.calibration import CALIBRATION_FILE, calibrate, keep_calibrated, read_calibration
from triton_router.hardware.machine import machine_name

if TYPE_CHECKING:
    from pathlib import Path


def test_figures_are_those_of_a_processor() -> None:
    """Between a slow core and a large server, in the units that they claim."""
    found = calibrate(0.02)
    assert 0.1 < found.gflops < 1e5
    assert 0.1 < found.bandwidth_gb_s < 1e4
    assert found.machine == machine_name()


def test_it_is_measured_once(tmp_path: Path) -> None:
    """The second start takes what the first one wrote."""
    first = keep_calibrated(tmp_path / "state")
    assert keep_calibrated(tmp_path / "state") == first
    assert read_calibration(tmp_path / "state", machine_name()) == first


@pytest.mark.parametrize(
    "change", [{"machine": "another"}, {"gflops": -1.0}, {"gflops": 1e300}, {"bandwidth_gb_s": "x"}, {"gflops": True}]
)
def test_what_is_not_of_this_machine_is_measured_again(tmp_path: Path, change: dict[str, object]) -> None:
    """Another machine's figures, and figures of no machine."""
    good = {"machine": machine_name(), "gflops": 100.0, "bandwidth_gb_s": 20.0}
    (tmp_path / CALIBRATION_FILE).write_text(json.dumps(good))
    assert read_calibration(tmp_path, machine_name()) is not None
    (tmp_path / CALIBRATION_FILE).write_text(json.dumps({**good, **change}))
    assert read_calibration(tmp_path, machine_name()) is None
    assert keep_calibrated(tmp_path).gflops > 0


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 4000, '{"gflops": NaN}'])
def test_a_broken_file_is_measured_again(tmp_path: Path, text: str) -> None:
    """And replaced."""
    (tmp_path / CALIBRATION_FILE).write_text(text)
    assert read_calibration(tmp_path, machine_name()) is None
    keep_calibrated(tmp_path)
    assert read_calibration(tmp_path, machine_name()) is not None


def test_a_machine_is_told_by_its_processor_and_gpus(tmp_path: Path) -> None:
    """From what Linux shows; one without cpuinfo has a name too."""
    gpu = tmp_path / "proc" / "driver" / "nvidia" / "gpus" / "0000:01:00.0"
    gpu.mkdir(parents=True)
    (gpu / "information").write_text("Model: \t\t NVIDIA L4\nIRQ: 1\n")
    (tmp_path / "proc" / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nmodel name\t: Other\n")
    name = machine_name(tmp_path)
    assert "Some CPU @ 2 GHz" in name
    assert name.endswith("NVIDIA L4")
    assert machine_name(tmp_path / "nowhere")
