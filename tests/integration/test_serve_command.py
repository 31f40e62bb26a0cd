"""``triton-router serve`` as a user runs it: a process with signals, exit codes and messages."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from triton_router.testing.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = pytest.mark.triton

IDENTITY = """import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", r.inputs()[0].as_numpy())]) for r in requests]
"""
CONFIG = """backend: "{backend}"
max_batch_size: 8
input {{ name: "x" data_type: TYPE_FP32 dims: [ -1 ] }}
output {{ name: "y" data_type: TYPE_FP32 dims: [ -1 ] }}
instance_group {{ kind: KIND_CPU count: 1 }}
"""


def python_model(repository: Path, name: str, code: str | None = IDENTITY) -> None:
    """Write a Python model; without code its file is missing."""
    version = repository / name / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(CONFIG.format(backend="python"))
    if code is not None:
        (version / "model.py").write_text(code)


def routed_model(repository: Path, name: str, target: str) -> None:
    """Write a routed model with one target."""
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(CONFIG.format(backend="router"))
    (repository / name / "router.yaml").write_text(f"targets: [{{name: only, model: {target}}}]\n")


def command(repository: Path, *more: str) -> tuple[list[str], int]:
    """Return the command line on free ports, and the HTTP port."""
    http, grpc, metrics = free_ports(3)
    words = [sys.executable, "-m", "triton_router.cli.main", "serve", "--repository", str(repository)]
    words += [f"--http-port={http}", f"--grpc-port={grpc}", f"--metrics-port={metrics}", *more]
    return words, http


def run(repository: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run a serve command that ends by itself."""
    return subprocess.run(command(repository, *more)[0], capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository in a directory with a space in its name."""
    path = tmp_path / "my models"
    path.mkdir()
    return path


class Served:
    """A serving process, ended at the test's end."""

    def __init__(self, words: Sequence[str], log: Path) -> None:
        self.log = log
        self.temporary = log.parent / "tmp"
        self.temporary.mkdir(exist_ok=True)
        environment = {**os.environ, "TMPDIR": str(self.temporary)}
        with log.open("wb") as stream:
            self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=stream, text=True, env=environment)

    def backend_directories(self) -> list[Path]:
        """Return what this server, or one before it in the same test, has in its temporary directory."""
        return list(self.temporary.glob("triton-router-backends-*"))

    def ready(self) -> dict[str, object]:
        """Wait for the announcement and return it."""
        assert self.process.stdout is not None
        text = ""
        for line in self.process.stdout:
            text += line
            if line.startswith("}"):
                break
        assert text, self.log.read_text()
        return json.loads(text)

    def server_pid(self) -> int:
        """Return the process id of tritonserver, the only child."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        (pid,) = children.split()
        return int(pid)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[object]:
    """Start serving processes."""
    started: list[Served] = []

    def start(words: Sequence[str]) -> Served:
        started.append(Served(words, tmp_path / f"log{len(started)}"))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.terminate()
        one.process.wait(120)
        one.process.stdout.close()


def wait_gone(pid: int) -> bool:
    """Wait until a process has ended."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_it_loads_a_routed_model_with_its_targets_and_ends_on_sigterm(repository: Path, serve: object) -> None:
    """Explicit mode loads what was named and its targets, nothing else; SIGTERM ends Triton properly, status 0."""
    python_model(repository, "target")
    python_model(repository, "other")
    routed_model(repository, "routed", "target")
    words, port = command(repository, "--model-control-mode", "explicit", "--load-model", "routed", "--json")
    served = serve(words)
    announced = served.ready()
    assert announced["http"] == f"http://127.0.0.1:{port}"
    assert announced["models"] == 2

    def ready(model: str) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/models/{model}/ready", timeout=60) as answer:
                return answer.status == 200
        except urllib.error.HTTPError as error:
            error.close()
            return False

    assert [ready(model) for model in ("routed", "target", "other")] == [True, True, False]
    server = served.server_pid()
    assert len(served.backend_directories()) == 1
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(120) == 0
    assert wait_gone(server)
    assert served.backend_directories() == []


