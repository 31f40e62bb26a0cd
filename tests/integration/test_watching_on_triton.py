"""A served Triton on its bad days: processes killed, APIs closed, drained under load. Figures are printed with -s."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from triton_router.serving.stub_processes import StubScan
from triton_router.testing.load import closed_loop, encode
from triton_router.testing.ports import free_ports
from triton_router.testing.triton_server import triton_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.triton

SLEEPY = """import time
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        time.sleep({seconds})
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", r.inputs()[0].as_numpy())]) for r in requests]
"""
CONFIG = """backend: "python"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ -1 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ -1 ] }
instance_group { kind: KIND_CPU count: 1 }
"""
BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]})
PATIENCE_S = 90.0


def write_models(repository: Path) -> None:
    """Write two targets, the routed model over them, and a model beside them."""
    for name, seconds in (("a", 0.01), ("b", 0.3), ("beside", 0.002)):
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "1" / "model.py").write_text(SLEEPY.format(seconds=seconds))
        (repository / name / "config.pbtxt").write_text(CONFIG)
    for name, targets in (("routed", ("a", "b")), ("slow", ("b",))):
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text('backend: "router"\n')
        (repository / name / "router.yaml").write_text(
            json.dumps({"targets": [{"name": target, "model": target} for target in targets]})
        )


def get(url: str, headers: dict[str, str] | None = None, method: str = "GET") -> tuple[int, Any]:
    """Return the status and the JSON of an answer."""
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=headers or {}, method=method), timeout=60
        ) as one:
            return one.status, json.loads(one.read() or b"null")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read() or b"null")


def until(is_so: Callable[[], object], what: str) -> float:
    """Wait until it is so; return how long that took."""
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() - began < PATIENCE_S, f"not {what}"
        time.sleep(0.02)
    return time.monotonic() - began


def kill_stub(server: int, model: str) -> None:
    """Kill the process of a model."""
    (stub,) = [stub for stub in StubScan(server).look().live if stub.model == model]
    os.kill(stub.pid, signal.SIGKILL)


@dataclass
class Serving:
    """A running ``triton-router serve``."""

    process: subprocess.Popen[str]
    http: int
    grpc: int
    log: Path
    health: str = ""
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def server(self) -> int:
        """Process id of tritonserver."""
        return get(f"{self.health}/live")[1]["server_pid"]

    def ready(self, model: str = "") -> tuple[int, Any]:
        """Return what the sidecar says."""
        return get(f"{self.health}/ready/{model}" if model else f"{self.health}/ready")


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    """A server with its sidecar, its runtime directory apart from other tests'."""
    write_models(tmp_path / "models")
    (tmp_path / "run").mkdir()
    http_port, grpc_port, metrics_port = free_ports(3)
    words = [sys.executable, "-m", "triton_router.cli.main", "serve", "--repository", str(tmp_path / "models")]
    words += [f"--http-port={http_port}", f"--grpc-port={grpc_port}", f"--metrics-port={metrics_port}", "--json"]
    words += ["--health-port=0", "--drain-grace=3", "--drain-timeout=10", "--no-state"]
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    log = tmp_path / "log"
    with (
        log.open("w") as stream,
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=stream, text=True, env=environment) as process,
    ):
        served = Serving(process, http_port, grpc_port, log, environment=environment)
        text = ""
        for line in process.stdout:
            text += line
            if line.startswith("}"):
                break
        assert text, log.read_text()
        served.health = json.loads(text)["health"].removesuffix("/ready")
        yield served
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(90)
            process.kill()


