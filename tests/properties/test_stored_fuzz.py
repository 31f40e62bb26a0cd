"""Whatever lies in the state directory or a decision log, it is used or refused by name."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from functools import cache
from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.properties.hostile import PROFILE, VALUES, changed, refused_well
from triton_router.errors import TritonRouterError
from triton_router.hardware.calibration import CALIBRATION_FILE, read_calibration
from triton_router.profiling.profile import TargetProfile
from triton_router.routing.policies import policy_named
from triton_router.simulation.replay import replay
from triton_router.telemetry.decision_reading import read_decision_log
from triton_router.telemetry.inheritance import profiles_in
from triton_router.telemetry.snapshot_file import read_snapshot

DECISION: dict[str, Any] = {
    "schema": 1,
    "kind": "decision",
    "time": 1.0,
    "monotonic": 1.0,
    "model": "m",
    "rows": 1,
    "work": 16,
    "goal": "latency",
    "max_latency_ms": 5.0,
    "allowed_backends": ["cpu"],
    "policy": "latency",
    "reason": "policy",
    "target": "a",
    "propensity": 0.9,
    "ahead": 0.0,
    "considered": [{"target": "a", "score": 0.8, "expected_ms": 1.0}, {"target": "b", "score": 0.2, "expected_ms": 2}],
    "rejected": [{"target": "c", "reason": "resting"}],
    "verdict": "success",
    "latency_ms": 1.1,
    "attempts": 1,
}
START: dict[str, Any] = {
    "schema": 1,
    "kind": "start",
    "model": "m",
    "policy": "latency",
    "targets": [{"name": "a", "measured": [[16, 1.0]]}, {"name": "b", "backend": "gpu", "power_w": 3.0}],
}


@cache
def _snapshot() -> dict[str, Any]:
    rng, profile = random.Random(3), TargetProfile([(16, 1.0)])
    for _ in range(40):
        rows = rng.choice([1, 2, 4])
        expected = profile.predict_latency(16.0 * rows, rows)
        profile.record_latency(rows * rng.uniform(0.9, 1.1), 16.0 * rows, expected, alone=True, rows=rows)
    identity = {"model": "m-a", "version": None, "backend": "cpu", "variant": "", "measured": [[16, 1.0]]}
    return {
        "format": "triton-router snapshot",
        "schema_version": 1,
        "model": "m",
        "instance": "host",
        "machine": "x86_64",
        "origins": ["o"],
        "written_at": 1.0,
        "targets": {"a": {"identity": identity, "profile": profile.state()}},
    }


def _take_snapshot(data: bytes) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "snapshot.json"
        path.write_bytes(data)
        try:
            profiles = profiles_in(read_snapshot(path), expected_model="m")
        except TritonRouterError as error:
            refused_well(error)
            return
    for profile in profiles.values():
        predicted = profile.predict_latency(64.0, 4)
        assert isfinite(predicted)
        assert predicted >= 0.0


def _take_log(data: bytes) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "decisions.jsonl"
        path.write_bytes(data)
        try:
            trace = read_decision_log(path)
            replay(trace, policy_named("latency"))
        except TritonRouterError as error:
            refused_well(error)


@PROFILE
@given(data=st.deferred(lambda: changed(_snapshot())) | VALUES)
@example(data={**_snapshot(), "schema_version": 10**4000})
@example(data={**_snapshot(), "schema_version": True})
@example(data={**_snapshot(), "model": "\x1b[2J" * 100})
@example(data={**_snapshot(), "\x1b[2J" * 10_000: 1})
@example(data={**_snapshot(), "targets": {"\n" * 500: {}}})
@example(data={**_snapshot(), "written_at": float("inf")})
def test_any_snapshot_predicts_or_is_refused(data: Any) -> None:
    """What is believed gives finite predictions; what is not is refused whole."""
    _take_snapshot(json.dumps(data).encode())


@PROFILE
@given(data=st.binary(max_size=60), at=st.floats(0, 1))
@example(data=b'{"a":' * 100_000, at=0.0)
@example(data=b"\xff\xfe", at=0.0)
@example(data=b"9" * 5_000, at=0.0)
def test_any_bytes_of_a_snapshot_are_taken_or_refused(data: bytes, at: float) -> None:
    """A file cut off, or spoilt in the middle, or of anything else."""
    whole = json.dumps(_snapshot()).encode()
    place = int(at * len(whole))
    _take_snapshot(data)
    _take_snapshot(whole[:place] + data + whole[place + len(data) :])


@PROFILE
@given(lines=st.lists(changed(DECISION) | changed(START) | VALUES, min_size=1, max_size=3), cut=st.integers(0, 40))
@example(lines=[{**DECISION, "schema": 10**4000}], cut=0)
@example(lines=[{**DECISION, "rows": 10**400}], cut=0)
@example(lines=[{**DECISION, "work": 10**400}], cut=0)
@example(lines=[{**DECISION, "model": "\x1b[2J" * 10_000}, DECISION], cut=0)
@example(lines=[{**DECISION, "model": "\ud800"}], cut=0)
@example(lines=[{**DECISION, "propensity": 1e-320}], cut=0)
@example(lines=[{**DECISION, "latency_ms": 1e308, "monotonic": -1e308}], cut=0)
def test_any_decision_log_is_replayed_or_refused(lines: list[Any], cut: int) -> None:
    """Beside good lines, so that what is odd is not only refused for being alone."""
    good = json.dumps(START) + "\n" + json.dumps(DECISION) + "\n"
    text = good + "".join(json.dumps(line) + "\n" for line in lines)
    _take_log(text.encode()[: len(text) - cut])


@PROFILE
@given(data=st.binary(max_size=80))
@example(data=b'{"a":' * 1_000)
@example(data=b"9" * 5_000)
def test_any_bytes_of_a_log_are_read_or_refused(data: bytes) -> None:
    """Lines of anything."""
    _take_log(data)
    _take_log((json.dumps(DECISION) + "\n").encode() + data)


@PROFILE
@given(data=VALUES | changed({"machine": "m", "gflops": 1.0, "bandwidth_gb_s": 2.0}), raw=st.binary(max_size=40))
@example(data={"machine": "m", "gflops": 10**400, "bandwidth_gb_s": True}, raw=b"[" * 4_000)
def test_any_calibration_is_plausible_or_measured_again(data: Any, raw: bytes) -> None:
    """Never an error: what cannot be used counts as not there."""
    with TemporaryDirectory() as directory:
        for text in (json.dumps(data).encode(), raw):
            (Path(directory) / CALIBRATION_FILE).write_bytes(text)
            found = read_calibration(Path(directory), "m")
            assert found is None or 0.0 < found.gflops < 1e7 > found.bandwidth_gb_s > 0.0


_CHILD = """
import resource, sys
from pathlib import Path
from tests.properties.test_stored_fuzz import _snapshot
from triton_router.errors import TritonRouterError
from triton_router.telemetry.decision_reading import read_decision_log
from triton_router.telemetry.snapshot_file import MAX_BYTES, read_snapshot
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (320 << 20),) * 2)
path = Path(sys.argv[1])
for read, most in ((read_snapshot, MAX_BYTES), (read_decision_log, 1 << 20)):
    for unit in (b"[", b"[],", b'"",', b"9", b"{},"):
        path.write_bytes(b"[" + unit * ((most - 2) // len(unit)))
        try:
            read(path)
        except TritonRouterError as error:
            print(len(error.message) < 1000)
    with path.open("wb") as file:
        file.truncate(1 << 40)
    try:
        read(path)
    except TritonRouterError as error:
        print(len(error.message) < 1000)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS holds on Linux alone")
def test_no_stored_file_fills_the_memory(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """A terabyte of nothing is not read, and the densest JSON of the largest size fits into 320 MB."""
    told = subprocess.run(
        [sys.executable, "-c", _CHILD, str(tmp_path / "file")],
        cwd=pytestconfig.rootpath,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.stdout.split() == ["True"] * 12, told.stderr