class Always(BaseHTTPRequestHandler):
    """Answers every question with yes."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize("service", ["http", "metrics"])
def test_another_servers_readiness_is_not_taken_for_its_own(repository: Path, service: str) -> None:
    """A server that loses the race for a port is never announced, although the winner says that it is ready."""
    python_model(repository, "one")
    with ThreadingHTTPServer(("127.0.0.1", 0), Always) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        done = run(repository, "--skip-checks", "--", f"--{service}-port={other.server_port}")
        other.shutdown()
    assert done.stdout == ""
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "tritonserver ended with status 1"


def test_the_server_dies_with_its_launcher(repository: Path, serve: object) -> None:
    """Killed outright, the launcher takes Triton with it; what it left in the temporary directory goes next time."""
    python_model(repository, "one")
    served = serve(command(repository, "--json")[0])
    served.ready()
    server = served.server_pid()
    served.process.kill()
    served.process.wait(60)
    assert wait_gone(server)
    (left_behind,) = served.backend_directories()
    again = serve(command(repository, "--json")[0])
    again.ready()
    assert left_behind not in again.backend_directories()


def test_the_servers_own_death_by_a_signal_becomes_the_exit_code(repository: Path, serve: object) -> None:
    """128 + n, as a shell says it."""
    python_model(repository, "one")
    served = serve(command(repository, "--json")[0])
    served.ready()
    os.kill(served.server_pid(), signal.SIGKILL)
    assert served.process.wait(120) == 128 + signal.SIGKILL


def test_failed_models_are_named_with_their_reason_at_the_end(repository: Path) -> None:
    """Triton ends; the last lines say which models failed and why, and what to do."""
    python_model(repository, "good")
    python_model(repository, "bad", "import not_there_at_all\n")
    done = run(repository)
    assert done.returncode == 1
    assert done.stdout == ""
    end = done.stderr.splitlines()[-3:]
    assert end[0] == (
        "error: model 'bad' failed to load: Internal: ModuleNotFoundError: No module named 'not_there_at_all'"
    )
    assert end[1].startswith("hint: correct or remove these models")
    assert end[2] == "tritonserver ended with status 1"


def test_a_failed_check_keeps_the_server_from_starting(repository: Path) -> None:
    """A missing target and a missing file are said before anything is started, each with a hint."""
    python_model(repository, "lost", None)
    routed_model(repository, "routed", "nowhere")
    done = run(repository)
    assert done.returncode == 1
    assert "'nowhere', which is in no repository" in done.stderr
    assert "'lost' has no model.py in version 1" in done.stderr
    assert done.stderr.count("hint: ") == 2
    assert "model_lifecycle" not in done.stderr


def test_a_hanging_load_is_ended_when_checks_are_skipped(repository: Path) -> None:
    """Triton 2.51 would wait for ever for a Python model without its file."""
    python_model(repository, "lost", None)
    done = run(repository, "--skip-checks")
    assert done.returncode != 0
    assert "error: model 'lost' failed to load: Python model file not found" in done.stderr


def test_check_only_reports(repository: Path) -> None:
    """--check starts nothing: data on stdout, as JSON for machines, and the status says whether all is well."""
    python_model(repository, "one")
    done = run(repository, "--check", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 0
    assert report["models"] == ["one"]
    assert report["version"] == "2.51.0"
    assert report["release"] == "24.10"
    python_model(repository, "lost", None)
    done = run(repository, "--check", "--json")
    assert done.returncode == 1
    assert [finding["level"] for finding in json.loads(done.stdout)["findings"]] == ["error"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--load-model", "one"), "this mode loads all of them"),
        (("--model-control-mode", "explicit", "--load-model", "two"), "'two' of --load-model is in no repository"),
        (("--tritonserver", "/nowhere"), "neither a tritonserver program nor a directory"),
        (("--repository", "/nowhere"), "is not a directory"),
    ],
)
def test_wrong_use_is_refused_with_what_to_do(repository: Path, more: tuple[str, ...], message: str) -> None:
    """One line that says what is wrong, one that says what to do, no traceback."""
    python_model(repository, "one")
    done = run(repository, *more)
    assert done.returncode == 1
    assert message in done.stderr
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr
