"""The demo's own processes: ``triton-router`` as a user would call it, ended with the demo however that ends."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from triton_router.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from examples.minilm.demo.console import Console
    from examples.minilm.demo.interruption import Interruption

PROGRAM = Path(sys.executable).with_name("triton-router")
"""The command of the environment that runs the demo."""

_PATIENCE_S = 45.0
"""Time for a process to end by itself; a server finishes what is in flight first."""


@contextlib.contextmanager
def running(
    command: Sequence[str | Path], interruption: Interruption, output: TextIO | int | None = None
) -> Generator[subprocess.Popen[str]]:
    """Start a process and end it when the block is left.

    Args:
        command: Program and arguments.
        interruption: Held back while the process is started and ended.
        output: Where its stdout and stderr go; the demo's own by default.
    """
    process: subprocess.Popen[str] | None = None
    try:
        with interruption.held():
            process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr if output is None else output,
                stderr=output if output is None else subprocess.STDOUT,
                text=True,
                # A terminal's Ctrl-C reaches the demo alone, which then ends what it started in order.
                start_new_session=True,
            )
        yield process
    finally:
        with interruption.held():
            if process is not None:
                _end(process)


def run(command: Sequence[str | Path], console: Console, interruption: Interruption) -> None:
    """Print a command and run it to its end.

    Raises:
        BuildError: It failed; what it printed says why.
    """
    console.command(command)
    with running(command, interruption) as process:
        status = process.wait()
    if status:
        raise BuildError(
            f"'triton-router {command[1]}' ended with status {status}", hint="what it printed above says why"
        )


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
