"""Functions that misbehave in one way each: what a child of `triton_router.repository.sandbox` must survive."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from triton_router import errors
from triton_router.repository.sandbox import Limits, report_progress, run_child

if TYPE_CHECKING:
    from collections.abc import Mapping

_SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]


def echo(payload: Mapping[str, object]) -> dict[str, object]:
    """Return the payload, after noise on standard output and two lines of progress."""
    report_progress("first")
    sys.stdout.write("noise\n" * 20000)
    sys.stderr.write("more noise\n")
    report_progress("second\nline")
    return {**payload, "cwd": str(Path.cwd()), "pid": os.getpid(), "session": os.getsid(0)}


def refuse(payload: Mapping[str, object]) -> dict[str, object]:
    """Raise the error of this package that the payload names."""
    raise getattr(errors, str(payload["class"]))("the reason", hint="what to do")


def fail(payload: Mapping[str, object]) -> dict[str, object]:
    """Raise an error that is not this package's."""
    raise ValueError(f"unexpected {payload['value']}\nwith a second line")


def leave(payload: Mapping[str, object]) -> dict[str, object]:
    """End the process without an answer."""
    sys.stderr.write("going\n")
    sys.stderr.flush()
    os._exit(int(str(payload["status"])))


def crash(_: Mapping[str, object]) -> dict[str, object]:
    """Die of a segmentation fault."""
    ctypes.string_at(0)
    return {}


def sleep(_: Mapping[str, object]) -> dict[str, object]:
    """Outlast every limit of wall time, with a process of its own beside it."""
    sleeper = subprocess.Popen(_SLEEPER)
    report_progress(f"{os.getpid()} {sleeper.pid}")
    time.sleep(600)
    return {}


def leave_process_behind(_: Mapping[str, object]) -> dict[str, object]:
    """Answer at once, and leave a process that holds the output pipe open."""
    return {"pid": subprocess.Popen(_SLEEPER).pid}


def burn(_: Mapping[str, object]) -> dict[str, object]:
    """Use CPU time until it is killed."""
    while True:
        pass


def allocate(payload: Mapping[str, object]) -> dict[str, object]:
    """Allocate and touch the given number of bytes."""
    return {"allocated": len(bytearray(b"x" * int(str(payload["bytes"]))))}


def write(payload: Mapping[str, object]) -> dict[str, object]:
    """Write one file of the given number of bytes."""
    with tempfile.TemporaryFile() as file:
        for _ in range(int(str(payload["bytes"])) // 4096):
            file.write(b"x" * 4096)
    return {}


def use_missing_extra(_: Mapping[str, object]) -> dict[str, object]:
    """Import what an installation without the ``coreml`` extra lacks."""
    raise ModuleNotFoundError("No module named 'coremltools'", name="coremltools")


def unserialisable(_: Mapping[str, object]) -> dict[str, object]:
    """Return what JSON cannot carry."""
    return {"value": object()}


def nested_sleep(_: Mapping[str, object]) -> dict[str, object]:
    """Be the parent of a child that sleeps, to be killed itself."""
    return run_child("triton_router.testing.sandbox_entries:sleep", {}, limits=Limits(), on_progress=report_progress)


def scribble(payload: Mapping[str, object]) -> dict[str, object]:
    """Write ``payload["text"]`` to every descriptor that is open, as a model's own code might."""
    for descriptor in range(3, 64):
        with contextlib.suppress(OSError):
            os.write(descriptor, str(payload["text"]).encode() + b"\n")
    return {}


def fill_the_disk(payload: Mapping[str, object]) -> dict[str, object]:
    """Write where there is no space."""
    with Path("/dev/full").open("wb", buffering=0) as file:
        file.write(str(payload).encode())
    return {}
