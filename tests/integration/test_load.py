"""Under load: no error, no leak, and /dev/shm as large as the documentation says."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaml

from triton_router.serving.status_socket import read_statuses
from triton_router.testing.load import closed_loop, encode
from triton_router.testing.triton_server import triton_server

if TYPE_CHECKING:
    from triton_router.testing.triton_server import TritonServer

pytestmark = pytest.mark.triton

REQUESTS = 20_000
CLIENTS = 32
LARGEST_BYTES = 8 * 4096 * 4


def repository_with_two_targets(directory: Path) -> Path:
    """The tiny and the batched model of the benchmarks behind one name."""
    models = Path(__file__).resolve().parents[2] / "benchmarks" / "models"
    for name in ("tiny", "batched"):
        shutil.copytree(models / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    (directory / "routed" / "1").mkdir(parents=True)
    (directory / "routed" / "config.pbtxt").write_text('backend: "router"\n')
    targets = [{"name": name, "model": name} for name in ("tiny", "batched")]
    # Both are used all the time, whichever is the faster.
    (directory / "routed" / "router.yaml").write_text(yaml.safe_dump({"targets": targets, "policy": "least-request"}))
    return directory


def stub_of(server: TritonServer, model: str) -> int:
    """Return the process id of a model's stub: its first argument is the path of the model."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().split(b"\0")
            parent = int((process / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):  # it ended meanwhile
            continue
        if parent == server.pid and len(arguments) > 1 and f"/{model}/1/".encode() in arguments[1]:
            return int(process.name)
    raise AssertionError(f"no stub process for {model}")


def resident_kilobytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def private_kilobytes(pid: int) -> int:
    """Memory that is the process's own: RSS without the shared regions, which grow to their bound and stay."""
    fields = dict(line.split(":") for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return sum(int(fields[name].split()[0]) for name in ("Private_Clean", "Private_Dirty"))


def shared_memory_bytes(server: TritonServer) -> int:
    """Return the sum of the regions that the server's own stubs hold."""
    mapped = {line.split()[-1] for line in Path(f"/proc/{server.pid}/maps").read_text().splitlines()}
    regions = [Path(name) for name in mapped if "_backend_shm_region_" in name]
    return sum(region.stat().st_size for region in regions)


def test_twenty_thousand_requests(tmp_path: Path) -> None:
    """20,000 requests of mixed sizes at 32 clients: none fails, counts are exact, memory stays where it was."""
    with triton_server(repository_with_two_targets(tmp_path)) as server:
        rng = np.random.default_rng(3)
        requests = [
            encode(server.http_url, "routed", {"X": rng.random((rows, length), dtype=np.float32)})
            for rows in (1, 2, 5, 8)
            for length in (1, 16, 300, 4096)
        ]
        warm_up = 4000
        first = closed_loop(server.http_url, requests, clients=CLIENTS, count=warm_up, seconds=120)
        stub = stub_of(server, "routed")
        before = (resident_kilobytes(stub), private_kilobytes(stub), shared_memory_bytes(server))
        result = closed_loop(server.http_url, requests, clients=CLIENTS, count=REQUESTS, seconds=240)
        after = (resident_kilobytes(stub), private_kilobytes(stub), shared_memory_bytes(server))

        print(f"{result.throughput:.0f}/s; RSS, private kB, shared bytes: {before} -> {after}")
        assert (first.failed, result.failed) == (0, 0), result.errors
        assert len(result.latencies_ms) == REQUESTS
        status = wait_until_idle(server)
        assert sum(target["succeeded"] for target in status["targets"]) == warm_up + REQUESTS
        assert all(target["succeeded"] > REQUESTS / 10 for target in status["targets"])
        assert after[0] <= before[0] * 1.1, f"RSS grew from {before[0]} to {after[0]} kB"
        assert after[1] <= before[1] * 1.1, f"private memory grew from {before[1]} to {after[1]} kB"
        # docs/serving.md: a stub's region grows to the largest (in + out) in flight at once and never shrinks.
        stubs = 3
        bound = stubs * (2 * LARGEST_BYTES * CLIENTS + (16 << 20))
        assert after[2] <= bound, f"/dev/shm holds {after[2]} bytes, more than {bound}"


def wait_until_idle(server: TritonServer) -> dict[str, object]:
    deadline = time.monotonic() + 60
    while True:
        status = read_statuses(server.pid)[0]
        if not sum(target["in_flight"] for target in status["targets"]):
            return status
        assert time.monotonic() < deadline, "requests are still counted as in flight"
        time.sleep(0.02)
