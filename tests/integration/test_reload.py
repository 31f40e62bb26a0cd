"""Reloading under load: no request is lost, the server lives, and its metrics go on."""

from __future__ import annotations

import shutil
import threading
import time
import urllib.request
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tritonclient.http as http_client
import yaml

from benchmarks.fleet import MODELS, synthetic_cases
from triton_router.testing.load import LoadResult, closed_loop, encode
from triton_router.testing.triton_server import triton_server

if TYPE_CHECKING:
    from pathlib import Path

    from triton_router.testing.triton_server import TritonServer

pytestmark = pytest.mark.triton

RELOADS = 6


def served(server: TritonServer) -> float:
    """Return how many requests Triton's metrics say were answered by the targets of ``routed``."""
    with urllib.request.urlopen(server.metrics_url) as response:
        lines = response.read().decode().splitlines()
    wanted = [line for line in lines if line.startswith("triton_router_requests_total") and 'model="routed"' in line]
    return sum(float(line.rsplit(" ", 1)[1]) for line in wanted)


def test_reloading_the_routed_model_under_load(tmp_path: Path) -> None:
    """Six real reloads under 16 clients, metrics scraped meanwhile: nothing fails and nothing is miscounted."""
    for case in synthetic_cases()[:2]:
        shutil.copytree(MODELS / case.siblings[0], tmp_path / case.siblings[0])
    (tmp_path / "routed" / "1").mkdir(parents=True)
    (tmp_path / "routed" / "config.pbtxt").write_text('backend: "router"\n')
    settings = tmp_path / "routed" / "router.yaml"
    targets = [{"name": case.siblings[0], "model": case.siblings[0]} for case in synthetic_cases()[:2]]
    settings.write_text(yaml.safe_dump({"targets": targets, "policy": "least-request"}))

    options = {"control_mode": "explicit", "load_models": ["*"]}
    with triton_server(tmp_path, **options) as server:
        request = encode(server.http_url, "routed", {"X": np.ones((1, 16), np.float32)})
        result = LoadResult()
        done = threading.Event()

        def load() -> None:
            while not done.is_set():
                part = closed_loop(server.http_url, [request], clients=16, count=100_000, seconds=1.0)
                result.latencies_ms += part.latencies_ms
                result.failed += part.failed
                result.errors += part.errors

        worker = threading.Thread(target=load)
        worker.start()
        seen: list[float] = []
        try:
            with http_client.InferenceServerClient(server.http_url, network_timeout=60) as client:
                for number in range(RELOADS):
                    time.sleep(0.5)
                    settings.write_text(settings.read_text() + f"# edit {number}\n")
                    client.load_model("routed")
                    seen.append(served(server))
        finally:
            done.set()
            worker.join(60)
        assert not worker.is_alive(), "the load hangs"
        assert result.failed == 0, result.errors[:1]
        assert seen == sorted(seen)
        deadline = time.monotonic() + 60
        while served(server) != len(result.latencies_ms):
            assert time.monotonic() < deadline, (served(server), len(result.latencies_ms))
            time.sleep(0.2)
