"""What requests ask of the router, and what it keeps of them, on a real Triton."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
import yaml
from tritonclient.utils import InferenceServerException

from benchmarks.fleet import MODELS
from triton_router.cli.main import main
from triton_router.serving.status_socket import read_statuses
from triton_router.testing.triton_server import triton_server

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from triton_router.testing.triton_server import TritonServer

pytestmark = pytest.mark.triton

ENOUGH = 30
"""Requests to each target, after which both are known."""

TARGETS = [
    # The build's figures say the opposite of the truth: the first is said to be slow and takes no time at all.
    {"name": "fast", "model": "tiny", "backend": "gpu", "measured_latency": [{"work": 16, "latency_ms": 50.0}]},
    {"name": "slow", "model": "batched", "backend": "cpu", "measured_latency": [{"work": 16, "latency_ms": 0.01}]},
]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A routed model over a target of no time and one of 30 ms, which its settings have the wrong way round."""
    place = tmp_path / "models"
    for model in ("tiny", "batched"):
        shutil.copytree(MODELS / model, place / model)
    # On a busy machine 3 ms are no time either.
    code = place / "batched" / "1" / "model.py"
    code.write_text(code.read_text().replace("time.sleep(0.003)", "time.sleep(0.03)"))
    (place / "routed" / "1").mkdir(parents=True)
    (place / "routed" / "config.pbtxt").write_text('backend: "router"\n')
    settings = {"targets": TARGETS, "policy": "latency", "explore": 0.0, "state": {"interval_s": 1}}
    (place / "routed" / "router.yaml").write_text(yaml.safe_dump(settings))
    return place


def inputs(client: Any) -> list[Any]:
    tensor = client.InferInput("X", [1, 16], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 16), np.float32))
    return [tensor]


def status(server: TritonServer) -> dict[str, Any]:
    (found,) = read_statuses(server.pid)
    return found


def chosen(server: TritonServer) -> dict[str, int]:
    return {target["target"]["name"]: target["chosen"] for target in status(server)["targets"]}


def ways(http: Any, grpc: Any) -> dict[str, Callable[[str, str], Any]]:
    """Return every way in which a request can say something to the router."""
    return {
        "HTTP parameter": lambda key, value: http.infer("routed", inputs(http_client), parameters={key: value}),
        "HTTP header": lambda key, value: http.infer("routed", inputs(http_client), headers={header(key): value}),
        "gRPC parameter": lambda key, value: grpc.infer("routed", inputs(grpc_client), parameters={key: value}),
        "gRPC metadata": lambda key, value: grpc.infer(
            "routed", inputs(grpc_client), headers={header(key).lower(): value}
        ),
    }


def header(parameter: str) -> str:
    return "X-" + parameter.replace("_", "-").title()


def test_requests_ask_and_what_was_learned_survives(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every way of asking reaches the router; after a restart its first decision rests on what it learned before."""
    state = tmp_path / "state"
    with (
        triton_server(repository, state=state) as server,
        http_client.InferenceServerClient(server.http_url) as http,
        grpc_client.InferenceServerClient(server.grpc_url) as grpc,
    ):
        http.infer("routed", inputs(http_client))
        assert chosen(server) == {"fast": 0, "slow": 1}, "it knows no better"
        for name, ask in ways(http, grpc).items():
            before = chosen(server)
            for _ in range(ENOUGH // 4):
                ask("router_backends", "gpu")
            ask("router_backends", "cpu")
            now = chosen(server)
            assert now["fast"] - before["fast"] == ENOUGH // 4, name
            assert now["slow"] - before["slow"] == 1, name
            with pytest.raises(InferenceServerException) as refused:
                ask("router_goal", "fastest")
            assert refused.value.status() in {"400", "StatusCode.INVALID_ARGUMENT"}, name
            assert "one of latency, throughput, power, balanced" in str(refused.value), name
            with pytest.raises(InferenceServerException) as unsupported:
                ask("router_explain", "true")
            assert unsupported.value.status() in {"501", "StatusCode.UNIMPLEMENTED"}, name
            assert "25.02" in str(unsupported.value), name
        for _ in range(ENOUGH):
            http.infer("routed", inputs(http_client), parameters={"router_backends": "cpu", "router_goal": "latency"})
        learned = {target["target"]["name"]: target["latency"]["p50_ms"] for target in status(server)["targets"]}
        assert status(server)["state"]["inherited"] == []

    assert main(["explain", "routed", "--repository", str(repository), "--state", str(state), "--shape", "1,16"]) == 0
    assert "chosen    fast" in capsys.readouterr().out
    (tmp_path / "nothing").mkdir()
    missing = str(tmp_path / "nothing")
    assert main(["explain", "routed", "--repository", str(repository), "--state", missing, "--shape", "1,16"]) == 0
    told = capsys.readouterr().out
    assert "chosen    slow" in told
    assert "build time alone" in told

    with triton_server(repository, state=state) as server:
        found = status(server)
        assert found["state"]["inherited"] == ["fast", "slow"]
        assert found["state"]["problem"] == ""
        with http_client.InferenceServerClient(server.http_url) as http:
            http.infer("routed", inputs(http_client))
        assert chosen(server) == {"fast": 1, "slow": 0}, learned
        # A server that is killed has been writing all along.
        deadline = time.monotonic() + 60
        while not status(server)["state"]["saved_at"]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
