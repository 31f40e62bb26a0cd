"""Whose process listens on a port, with real sockets and processes."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import closing

import pytest

from triton_router.serving.launcher.listeners import held_by_another

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

LISTEN = """import socket, sys
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
"""
THROUGH_A_SCRIPT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {LISTEN!r}])"
WAIT = "import sys; sys.stdin.read()"


def _in_a_session_of_its_own(program: str) -> subprocess.Popen[str]:
    """Start it so that its session is known: in a container, the test's own leader may lie outside, as process 0."""
    words = [sys.executable, "-c", program]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)


@pytest.mark.parametrize("program", [LISTEN, THROUGH_A_SCRIPT])
def test_a_port_belongs_to_the_session_that_listens_there(program: str) -> None:
    """The leader or a child of it; for every other session the port is another's."""
    with _in_a_session_of_its_own(program) as server, _in_a_session_of_its_own(WAIT) as bystander:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        assert not held_by_another(server.pid, port)
        assert held_by_another(bystander.pid, port)
        server.communicate()
        bystander.communicate()


def test_a_port_where_nobody_listens_is_not_held() -> None:
    """A bound socket that does not listen, such as a server's before it starts its service, is no listener."""
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        assert not held_by_another(1, bound.getsockname()[1])
