"""The watchdog's decisions, on real processes that die and a server that a test plays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from triton_router.errors import UnavailableError
from triton_router.serving.launcher.model_loading import reload_dead
from triton_router.serving.launcher.watchdog import LONGEST_PAUSE_S, Watchdog
from triton_router.serving.stopped_stubs import LOOKS, StoppedStubs, end_stopped
from triton_router.serving.stub_processes import Seen, Stub

if TYPE_CHECKING:
    from collections.abc import Iterator


class Server:
    """Readiness and the repository API of a server whose child processes are those of this test."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.said: list[str] = []
        self.calls: list[str] = []
        self.loaded = {"routed", "a", "ensemble"}
        self.refuses = False

    def is_ready(self, model: str, version: int | None) -> bool | None:
        return True

    def ready(self) -> set[str]:
        return set(self.loaded)

    def unload(self, model: str) -> None:
        self.calls.append(f"unload {model}")
        self.loaded -= {model, "ensemble"}

    def load(self, model: str) -> None:
        self.calls.append(f"load {model}")
        if self.refuses:
            raise UnavailableError("it is broken", hint="mend it")
        self.loaded.add(model)


class Stubs:
    """Starts processes that look like stubs."""

    def __init__(self, directory: Path) -> None:
        self._program = directory / "triton_python_backend_stub"
        self._program.symlink_to(sys.executable)
        self._repository = directory / "models"
        self.children: list[subprocess.Popen[bytes]] = []

    def start(self, model: str, router: str = "") -> subprocess.Popen[bytes]:
        file = self._repository / model / "1" / "model.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("import time\ntime.sleep(120)\n")
        if router:
            (file.parent.parent / "router.yaml").write_text(router)
        words = [self._program, file, "shm", "1", "2", "3", "4", "5", f"{model}_0_0"]
        self.children.append(subprocess.Popen(words))
        return self.children[-1]

    def kill(self, child: subprocess.Popen[bytes]) -> None:
        """End it, and leave it uncollected."""
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    def stop(self, child: subprocess.Popen[bytes]) -> None:
        """Stop it, and wait until it is."""
        child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)

    def go_on(self, child: subprocess.Popen[bytes]) -> None:
        """Let it go on, and wait until it does."""
        child.send_signal(signal.SIGCONT)
        os.waitid(os.P_PID, child.pid, os.WCONTINUED | os.WNOWAIT)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def stubs(tmp_path: Path) -> Iterator[Stubs]:
    stubs = Stubs(tmp_path)
    yield stubs
    for child in stubs.children:
        child.kill()
        child.wait()


def watchdog(server: Server) -> Watchdog:
    return Watchdog(os.getpid(), server, server, server.said.append, lambda: server.now)


def look_at(dog: Watchdog, children: int) -> None:
    """Look until all have become what they are to be."""
    deadline = time.monotonic() + 60
    while len(dog._scan.look().live) < children:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    dog.look()


def test_a_routed_model_and_its_target_are_repaired_and_others_reported(server: Server, stubs: Stubs) -> None:
    """Each death is said once; a model that no router.yaml names is only reported."""
    dog = watchdog(server)
    children = [stubs.start("routed", "targets: [{name: a, model: a}]"), stubs.start("a"), stubs.start("beside")]
    look_at(dog, 3)
    for child in children:
        stubs.kill(child)
    dog.look()
    dog.look()
    assert sorted(line.partition("; ")[2] for line in server.said) == [
        "it is not loaded afresh",
        *["loading it afresh"] * 2,
    ]
    dog.repair()
    assert sorted(call for call in server.calls if call.startswith("unload")) == ["unload a", "unload routed"]
    assert dog.cases()["beside"]["problem"]
    assert not dog.repairing()


def test_targets_are_left_alone_where_router_yaml_says_so(server: Server, stubs: Stubs) -> None:
    """`health: {repair: false}` is about targets: the routed model itself is always repaired."""
    dog = watchdog(server)
    settings = "targets: [{name: a, model: a}]\nhealth: {repair: false}\n"
    children = [stubs.start("routed", settings), stubs.start("a")]
    look_at(dog, 2)
    for child in children:
        stubs.kill(child)
    dog.look()
    dog.repair()
    assert server.calls[0] == "unload routed"
    assert "unload a" not in server.calls


