"""Two instances of one routed model, on a real Triton: they learn as one and count each other's load."""

from __future__ import annotations

import shutil
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.http as http_client
import yaml

from benchmarks.fleet import MODELS
from triton_router.serving.status_socket import read_statuses
from triton_router.testing.load import closed_loop, encode
from triton_router.testing.triton_server import triton_server

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from triton_router.testing.triton_server import TritonServer

pytestmark = pytest.mark.triton

TARGETS = [{"name": "left", "model": "batched"}, {"name": "right", "model": "other"}]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A routed model of two instances over two targets of 3 ms each, on devices of their own."""
    place = tmp_path / "models"
    for name in ("batched", "other"):
        shutil.copytree(MODELS / "batched", place / name)
    config = place / "other" / "config.pbtxt"
    config.write_text(config.read_text().replace('name: "batched"', 'name: "other"'))
    (place / "routed" / "1").mkdir(parents=True)
    (place / "routed" / "config.pbtxt").write_text(
        'backend: "router"\ninstance_group [ { kind: KIND_CPU count: 2 } ]\n'
    )
    targets = [{**target, "device": target["name"]} for target in TARGETS]
    settings = {"targets": targets, "policy": "least-request", "mirror": 0.0, "state": {"interval_s": 3600}}
    (place / "routed" / "router.yaml").write_text(yaml.safe_dump(settings))
    return place


def statuses(server: TritonServer) -> list[dict[str, Any]]:
    return read_statuses(server.pid)


def until(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def per_target(status: dict[str, Any], value: Callable[[dict[str, Any]], float]) -> dict[str, float]:
    return {target["target"]["name"]: value(target) for target in status["targets"]}


def knows(status: dict[str, Any]) -> float:
    return sum(per_target(status, lambda target: target["latency"]["count"]).values())


def is_under_way(status: dict[str, Any]) -> bool:
    return any(target["in_flight"] or target["peers_in_flight"] for target in status["targets"])


def published(server: TritonServer) -> float:
    with urllib.request.urlopen(server.metrics_url) as response:
        lines = response.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("triton_router_requests_total"))


def test_two_instances_learn_as_one_and_share_load(repository: Path, tmp_path: Path) -> None:
    """Both serve, both know what either was answered, load is even, counts are exact; a reload loses no learning."""
    options: dict[str, Any] = {"control_mode": "explicit", "load_models": ["*"], "state": tmp_path / "state"}
    with triton_server(repository, **options) as server:
        request = encode(server.http_url, "routed", {"X": np.ones((1, 16), np.float32)})
        until(lambda: [one["sharing"]["instances"] for one in statuses(server)] == [2, 2], "they see each other")
        result = closed_loop(server.http_url, [request], clients=16, count=2000, seconds=5.0)
        assert result.failed == 0, result.errors[:1]
        total = len(result.latencies_ms)
        # What was told last is heard at a later look; what would be learned twice is at one more.
        until(lambda: all(knows(one) >= 0.9 * total for one in statuses(server)), "each learned from all answers")
        until(lambda: not any(is_under_way(one) for one in statuses(server)), "nothing is under way, here or there")
        time.sleep(0.5)

        found = statuses(server)
        chosen = [sum(per_target(one, lambda target: target["chosen"]).values()) for one in found]
        assert sum(chosen) == total
        assert min(chosen) > total / 10, "both were asked"
        for one in found:
            shares = per_target(one, lambda target: target["chosen"])
            assert min(shares.values()) > 0.3 * sum(shares.values()), "neither target was herded to"
            assert 0.9 * total <= knows(one) <= total, "each learned from all answers, from none twice"
            assert one["sharing"]["problem"] == ""
            assert not is_under_way(one)
        until(lambda: published(server) == total, "each request is counted once")

        # The old instances have written nothing yet: they do when the new ones ask.
        settings = repository / "routed" / "router.yaml"
        settings.write_text(settings.read_text() + "# Triton reloads what has changed\n")
        with http_client.InferenceServerClient(server.http_url, network_timeout=60) as client:
            client.load_model("routed")
        until(
            lambda: [sorted(one["state"]["inherited"]) for one in statuses(server)] == [["left", "right"]] * 2,
            "the new ones begin with what the old ones knew",
        )
        for one in statuses(server):
            assert knows(one) >= 0.9 * total, "what was learned since the last snapshot is not lost"
    (snapshot,) = (tmp_path / "state").glob("*.json")
    assert snapshot.stat().st_mode & 0o777 == 0o600
    assert not list((tmp_path / "state").glob("*corrupt*"))
