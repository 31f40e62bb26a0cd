"""The original's routing settings in router.yaml are what a real Triton goes by."""

from __future__ import annotations

import shutil
import time
import urllib.request
from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaml

from benchmarks.fleet import MODELS, synthetic_cases
from triton_router.testing.load import closed_loop, encode
from triton_router.testing.triton_server import triton_server

if TYPE_CHECKING:
    from pathlib import Path

    from triton_router.testing.triton_server import TritonServer

pytestmark = pytest.mark.triton

PATIENCE_S = 60.0
REQUESTS = 60
SIBLINGS = [case.siblings[0] for case in synthetic_cases()[:2]]
SETTINGS = {
    "default": {},
    "excluded": {"routing_rules": [{"model_name_pattern": "exc*", "policy": "random", "excluded_backends": ["cuda"]}]},
    "experiment": {
        "ab_tests": [
            {
                "experiment_id": "e",
                "control_policy": "random",
                "treatment_policy": {"name": "power"},
                "treatment_percentage": "0.0",
            }
        ],
        "router_config": {"metrics_interval": 1},
    },
    "silent": {"router_config": {"enable_metrics": False}},
}


def answered(server: TritonServer) -> dict[tuple[str, str], float]:
    """Return how many requests each target of each routed model has answered, by Triton's metrics."""
    with urllib.request.urlopen(server.metrics_url) as response:
        lines = response.read().decode().splitlines()
    found: dict[tuple[str, str], float] = {}
    for line in lines:
        if line.startswith("triton_router_requests_total{") and 'outcome="success"' in line:
            labels = dict(part.split("=", 1) for part in line.split("{")[1].split("}")[0].split(","))
            found[labels["model"].strip('"'), labels["target"].strip('"')] = float(line.rsplit(" ", 1)[1])
    return found


def total(model: str, counts: dict[tuple[str, str], float]) -> float:
    return sum(count for (routed, _), count in counts.items() if routed == model)


def test_rules_experiments_and_switches_count_in_triton(tmp_path: Path) -> None:
    """An excluded backend gets nothing, an experiment's arm decides, and metrics can be switched off."""
    for sibling in SIBLINGS:
        shutil.copytree(MODELS / sibling, tmp_path / sibling)
    targets = [
        {"name": "first", "model": SIBLINGS[0], "backend": "cpu"},
        {"name": "second", "model": SIBLINGS[1], "backend": "gpu"},
    ]
    for model, settings in SETTINGS.items():
        (tmp_path / model / "1").mkdir(parents=True)
        (tmp_path / model / "config.pbtxt").write_text('backend: "router"\n')
        (tmp_path / model / "router.yaml").write_text(yaml.safe_dump({"targets": targets, "mirror": 0, **settings}))
    with triton_server(tmp_path) as server:
        for model in SETTINGS:
            request = encode(server.http_url, model, {"X": np.ones((1, 16), np.float32)})
            result = closed_loop(server.http_url, [request], clients=1, count=REQUESTS, seconds=60.0)
            assert result.failed == 0
        time.sleep(2.5)  # whoever publishes has done so by then, or not if it is the silent one
        deadline = time.monotonic() + PATIENCE_S
        while any(total(model, counts := answered(server)) != REQUESTS for model in SETTINGS if model != "silent"):
            assert time.monotonic() < deadline, counts
            time.sleep(0.2)
    assert counts["excluded", "first"] == counts["default", "first"] + counts["default", "second"] == REQUESTS
    assert counts["excluded", "second"] == 0
    assert min(counts["experiment", "first"], counts["experiment", "second"]) > 10
    assert not [model for model, _ in counts if model == "silent"]
