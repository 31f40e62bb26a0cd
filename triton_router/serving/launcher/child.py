"""Become tritonserver, tied to the launcher's life; run as a script: ``child.py PARENT_PID PROGRAM [ARGUMENT...]``.

The kernel is asked to end this process when its parent dies, however that happens. The request survives exec.
It is a program of its own because code between fork and exec is unsafe in a process that has threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask for the signal, check that the parent did not die before that, and exec."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(128 + signal.SIGTERM)
    os.execv(program[0], program)  # noqa: S606 - no shell is wanted; the launcher wrote this command line


if __name__ == "__main__":
    main()