class Clients:
    """Clients over HTTP and gRPC that ask until they are told to stop, each on a connection of its own."""

    def __init__(self, serving: Serving, model: str) -> None:
        self._serving, self._model = serving, model
        self.answers: list[tuple[float, str]] = []
        self.stop = threading.Event()
        self._threads = [threading.Thread(target=one) for one in (self._http, self._http, self._grpc, self._grpc)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Stop, and wait for the last answers."""
        self.stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()

    def _http(self) -> None:
        while not self.stop.is_set():
            began = time.monotonic()
            connection = http.client.HTTPConnection("127.0.0.1", self._serving.http, timeout=PATIENCE_S)
            try:
                connection.request("POST", f"/v2/models/{self._model}/infer", BODY)
                answer = connection.getresponse()
                text = answer.read()
                self.answers.append((began, "" if answer.status == 200 else repr(text)))
            except (OSError, http.client.HTTPException) as error:
                self.answers.append((began, repr(error)))
            finally:
                connection.close()

    def _grpc(self) -> None:
        tensor = triton_grpc.InferInput("x", [1, 2], "FP32")
        tensor.set_data_from_numpy(np.ones((1, 2), np.float32))
        with triton_grpc.InferenceServerClient(f"127.0.0.1:{self._serving.grpc}") as client:
            while not self.stop.is_set():
                began = time.monotonic()
                try:
                    client.infer(self._model, [tensor], client_timeout=PATIENCE_S)
                    self.answers.append((began, ""))
                except InferenceServerException as error:
                    self.answers.append((began, str(error)))


def test_a_served_triton_survives_its_bad_day(serving: Serving) -> None:
    """Killed processes are noticed and replaced, others lose nothing; admin APIs are closed; a drain loses nothing."""
    the_apis_are_closed_but_to_its_user(serving)
    killed_processes_are_replaced(serving)
    a_drain_loses_nothing(serving)


def the_apis_are_closed_but_to_its_user(serving: Serving) -> None:
    """Without the key: 403 over HTTP, an error over gRPC; the user's own commands find it; inference is open."""
    base = f"http://127.0.0.1:{serving.http}"
    closed = [("repository/index", "POST"), ("systemsharedmemory/status", "GET"), ("trace/setting", "GET")]
    assert [get(f"{base}/v2/{path}", method=method)[0] for path, method in [*closed, ("logging", "GET")]] == [403] * 4
    assert get(f"{base}/v2/repository/index", {"x-triton-router-key": "wrong"}, "POST")[0] == 403
    with triton_grpc.InferenceServerClient(f"127.0.0.1:{serving.grpc}") as client:
        with pytest.raises(InferenceServerException, match="restricted"):
            client.unload_model("beside")
        assert client.is_model_ready("beside")
    assert [get(f"{base}/v2/models/a/{path}")[0] for path in ("config", "stats", "ready")] == [200] * 3
    words = [sys.executable, "-m", "triton_router.cli.main", "models", "list", "--json", "--url", base]
    listed = subprocess.run(words, env=serving.environment, capture_output=True, text=True, check=True)
    assert {row["model"] for row in json.loads(listed.stdout)} == {"a", "b", "beside", "routed", "slow"}
    (record,) = (serving.log.parent / "run" / "triton-router").iterdir()
    assert record.stat().st_mode & 0o777 == 0o600


def killed_processes_are_replaced(serving: Serving) -> None:
    """The router's and a target's: each is noticed, said, repaired; a model beside them answers every request."""
    url = f"127.0.0.1:{serving.http}"
    request = encode(url, "beside", {"x": np.ones((1, 2), np.float32)})
    results: list[Any] = []
    done = threading.Event()

    def load() -> None:
        while not done.is_set():
            results.append(closed_loop(url, [request], clients=4, count=100_000, seconds=0.5))

    beside = threading.Thread(target=load)
    beside.start()
    try:
        for model in ("routed", "a"):
            kill_stub(serving.server, model)
            noticed = until(lambda model=model: serving.ready(model)[0] == 503, f"{model} noticed")
            assert serving.ready()[0] == 200, "one model that is loaded afresh makes no server unready"
            repaired = until(lambda model=model: serving.ready(model)[0] == 200, f"{model} repaired")
            print(f"\n{model}: noticed after {noticed:.2f} s, serves again {repaired:.2f} s later")
    finally:
        done.set()
        beside.join(PATIENCE_S)
    assert sum(result.failed for result in results) == 0
    print(
        f"beside: {sum(len(result.latencies_ms) for result in results)} answers, none failed, "
        f"slowest {max(result.quantile_ms(1) for result in results):.0f} ms"
    )
    until(lambda: serving.ready("routed")[1]["targets"] == {"a": "", "b": ""}, "both targets back")
    assert get(f"http://{url}/v2/models/routed/ready")[0] == 200
    models = get(f"{serving.health}/live")[1]["models"]
    well = {"processes_died": 1, "repairs": 1, "failed_repairs": 0, "problem": ""}
    assert models == {"routed": well, "a": well}
    said = serving.log.read_text()
    assert said.count("was ended by SIGKILL; loading it afresh") == 2
    with urllib.request.urlopen(f"{serving.health}/metrics", timeout=60) as answer:
        assert b'triton_router_repairs_total{model="routed"} 1' in answer.read()


def a_drain_loses_nothing(serving: Serving) -> None:
    """SIGTERM under load: unready at once; each request begun before the listeners close is answered; status 0."""
    clients = Clients(serving, "slow")
    until(lambda: len(clients.answers) > 8, "under load")
    serving.process.send_signal(signal.SIGTERM)
    told = time.monotonic()
    until(lambda: serving.ready()[0] == 503, "not ready")
    unready = time.monotonic() - told
    assert "draining" in serving.ready("slow")[1]["reasons"][0]
    # Two seconds before the listeners close: what is begun by then reaches the server on a busy machine, too.
    time.sleep(max(0.0, told + 1.0 - time.monotonic()))
    clients.join()
    assert serving.process.wait(PATIENCE_S) == 0
    lost = [why for began, why in clients.answers if why and began < told + 1.0]
    assert not lost, lost[:3]
    print(
        f"drain: unready after {unready:.2f} s, {len(clients.answers)} answers, none lost, "
        f"ended after {time.monotonic() - told:.1f} s"
    )


def test_a_server_of_others_is_watched_and_drained(tmp_path: Path) -> None:
    """`watch` repairs beside a server that it has not started, and `drain` ends that server."""
    write_models(tmp_path / "models")
    (tmp_path / "run").mkdir()
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    options = {"control_mode": "explicit", "load_models": ["routed"], "extra": ["--exit-timeout-secs=5"]}
    with triton_server(tmp_path / "models", **options) as server:
        words = [sys.executable, "-m", "triton_router.cli.main", "watch", "--url", f"http://{server.http_url}"]
        words += ["--drain-grace=0.1"]
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environment) as watching:
            assert watching.stderr.readline() == f"watching over the server {server.pid}\n"
            time.sleep(3.0)  # it has to have seen a process alive before that dies, and looks five times a second
            kill_stub(server.pid, "routed")
            assert "'routed'" in watching.stderr.readline()
            assert "serves again" in watching.stderr.readline()
            assert get(f"http://{server.http_url}/v2/models/routed/ready")[0] == 200
            words = [sys.executable, "-m", "triton_router.cli.main", "drain", "--pid", str(server.pid)]
            drained = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
            assert drained.returncode == 0, drained.stderr
            assert watching.wait(PATIENCE_S) == 0
            watching.stderr.read()
        assert not server.process.running
