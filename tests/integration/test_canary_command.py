"""``triton-router canary`` against a real server: both versions up before traffic moves, and no request notices."""

from __future__ import annotations

import getpass
import json
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.http as triton_http
import yaml

from triton_router.cli.main import main
from triton_router.repository.control import ModelControl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from triton_router.testing.triton_server import TritonServer

pytestmark = pytest.mark.triton

PATIENCE_S = 90.0

CONFIG = """\
backend: "python"   # answers with its own version
input { name: "x" data_type: TYPE_FP32 dims: [ -1 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ -1 ] }
instance_group { kind: KIND_CPU count: 1 }
"""
ANSWERS_ITS_VERSION = """\
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        config.add_input({"name": "x", "data_type": "TYPE_FP32", "dims": [-1]})
        config.add_output({"name": "y", "data_type": "TYPE_FP32", "dims": [-1]})
        config.set_max_batch_size(0)
        return config

    def initialize(self, args):
        self.answer = np.array([int(args["model_version"])], dtype=np.float32)

    def execute(self, requests):
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", self.answer)]) for _ in requests]
"""
BROKEN = 'raise RuntimeError("deliberately broken")\n'
ROUTED_CONFIG = CONFIG.replace("python", "router")
ROUTER_YAML = """\
# who answers
targets:
  - {name: only, model: numbers, batch_independent: true}   # the one there is
policy: latency
parity: {share: 0.0}
"""


def write_version(repository: Path, model: str, version: int, code: str = ANSWERS_ITS_VERSION) -> None:
    directory = repository / model / str(version)
    directory.mkdir(parents=True)
    (directory / "model.py").write_text(code)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two routed models of one model each, which has one version so far; the second one's has no config.pbtxt."""
    root = tmp_path_factory.mktemp("canary") / "models"
    write_routed(root, "routed", "numbers")
    write_routed(root, "routed-bare", "bare")
    (root / "bare" / "config.pbtxt").unlink()
    return root


def write_routed(root: Path, routed: str, model: str) -> None:
    write_version(root, model, 1)
    (root / model / "config.pbtxt").write_text(CONFIG)
    (root / routed / "1").mkdir(parents=True)
    (root / routed / "config.pbtxt").write_text(ROUTED_CONFIG)
    (root / routed / "router.yaml").write_text(ROUTER_YAML.replace("numbers", model))