def test_a_process_that_is_stopped_is_ended_before_it_goes_on(server: Server, stubs: Stubs) -> None:
    """It would crash the server with it. Where its model is not repaired this is said, once for each stop."""
    dog = watchdog(server)
    routed, beside = stubs.start("routed", "targets: [{name: a, model: a}]"), stubs.start("beside")
    look_at(dog, 2)
    for child in (routed, beside):
        stubs.stop(child)
    for _ in range(LOOKS - 1):
        dog.look()
    assert server.said == []
    dog.look()
    os.waitid(os.P_PID, routed.pid, os.WEXITED | os.WNOWAIT)
    dog.look()
    assert [line.rpartition("; ")[2] for line in sorted(server.said)] == [
        "end it yourself rather than let it go on",
        "ending it",
        "loading it afresh",
    ]
    dog.repair()
    assert server.calls[0] == "unload routed"
    assert beside.poll() is None
    stubs.go_on(beside)
    dog.look()
    stubs.stop(beside)
    for _ in range(LOOKS):
        dog.look()
    assert sum("'beside'" in line for line in server.said) == 2


def test_who_is_stopped_for_a_moment_or_with_the_server_is_left_alone(stubs: Stubs) -> None:
    """A terminal's Ctrl-Z stops everything; the server may be the first to go on."""
    whole = stubs.start("server")
    stopped = StoppedStubs(whole.pid)
    stub = Stub(7, 1, Path("/models/m/1/model.py"), "m_0_0")
    seen, going = Seen([stub], {}, frozenset({7})), Seen([stub], {})
    assert [stopped.update(look) for look in [*[seen] * (LOOKS - 1), going] * 2] == [[]] * (2 * LOOKS)
    stubs.stop(whole)
    assert [stopped.update(seen) for _ in range(LOOKS + 1)] == [[]] * (LOOKS + 1)
    stubs.go_on(whole)
    assert [stopped.update(seen) for _ in range(LOOKS + 1)] == [*[[]] * (LOOKS - 1), [stub], []]


def test_who_cannot_be_ended_is_said(stubs: Stubs) -> None:
    """As another user's; one that goes on in this moment, or is gone, is no problem."""

    def refused(_pid: int, _signal: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    child = stubs.start("m")
    stub = Stub(child.pid, 1, Path("/models/m/1/model.py"), "m_0_0")
    assert end_stopped(stub, refused) == ""
    stubs.stop(child)
    assert end_stopped(stub, refused) == "it cannot be ended: Operation not permitted"
    child.kill()
    child.wait()
    assert end_stopped(stub) == ""


def test_a_failing_repair_is_tried_again_ever_more_rarely_and_never_given_up(server: Server, stubs: Stubs) -> None:
    """Pauses double up to a minute; the reason is said each time; once it works all is well."""
    dog = watchdog(server)
    child = stubs.start("routed", "targets: [{name: a, model: a}]")
    look_at(dog, 1)
    stubs.kill(child)
    dog.look()
    server.refuses = True
    tried: list[float] = []
    while len(tried) < 9:
        before = len(server.calls)
        dog.repair()
        tried += [server.now] * (len(server.calls) > before)
        server.now += 0.5
    pauses = [later - earlier for earlier, later in pairwise(tried)]
    assert pauses == [1, 2, 4, 8, 16, 32, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    assert "it is broken (hint: mend it)" in server.said[-1]
    server.refuses = False
    server.now += LONGEST_PAUSE_S
    dog.repair()
    assert "serves again" in server.said[-1]
    assert dog.cases()["routed"]["problem"] == ""


def test_what_is_told_to_end_is_not_mourned(server: Server, stubs: Stubs) -> None:
    """A closed watchdog neither reports nor repairs: the server is being stopped."""
    dog = watchdog(server)
    child = stubs.start("routed", "targets: [{name: a, model: a}]")
    look_at(dog, 1)
    dog.close()
    stubs.kill(child)
    dog.look()
    dog.repair()
    assert server.said == server.calls == []


def test_ensembles_that_went_with_a_model_come_back_with_it(server: Server) -> None:
    """Unloading a model stops the ensembles that contain it."""
    reload_dead(server, "a")
    assert server.calls == ["unload a", "load a", "load ensemble"]
    assert server.loaded == {"routed", "a", "ensemble"}
