"""Whatever is said over a status socket, the model goes on, and its asker shows a status or says that there is none."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.properties.hostile import PROFILE, VALUES, changed, refused_well
from triton_router.cli.status import remarks, rows
from triton_router.errors import UnavailableError
from triton_router.serving.status_reply import ModelStatus
from triton_router.serving.status_socket import StatusSocket, read_statuses

if TYPE_CHECKING:
    from collections.abc import Generator

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's"),
    pytest.mark.alone,  # sockets are named after the parent process, which tests run side by side have in common
]

COUNTS = ("in_flight", "chosen", "succeeded", "failed", "refused", "cancelled")
STATUS: dict[str, Any] = {
    "model": "m",
    "policy": "latency",
    "targets": [
        {
            "target": {"name": "a", "model": "m-a", "version": None, "backend": "cpu", "variant": "onnx"},
            **dict.fromkeys(COUNTS, 3),
            "resting": False,
            "confidence": 0.5,
            "latency": {
                "count": 1,
                "p50_ms": 2.5,
                "p90_ms": 2.75,
                "p99_ms": 3.0,
                "predicted": 1,
                "predicted_total_ms": 2.0,
                "measured_total_ms": 2.5,
                "mean_relative_error": 0.2,
            },
            "last_drift": {"direction": "slower", "factor": 2.0, "observation": 9},
            "power_w": {"value": 12.0, "source": "measured"},
        }
    ],
    "state": {"directory": "/s", "inherited": ["a"], "saved_at": 1.0, "errors": 1, "problem": "full"},
    "power": {"cpu": "RAPL"},
}
SERVER = 4_100_000_000 + os.getpid() % 100_000_000  # beyond any process id, so that nobody else is asked


@contextmanager
def _answering(reply: bytes) -> Generator[None]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0triton-router-{SERVER}-1")
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(reply)

        thread = Thread(target=answer, daemon=True)
        thread.start()
        yield
        thread.join(10)


def _shown_or_refused(reply: bytes) -> None:
    with _answering(reply):
        try:
            statuses = read_statuses(SERVER)
        except UnavailableError as error:
            refused_well(error)
            return
    for status in statuses:
        rows(status)
        remarks(status)


def test_the_status_that_is_changed_here_is_one() -> None:
    """The properties below begin with something that is shown."""
    with _answering(json.dumps(STATUS).encode()):
        assert [status["model"] for status in read_statuses(SERVER)] == ["m"]


@PROFILE
@given(data=changed(STATUS) | VALUES)
@example(data={**STATUS, "model": "\x1b[2J\ud800"})
@example(data={**STATUS, "targets": [{**STATUS["targets"][0], "chosen": 10**400}]})
@example(data={**STATUS, "extra": [[]] * 100_000})
def test_any_status_is_shown_or_refused(data: Any) -> None:
    """From a server of another version, or from whatever took its name as the same user."""
    _shown_or_refused(json.dumps(data).encode())


@PROFILE
@given(data=st.binary(max_size=60))
@example(data=b"")
@example(data=b"[" * 1_000_000)
@example(data=b"9" * 5_000)
def test_any_bytes_are_shown_or_refused(data: bytes) -> None:
    """A reply that is no JSON, or has no end."""
    _shown_or_refused(data)


_STRANGER = """
import os, socket, sys
os.setuid(65534)
with socket.socket(socket.AF_UNIX) as asker:
    asker.settimeout(10)
    asker.connect(sys.argv[1].replace("@", chr(0)))
    print(asker.recv(100))
"""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_gets_nothing() -> None:
    """Nothing is sent, and the status is not even built, for whoever is neither the server's user nor root."""
    served = StatusSocket(lambda: STATUS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.geteuid", lambda: 4242)  # this process would answer root
        served.start()
        try:
            command = [sys.executable, "-c", _STRANGER, f"@triton-router-{os.getppid()}-{os.getpid()}"]
            told = subprocess.run(command, capture_output=True, text=True, check=True)
        finally:
            served.close()
    assert told.stdout == "b''\n"


def test_whatever_an_asker_says_or_does_not_the_next_one_is_answered() -> None:
    """Nothing is read of what is sent; askers that send, vanish, reset or stay silent take no more than their turn."""
    name = f"\0triton-router-{os.getppid()}-{os.getpid()}"
    served = StatusSocket(lambda: STATUS)
    served.start()
    try:
        for sent in (b"", b"\x00" * 100, b"GET / HTTP/1.1\r\n\r\n", b'{"drain": true}', b"x" * 60_000):
            for reset in (False, True):
                with socket.socket(socket.AF_UNIX) as asker:
                    asker.connect(name)
                    if reset:
                        asker.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    try:
                        asker.sendall(sent)
                    except OSError:  # it has its answer, and the other side is closed already
                        continue
        (status,) = read_statuses(os.getppid())
        expected = ModelStatus.model_validate_json(json.dumps(STATUS)).model_dump()
        assert status == {"server_pid": os.getppid(), **expected}
    finally:
        served.close()
