"""Routed equals direct where the server was started with more than its defaults: traces and forwarded headers."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client

from triton_router.testing.triton_server import triton_server

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.triton, pytest.mark.beside]


def test_the_targets_span_is_a_child(conformance_repository: Path, tmp_path: Path) -> None:
    """Triton's trace of one routed request has the target's activity, with the routed model's span as parent."""
    repository = tmp_path / "models"
    for name in ("batch", "routed-batch"):
        shutil.copytree(conformance_repository / name, repository / name)
    trace = tmp_path / "trace.json"
    options = ("mode=triton", f"triton,file={trace}", "rate=1", "level=TIMESTAMPS")
    extra = [f"--trace-config={option}" for option in options]
    with triton_server(repository, extra=extra) as server, grpc_client.InferenceServerClient(server.grpc_url) as client:
        tensor = grpc_client.InferInput("X", [1, 2], "FP32")
        tensor.set_data_from_numpy(np.ones((1, 2), np.float32))
        client.infer("routed-batch", [tensor])
    entries = json.loads(trace.read_text())
    spans = {entry["model_name"]: entry for entry in entries if "model_name" in entry}
    assert spans["batch"]["parent_id"] == spans["routed-batch"]["id"]


def test_forwarded_headers_reach_the_target(conformance_repository: Path, tmp_path: Path) -> None:
    """Headers that the server makes parameters arrive at the target as parameters, over both protocols."""
    repository = tmp_path / "models"
    for name in ("report", "routed-report"):
        shutil.copytree(conformance_repository / name, repository / name)
    extra = ["--http-header-forward-pattern=x-.*", "--grpc-header-forward-pattern=x-.*"]
    with (
        triton_server(repository, extra=extra) as server,
        grpc_client.InferenceServerClient(server.grpc_url) as over_grpc,
        http_client.InferenceServerClient(server.http_url) as over_http,
    ):
        for client, module in ((over_grpc, grpc_client), (over_http, http_client)):
            answers = []
            for model in ("report", "routed-report"):
                tensor = module.InferInput("X", [1], "FP32")
                tensor.set_data_from_numpy(np.ones(1, np.float32))
                result = client.infer(model, [tensor], headers={"x-tenant": "blue", "y-other": "no"})
                answers.append(json.loads(result.as_numpy("SEEN")[0]))
            assert answers[0]["parameters"] == {"x-tenant": "blue"}
            assert answers[1] == answers[0]
