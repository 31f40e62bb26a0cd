"""What targets are expected to take before anybody has measured them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from triton_router.config.router_config import TargetConfig
from triton_router.hardware.calibration import Calibration
from triton_router.repository.manifest import MANIFEST_FILE
from triton_router.serving.target_priors import target_priors

if TYPE_CHECKING:
    from pathlib import Path

TARGETS = tuple(
    TargetConfig.model_validate({"name": name, "model": name, "backend": backend, "variant": variant})
    for name, backend, variant in (("plain", "cpu", "onnx"), ("small", "cpu", "onnx-int8"), ("gpu", "gpu", "onnx"))
)
GOOD = {"flop_count": 10**10, "parameter_count": 10**6, "memory_footprint_bytes": 4 * 10**6}


def manifest(directory: Path, characteristics: object) -> Path:
    """Write the manifest of a model of two versions, of which the newer has these characteristics."""
    versions = {"9": {"characteristics": {**GOOD, "flop_count": 1}}, "10": {"characteristics": characteristics}}
    (directory / MANIFEST_FILE).write_text(json.dumps({"schema": 1, "versions": versions}))
    return directory


def test_the_newest_versions_arithmetic_counts(tmp_path: Path) -> None:
    """10 GFLOP take 100 ms on the documented processor, half of that in int8, and a hundredth on a GPU."""
    priors = target_priors(manifest(tmp_path, GOOD), TARGETS, None)
    assert priors["plain"].latency_ms(1.0) == pytest.approx(100.0, rel=0.01)
    assert priors["small"].latency_ms(1.0) == pytest.approx(50.0, rel=0.01)
    assert priors["gpu"].latency_ms(1.0) == pytest.approx(1.0, rel=0.1)


def test_a_measured_processor_replaces_the_documented_one(tmp_path: Path) -> None:
    """Of the processor alone: nothing was measured of the GPU."""
    known = target_priors(manifest(tmp_path, GOOD), TARGETS, None)
    measured = target_priors(tmp_path, TARGETS, Calibration("here", 400.0, 50.0))
    assert measured["plain"].latency_ms(1.0) == pytest.approx(25.0, rel=0.01)
    assert measured["gpu"] == known["gpu"]


@pytest.mark.parametrize(
    "characteristics", [None, [], "x", {}, {"flop_count": -1}, {"flop_count": True}, {"flop_count": 10**30}]
)
def test_what_says_nothing_gives_no_prior(tmp_path: Path, characteristics: object) -> None:
    """Absent, empty, of another kind, or impossible."""
    assert target_priors(manifest(tmp_path, characteristics), TARGETS, None) == {}


@pytest.mark.parametrize("text", [None, "", "{", '{"schema": 99, "versions": {}}', '{"schema": 1, "versions": {}}'])
def test_a_model_without_a_manifest_loads_all_the_same(tmp_path: Path, text: str | None) -> None:
    """Written by hand, or broken: serving needs no prior."""
    if text is not None:
        (tmp_path / MANIFEST_FILE).write_text(text)
    assert target_priors(tmp_path, TARGETS, None) == {}
