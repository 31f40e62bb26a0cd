"""The child's side of `triton_router.repository.sandbox`: set the limits, run one function, report.

The parent gives a JSON order on standard input and listens on one inherited pipe, which carries one JSON
object per line: ``{"progress": text}`` any number of times, then ``{"result": ...}``, ``{"error": ...}`` or
``{"limit": ...}`` once. Standard output and error stay free for what libraries print.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import json
import os
import resource
import signal
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Protocol, cast

from triton_router.errors import TritonRouterError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

EXTRA_OF_IMPORT = {
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "sympy": "onnx",
    "torch": "torch",
    "coremltools": "coreml",
    "tritonclient": "onnx",
}
"""Which extra of this package brings which import."""

_MEMORY_WORDS = ("bad_alloc", "can't allocate memory", "Cannot allocate memory", "Failed to allocate memory")
_CPU_GRACE_SECONDS = 5
_PROGRESS_CHARS = 400
_MESSAGE_CHARS = 2000
_PR_SET_PDEATHSIG = 1


class _Control:
    """Writes one JSON object per line to the parent's pipe, from any thread."""

    def __init__(self, descriptor: int) -> None:
        self._file = os.fdopen(descriptor, "w", encoding="utf-8")
        self._lock = threading.Lock()

    def send(self, message: Mapping[str, object]) -> None:
        line = json.dumps(message)
        with self._lock:
            self._file.write(line + "\n")
            self._file.flush()


class _State:
    control: _Control | None = None


class _Entry(Protocol):
    def __call__(self, payload: Mapping[str, object], /) -> Mapping[str, object]: ...


def report_progress(text: str) -> None:
    """Tell the parent what is being done now; outside a child this does nothing.

    Args:
        text: One short line; longer text is cut.
    """
    if _State.control is not None:
        _State.control.send({"progress": " ".join(text.split())[:_PROGRESS_CHARS]})


def main() -> None:
    """Run the order on standard input; leaves the process without the teardown of the loaded libraries.

    ``sys.argv`` is the control pipe's descriptor and the parent's process id.
    """
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    os.set_inheritable(descriptor, False)
    _State.control = _Control(descriptor)
    _die_with(parent)
    order = json.load(sys.stdin)
    _set_limits(order["limits"])
    _close_stdin()
    _State.control.send(_run(order["entry"], order["payload"]))
    sys.stdout.flush()
    sys.stderr.flush()
    # Heavy libraries can crash or hang while the interpreter takes them down; the answer is already out.
    os._exit(0)


def _close_stdin() -> None:
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a descriptor is wanted, not a path's content
        os.dup2(nothing.fileno(), 0)


def _run(entry: str, payload: Mapping[str, object]) -> dict[str, object]:
    """Call the entry and turn whatever happens into one message."""
    try:
        return {"result": dict(_resolve(entry)(payload))}
    except TritonRouterError as error:
        return {"error": {"class": type(error).__name__, "message": error.message, "hint": error.hint}}
    except ModuleNotFoundError as error:
        return _missing_module(error)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the boundary: everything becomes a report
        return _failure(error)


def _resolve(entry: str) -> _Entry:
    module, _, function = entry.partition(":")
    return cast("_Entry", getattr(importlib.import_module(module), function))


def _missing_module(error: ModuleNotFoundError) -> dict[str, object]:
    name = (error.name or "").partition(".")[0]
    if name not in EXTRA_OF_IMPORT:
        return _failure(error)
    extra = EXTRA_OF_IMPORT[name]
    report = UnsupportedError(
        f"the Python package {name!r} is not installed", hint=f"pip install 'triton-router[{extra}]'"
    )
    return {"error": {"class": "UnsupportedError", "message": report.message, "hint": report.hint}}


def _failure(error: BaseException) -> dict[str, object]:
    text = str(error)
    if isinstance(error, MemoryError) or any(word in text for word in _MEMORY_WORDS):
        return {"limit": "memory", "where": _where(error)}
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return {"limit": "file", "where": _where(error)}
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return {"limit": "disk", "where": _where(error)}
    traceback.print_exception(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = lines[-1] if len(lines) > 1 else ""
    summary = f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
    if last:
        summary += f" ... {last}"
    return {"failure": summary[:_MESSAGE_CHARS], "where": _where(error)}


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return ""
    frame = frames[-1]
    return f"{os.path.basename(frame.filename)}:{frame.lineno} in {frame.name}"  # noqa: PTH119 - text, not a file


def _set_limits(limits: Mapping[str, int]) -> None:
    """Lower this process's limits; what a platform lacks was named by the parent before."""
    numbers = {"cpu": resource.RLIMIT_CPU, "memory": resource.RLIMIT_DATA, "file": resource.RLIMIT_FSIZE}
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for name, number in numbers.items():
        _, hard = resource.getrlimit(number)
        wanted = limits[name] if hard == resource.RLIM_INFINITY else min(limits[name], hard)
        # At the soft CPU limit comes SIGXCPU, which the parent can tell from any other kill.
        ceiling = wanted + _CPU_GRACE_SECONDS if name == "cpu" else wanted
        resource.setrlimit(number, (wanted, ceiling if hard == resource.RLIM_INFINITY else hard))


def _die_with(parent: int) -> None:
    """Make sure that this process, and on Linux the kernel, ends it when the parent is gone."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)
        return
    threading.Thread(target=_watch, args=(parent, os.getppid, threading.Event().wait), daemon=True).start()


def _watch(parent: int, current: Callable[[], int], pause: Callable[[float], object]) -> None:
    while current() == parent:
        pause(1.0)
    os.killpg(0, signal.SIGKILL)
