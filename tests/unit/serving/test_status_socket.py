"""The status socket: it harms no model, answers whoever may ask, and its asker trusts nobody else."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import pytest

from triton_router.errors import UnavailableError
from triton_router.serving.status_socket import StatusSocket, read_statuses

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's"),
    pytest.mark.alone,  # sockets are named after the parent process, which tests run side by side have in common
]

NEWER_OF_A_TARGET = {
    "mirrored": 0,
    "consecutive_failures": 0,
    "error_rate": 0.0,
    "drifts": 0,
    "last_drift": None,
    "power_w": {"value": 0.0, "source": "unknown"},
    "memory_mb": {"value": 0.0, "source": "unknown"},
    "stage": "",
    "why": "",
    "ejections": {},
    "returns": 0,
    "seconds_out": 0.0,
    "retried": 0,
    "hedged": 0,
    "removed": False,
    "peers_in_flight": 0,
}
TARGET = {
    "target": {"name": "onnx-cpu", "model": "m-onnx-cpu", "version": None, "backend": "cpu", "variant": "onnx"},
    **dict.fromkeys(("in_flight", "chosen", "succeeded", "failed", "refused", "cancelled"), 1),
    "resting": False,
    "confidence": 0.5,
    "latency": {
        "count": 1,
        "p50_ms": 2.5,
        "p99_ms": 3,
        "predicted": 1,
        "predicted_total_ms": 2.0,
        "measured_total_ms": 2.5,
        "mean_relative_error": 0.2,
        "p90_ms": 2.75,
    },
    **NEWER_OF_A_TARGET,
}
STATUS: dict[str, Any] = {
    "model": "m",
    "policy": "latency",
    "targets": [TARGET],
    "state": None,
    "power": {},
    "settings": None,
    "problems": {},
    "resilience": {},
    "retries": {},
    "sharing": None,
    "decision_log": None,
    "parity": None,
    "rollout": None,
    "experiment": None,
    "trials": None,
}

OURS = f"\0triton-router-{os.getppid()}-{os.getpid()}"
SERVER = 4_000_000_001 + os.getpid()  # larger than any process id, so that nothing else on the machine is asked


@contextmanager
def listening(status: Callable[[], dict[str, Any]]) -> Generator[StatusSocket]:
    """Serve a status from this process."""
    served = StatusSocket(status)
    served.start()
    try:
        yield served
    finally:
        served.close()


@contextmanager
def pretending(answer: Callable[[socket.socket], object]) -> Generator[None]:
    """Listen under a name of ours and treat the first asker as ``answer`` does."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0triton-router-{SERVER}-1")
        listener.listen()

        def run() -> None:
            with suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    answer(connection)

        thread = Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def ours() -> dict[str, Any]:
    """Ask the status socket of this process."""
    (status,) = read_statuses(os.getppid())
    return status


def test_a_status_arrives_as_it_was_sent() -> None:
    """With the server it came from; and after closing there is none."""
    with listening(lambda: STATUS):
        assert ours() == {"server_pid": os.getppid(), **STATUS}
    with pytest.raises(UnavailableError, match="no routed model answers"):
        ours()


def test_an_older_servers_status_is_understood() -> None:
    """It lacks some keys; nothing is known to fail there, to drift, or to be kept."""
    older = {key: value for key, value in TARGET.items() if key not in NEWER_OF_A_TARGET}
    with listening(lambda: {"model": "m", "policy": "latency", "targets": [older]}):
        assert ours() == {"server_pid": os.getppid(), **STATUS}


def test_a_taken_name_does_not_fail_the_model(capfd: pytest.CaptureFixture[str]) -> None:
    """Any local process can take the name first: the model serves without status, and says so."""
    with socket.socket(socket.AF_UNIX) as squatter:
        squatter.bind(OURS)
        with listening(lambda: STATUS):
            said = capfd.readouterr().err
    assert "status" in said
    assert "Address already in use" in said


def test_closing_twice_or_unstarted_is_harmless() -> None:
    """finalize() may follow a load that failed halfway."""
    StatusSocket(lambda: STATUS).close()
    with listening(lambda: STATUS) as served:
        served.close()


def test_a_status_that_cannot_be_built_spoils_no_later_one(capfd: pytest.CaptureFixture[str]) -> None:
    """Whatever goes wrong for one asker, the next is answered."""
    states = [KeyError("lost"), {"not": object()}, STATUS]

    def status() -> dict[str, Any]:
        state = states.pop(0)
        if isinstance(state, Exception):
            raise state
        return state

    with listening(status):
        for _ in range(2):
            with pytest.raises(UnavailableError, match="1 gave no valid status"):
                ours()
        assert ours()["model"] == "m"
    assert "KeyError: 'lost'" in capfd.readouterr().err


