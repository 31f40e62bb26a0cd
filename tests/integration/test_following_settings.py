"""A routed model follows its router.yaml under load, and no request notices."""

from __future__ import annotations

import shutil
import threading
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import yaml

from benchmarks.fleet import MODELS
from triton_router.serving.status_socket import read_statuses
from triton_router.testing.load import LoadResult, closed_loop, encode
from triton_router.testing.triton_server import triton_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from triton_router.testing.triton_server import TritonServer

pytestmark = pytest.mark.triton

PATIENCE_S = 60.0
TINY, BATCHED, UNBATCHED = ({"name": name, "model": name} for name in ("tiny", "batched", "unbatched"))


class Clients:
    """Sixteen clients over HTTP and two over gRPC, until `stop`."""

    def __init__(self, server: TritonServer) -> None:
        self.answered = 0
        self.failures: list[str] = []
        self._server = server
        self._done = threading.Event()
        self._threads = [threading.Thread(target=work) for work in (self._http, self._grpc, self._grpc)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Await what is under way."""
        self._done.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "the load hangs"

    def _http(self) -> None:
        request = encode(self._server.http_url, "routed", {"X": np.ones((1, 16), np.float32)})
        while not self._done.is_set():
            result: LoadResult = closed_loop(self._server.http_url, [request], clients=16, count=10**6, seconds=0.5)
            self.answered += len(result.latencies_ms)
            self.failures += result.errors

    def _grpc(self) -> None:
        tensor = grpc_client.InferInput("X", [1, 16], "FP32")
        tensor.set_data_from_numpy(np.ones((1, 16), np.float32))
        with grpc_client.InferenceServerClient(self._server.grpc_url) as client:
            while not self._done.is_set():
                try:
                    client.infer("routed", [tensor])
                except Exception as error:  # noqa: BLE001 - whatever it is, it is a failure that a client saw
                    self.failures.append(str(error))


def status(server: TritonServer) -> dict[str, Any]:
    (found,) = read_statuses(server.pid)
    return found


def problem(server: TritonServer) -> str:
    return status(server)["settings"]["problem"]


def chosen(server: TritonServer) -> dict[str, int]:
    return {target["target"]["name"]: target["chosen"] for target in status(server)["targets"]}


def until(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def gets_all(server: TritonServer, *names: str) -> bool:
    """Whether exactly these targets are there, and each of them was chosen between two looks."""
    before = chosen(server)
    time.sleep(0.2)
    now = chosen(server)
    return set(now) == set(names) and all(now[name] > before.get(name, now[name]) for name in names)


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Path]:
    for model in ("tiny", "batched", "unbatched"):
        shutil.copytree(MODELS / model, tmp_path / model)
    config = (tmp_path / "tiny" / "config.pbtxt").read_text()
    (tmp_path / "narrow").mkdir()  # never loaded
    (tmp_path / "narrow" / "config.pbtxt").write_text(config.replace("max_batch_size: 8", "max_batch_size: 4"))
    (tmp_path / "routed" / "1").mkdir(parents=True)
    (tmp_path / "routed" / "config.pbtxt").write_text('backend: "router"\n')
    return tmp_path


def test_edits_under_load(repository: Path, tmp_path: Path) -> None:
    """Policies, weights, targets, wrong edits and right ones again: each takes effect, and no client sees a failure."""
    path = repository / "routed" / "router.yaml"

    def write(**settings: Any) -> None:
        fresh = path.with_name("router.yaml.new")
        fresh.write_text(yaml.safe_dump({"mirror": 0.0, "explore": 0.0, **settings}))
        fresh.replace(path)

    write(targets=[TINY, BATCHED], policy="random")
    options = {"control_mode": "explicit", "load_models": ["routed", "tiny", "batched", "unbatched"]}
    with triton_server(repository, state=tmp_path / "state", **options) as server:
        clients = Clients(server)
        try:
            until(lambda: gets_all(server, "tiny", "batched"), "both targets serve")

            write(targets=[TINY, BATCHED], policy="least-request")
            until(lambda: status(server)["policy"] == "least-request", "another policy")

            gpu = {**BATCHED, "backend": "gpu"}
            write(targets=[TINY, gpu], routing_rules=[{"model_name_pattern": "*", "excluded_backends": ["cpu"]}])
            until(lambda: _only(server, "batched"), "a rule excludes one")

            write(targets=[TINY, BATCHED, UNBATCHED], policy="random", dispatch={"max_concurrency": 3})
            until(lambda: gets_all(server, "tiny", "batched", "unbatched"), "a target was added")

            path.write_text(path.read_text().replace("tiny", "nowhere", 1) + "polcy: latency\n")
            until(lambda: "polcy: unknown key (did you mean 'policy'?)" in problem(server), "a wrong edit is shown")
            assert "router.yaml:" in problem(server)
            until(lambda: _metric(server, "triton_router_settings_problem") == 1, "a metric says so too")
            until(lambda: gets_all(server, "tiny", "batched", "unbatched"), "the last good settings stay")

            write(targets=[TINY, BATCHED, UNBATCHED], streaming=True)
            until(lambda: "reload the model" in problem(server), "what needs a reload is refused")

            write(targets=[TINY, {"name": "narrow", "model": "narrow"}])
            until(lambda: "has fewer rows" in problem(server), "so is who cannot serve it all")

            write(targets=[TINY, BATCHED], policy="random")
            until(lambda: gets_all(server, "tiny", "batched"), "a target was removed")
            until(lambda: not problem(server), "there is no problem with that")

            write(targets=[TINY, BATCHED, UNBATCHED], policy="random")
            until(lambda: gets_all(server, "tiny", "batched", "unbatched"), "it is back, and counted on")
            until(lambda: _metric(server, "triton_router_settings_problem") == 0, "the problem is over")
        finally:
            clients.stop()
        assert clients.failures == []
        assert clients.answered > 100
        # One of the refused edits may be seen twice where it was written in place.
        until(lambda: status(server)["settings"]["followed"] >= 5, "each good edit counts")
        until(lambda: "did you mean 'policy'?" in server.log, "the log says it")
        assert server.log.count("did you mean 'policy'?") == 1, "said once"
        until(lambda: not any(target["in_flight"] for target in status(server)["targets"]), "all is answered")

        learned = tiny(server)["latency"]
        assert learned["count"] > 0
        write(targets=[{**TINY, "version": 1}, BATCHED, UNBATCHED], policy="random")
        until(lambda: tiny(server)["target"]["version"] == 1, "its version was written down")
        assert tiny(server)["latency"] == learned, "what was learned of it stays"


def tiny(server: TritonServer) -> dict[str, Any]:
    (found,) = [target for target in status(server)["targets"] if target["target"]["name"] == "tiny"]
    return found


def _only(server: TritonServer, name: str) -> bool:
    before = chosen(server)
    time.sleep(0.2)
    now = chosen(server)
    return [target for target in now if now[target] > before[target]] == [name]


def _metric(server: TritonServer, name: str) -> float | None:
    with urllib.request.urlopen(server.metrics_url) as response:
        lines = response.read().decode().splitlines()
    found = [line for line in lines if line.startswith(name)]
    return float(found[0].rsplit(" ", 1)[1]) if found else None