@pytest.fixture(scope="module")
def server(
    start_triton: Callable[..., TritonServer], repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> TritonServer:
    """A server that loads on request alone."""
    models = [path.name for path in repository.iterdir()]
    state = tmp_path_factory.mktemp("state")
    return start_triton(repository, control_mode="explicit", load_models=models, state=state)


class Clients:
    """One client with many keys, until `stop`; knows which version answered."""

    def __init__(self, server: TritonServer, model: str) -> None:
        self.answers: list[int] = []
        self.failures: list[str] = []
        self._server, self._model = server, model
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join(90)
        assert not self._thread.is_alive()

    def until_answered_by(self, *versions: int, among: int = 60) -> None:
        """Wait until exactly these versions answer the latest requests."""
        deadline = time.monotonic() + PATIENCE_S
        while len(self.answers) < among or set(self.answers[-among:]) != set(versions):
            assert time.monotonic() < deadline, f"{set(self.answers[-among:])} answer, not {versions}"
            time.sleep(0.05)

    def _ask(self) -> None:
        tensor = triton_http.InferInput("x", [1], "FP32")
        tensor.set_data_from_numpy(np.zeros(1, np.float32))
        number = 0
        with triton_http.InferenceServerClient(self._server.http_url) as client:
            while not self._done.is_set():
                number += 1
                try:
                    answer = client.infer(self._model, [tensor], parameters={"router_key": f"user-{number}"})
                    self.answers.append(int(answer.as_numpy("y")[0]))
                except Exception as error:  # noqa: BLE001 - whatever it is, it is a failure that a client saw
                    self.failures.append(str(error))


@pytest.fixture
def clients(server: TritonServer) -> Iterator[Callable[[str], Clients]]:
    """Starts clients, which leave with the test."""
    started: list[Clients] = []

    def start(model: str) -> Clients:
        started.append(Clients(server, model))
        return started[-1]

    yield start
    for one in started:
        one.stop()


class Canary:
    """Runs ``triton-router canary`` in this process and keeps what it printed."""

    def __init__(self, server: TritonServer, repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.err = ""
        self._url, self._repository, self._capsys = f"http://{server.http_url}", repository, capsys

    def __call__(self, action: str, model: str, *args: str, code: int = 0) -> str:
        where = ["--url", self._url] if action in {"start", "finish"} else []
        found = main(["canary", action, model, *args, "--repository", str(self._repository), *where])
        captured = self._capsys.readouterr()
        self.err = captured.err
        assert found == code, captured
        return captured.out

    def settings(self, model: str) -> dict[str, Any]:
        return yaml.safe_load((self._repository / model / "router.yaml").read_text())

    def ready(self, model: str) -> tuple[int, ...]:
        with ModelControl(self._url) as control:
            return control.ready_versions(model)


@pytest.fixture
def canary(server: TritonServer, repository: Path, capsys: pytest.CaptureFixture[str]) -> Canary:
    return Canary(server, repository, capsys)


def test_a_version_from_start_to_finish(canary: Canary, repository: Path, clients: Callable[[str], Clients]) -> None:
    """Version 2 is loaded beside 1, gets a share, all, none of it and all; no request fails from start to finish."""
    load = clients("routed")
    load.until_answered_by(1)
    write_version(repository, "numbers", 2)

    canary(
        "start", "routed", "--version", "2", "--weight", "30", "--by", "me", "--min-requests", "10", "--parity", "off",
        "--false-alarms", "0.000001",
    )  # fmt: skip
    assert canary.ready("numbers") == (1, 2)
    found = canary.settings("routed")
    assert [(t["name"], t["version"]) for t in found["targets"]] == [("only", 1), ("only-v2", 2)]
    assert found["rollout"] | {"id": ""} == {
        "id": "", "canary": ["only-v2"], "weight": 30, "hold_s": 600, "by": "me",
        "gate": {"min_requests": 10, "max_mismatch": 1, "false_alarms": 1e-6},
    }  # fmt: skip
    assert "# the one there is" in (repository / "routed" / "router.yaml").read_text()
    assert "# answers with its own version" in (repository / "numbers" / "config.pbtxt").read_text()
    load.until_answered_by(1, 2)

    canary("start", "routed", "--version", "2", code=1)
    assert "is running" in canary.err

    canary("pause", "routed")
    assert "paused: 30% of the requests" in canary("status", "routed")
    canary("resume", "routed", "--by", "you")
    status = json.loads(canary("status", "routed", "--json"))
    assert status["phase"] == "running"
    assert all(status["instances"][0]["arms"][arm]["answers"] > 0 for arm in ("canary", "stable"))
    assert [(entry["by"], entry["event"]) for entry in status["audit"]] == [
        ("me", "begin"),
        (getpass.getuser(), "pause"),
        ("you", "resume"),
    ]
    canary("abort", "routed")
    load.until_answered_by(1)
    canary("promote", "routed")
    load.until_answered_by(2)

    canary("finish", "routed")
    assert "canary finish routed --unload" in canary.err
    assert canary.ready("numbers") == (1, 2)
    canary("finish", "routed", "--unload")
    assert "numbers serves version 2 alone" in canary.err
    canary("finish", "routed", "--unload")
    assert "nothing to let go of" in canary.err
    assert canary.ready("numbers") == (2,)
    found = canary.settings("routed")
    assert [target["name"] for target in found["targets"]] == ["only-v2"]
    assert "rollout" not in found
    load.until_answered_by(2)
    load.stop()
    assert load.failures == []
    first = load.answers.index(2)
    assert set(load.answers[:first]) == {1}


def test_a_version_that_cannot_be_loaded_is_undone(
    canary: Canary, repository: Path, clients: Callable[[str], Clients]
) -> None:
    """Version 3 breaks when it is loaded: every file is what it was, and what served serves, without a failure."""
    load = clients("routed")
    load.until_answered_by(2)
    write_version(repository, "numbers", 3, BROKEN)
    files = [repository / "routed" / "router.yaml", repository / "numbers" / "config.pbtxt"]
    before, served = [path.read_text() for path in files], canary.ready("numbers")
    canary("start", "routed", "--version", "3", code=1)
    assert "deliberately broken" in canary.err
    assert "undone: everything is as it was before" in canary.err
    assert [path.read_text() for path in files] == before
    assert canary.ready("numbers") == served
    count = len(load.answers)
    load.until_answered_by(load.answers[0])
    load.stop()
    assert load.failures == []
    assert len(load.answers) > count
    assert set(load.answers) == {load.answers[0]}


def test_a_model_without_a_config(canary: Canary, repository: Path, clients: Callable[[str], Clients]) -> None:
    """The server is told to serve both versions; that it will forget that is said."""
    load = clients("routed-bare")
    load.until_answered_by(1)
    write_version(repository, "bare", 2)
    canary("start", "routed-bare", "--version", "2", "--weight", "50", "--parity", "off", "--false-alarms", "0.000001")
    assert "which it forgets when it is started again" in canary.err
    assert canary.ready("bare") == (1, 2)
    load.until_answered_by(1, 2)
    canary("abort", "routed-bare")
    load.until_answered_by(1)
    canary("finish", "routed-bare")
    load.stop()
    assert load.failures == []


def test_a_server_that_polls(
    start_triton: Callable[..., TritonServer], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It loads by itself what the changed config.pbtxt says; where that takes too long, everything is undone."""
    root = tmp_path / "models"
    write_routed(root, "routed", "numbers")
    (root / "numbers" / "config.pbtxt").write_text(CONFIG + "version_policy { specific { versions: [ 1 ] } }\n")
    server = start_triton(root, control_mode="poll", extra=["--repository-poll-secs=1"])
    canary = Canary(server, root, capsys)
    write_version(root, "numbers", 2)
    canary("start", "routed", "--version", "2", "--wait", "0s", code=1)
    assert "has not loaded versions 1, 2 of 'numbers' by polling either" in canary.err
    assert (root / "routed" / "router.yaml").read_text() == ROUTER_YAML
    canary("start", "routed", "--version", "2", "--wait", "120s")
    assert canary.ready("numbers") == (1, 2)
    assert [target["name"] for target in canary.settings("routed")["targets"]] == ["only", "only-v2"]