def test_running_out_of_files_does_not_end_it() -> None:
    """A process at its limit answers again when it has files to spare."""
    with listening(lambda: STATUS), socket.socket(socket.AF_UNIX) as asker:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest_free = os.dup(0)
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        try:
            asker.connect(OURS)
            time.sleep(0.3)  # the listener meets the limit
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        asker.settimeout(10)
        assert asker.recv(1) == b"{"
        assert ours()["model"] == "m"


def test_askers_that_do_not_read_do_not_keep_others_waiting() -> None:
    """Each has a bounded time in all."""
    large = {**STATUS, "targets": [TARGET] * 4000}
    with listening(lambda: large), socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as two:
        one.connect(OURS)
        two.connect(OURS)
        assert len(ours()["targets"]) == 4000


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"model": 1, "policy": "latency", "targets": []}',
        b'{"model": "m", "policy": "latency", "targets": [{}]}',
        b'{"model": "m", "policy": "latency", "targets": {"a": 1}}',
    ],
    ids=lambda reply: reply[:24].decode("latin-1"),
)
def test_whatever_else_answers_is_left_out(reply: bytes) -> None:
    """A socket under a name of ours may say anything."""
    expected = pytest.raises(UnavailableError, match="1 gave no valid status")
    with pretending(lambda connection: connection.sendall(reply)), expected:
        read_statuses(SERVER)


def test_an_answer_in_drops_is_given_up() -> None:
    """The asker's patience is for the whole answer, not for each byte."""

    def drip(connection: socket.socket) -> None:
        while True:
            connection.sendall(b" ")
            time.sleep(0.02)

    with pretending(drip), pytest.raises(UnavailableError, match="1 gave no valid status"):
        read_statuses(SERVER, patience_s=0.3)


def test_who_is_left_out_is_told_of() -> None:
    """A model that hangs, or says something else, is not taken for one that does not exist, though others answer."""
    told: list[str] = []
    is_over = Event()
    for answer, patience_s in ((lambda _: is_over.wait(60), 2.0), (lambda connection: connection.sendall(b"[]"), 30.0)):
        with pretending(answer), socket.socket(socket.AF_UNIX) as well:
            well.bind(f"\0triton-router-{SERVER}-2")
            well.listen()
            answering = Thread(target=_answer_once, args=(well,))
            answering.start()
            (status,) = read_statuses(SERVER, patience_s=patience_s, tell=told.append)
            answering.join()
            is_over.set()
            assert status["model"] == "m"
    who = f"a routed model of server {SERVER} (process 1)"
    assert told == [
        f"{who} does not answer within 2 s, and is not shown",
        f"{who} gives no status, and is not shown",
    ]


def _answer_once(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.sendall(json.dumps(STATUS).encode())


def test_an_endless_answer_is_given_up() -> None:
    """So is one without end."""

    def flood(connection: socket.socket) -> None:
        while True:
            connection.sendall(b" " * (1 << 20))

    with pretending(flood), pytest.raises(UnavailableError, match="1 gave no valid status"):
        read_statuses(SERVER)


_OTHER_USER = """
import os, socket, sys
os.setuid(65534)
listener = socket.socket(socket.AF_UNIX)
listener.bind("\\0" + sys.argv[1])
listener.listen()
print("ready", flush=True)
connection, _ = listener.accept()
print(len(connection.recv(1)), flush=True)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")
def test_sockets_of_other_users_are_not_asked() -> None:
    """Any local process can take a name like ours; what it says is not even read."""
    code = [sys.executable, "-c", _OTHER_USER, f"triton-router-{SERVER}-2"]
    with subprocess.Popen(code, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        with pytest.raises(UnavailableError, match="65534") as caught:
            read_statuses(SERVER, patience_s=5)
        assert "as that user" in caught.value.hint
        assert other.stdout.readline() == "0\n"


def test_names_that_are_not_ours_are_passed_over() -> None:
    """Bytes that are no text, line breaks and missing numbers in another's name do not end the listing."""
    names = [b"\xff", b"\n", b"\ntriton-router-1\n", b"x-y", b"1", b"1-2-3", b"9" * 50 + b"-1"]
    sockets = [socket.socket(socket.AF_UNIX) for _ in names]
    try:
        for taken, name in zip(sockets, names, strict=True):
            taken.bind(b"\0triton-router-" + name)
            taken.listen()
        with listening(lambda: STATUS):
            assert ours()["model"] == "m"
            assert "m" in {status["model"] for status in read_statuses()}
    finally:
        for taken in sockets:
            taken.close()
