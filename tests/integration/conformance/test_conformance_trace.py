"""A traced request shows its target's span under the routed model's."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tritonclient.grpc as grpc_client

from triton_router.testing.triton_server import triton_server

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.triton


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
