"""A secret does not stay where every user of the machine can read it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from triton_router.serving.launcher.concealment import conceal

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the words of a process lie in /proc")

SECRET = "aVeryLong_Secret-0123456789"  # noqa: S105 - of this test alone
_CHILD = "import sys; print(sys.argv[1:], flush=True); sys.stdin.read(); print(sys.argv[1:], flush=True)"


def test_a_secret_leaves_the_process_list_and_nothing_else_changes() -> None:
    """It is gone from every word; the words keep their number and length, and the process what it has read."""
    words = [f"--http=a,b:key={SECRET}", "between", f"--grpc=a:key={SECRET}"]
    command = [sys.executable, "-c", _CHILD, *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == f"{words}\n"
        shown = Path(f"/proc/{child.pid}/cmdline")
        before = shown.read_bytes()
        assert before.count(SECRET.encode()) == 2
        assert conceal(child.pid, SECRET)
        assert shown.read_bytes() == before.replace(SECRET.encode(), b"*" * len(SECRET))
        assert child.communicate("")[0] == f"{words}\n"


def test_what_cannot_be_concealed_is_said() -> None:
    """A process that is gone, or that is nobody's to change, is no error."""
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    assert not conceal(child.pid, SECRET)
