"""Run one function of this package in a child process with limits.

Model files are strangers: parsing, exporting and compiling them may take all memory, loop, or crash the
process. Everything that touches a model's bytes therefore runs here, and whatever happens comes back as a
result or as one of this package's errors.

What is limited: wall time (by the parent), CPU time, writable private memory, size of a written file, core
dumps. Memory is ``RLIMIT_DATA`` rather than ``RLIMIT_AS``: address space that is reserved but never written
(CUDA, allocator arenas, mapped files) would otherwise count. The child leads a session of its own, so that it
and everything it started is killed at the end; it dies with its parent.

These are limits, not a jail: code that a model runs (a factory, a ``.pt2``) has the user's own rights.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import triton_router
from triton_router import errors
from triton_router.errors import BuildError, TritonRouterError
from triton_router.repository.sandbox_child import report_progress

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Limits", "report_progress", "run_child"]

_LOGGER = logging.getLogger(__name__)
_BOOT = (
    "import sys; root = sys.argv.pop(); sys.path.append(root); "
    "from triton_router.repository.sandbox_child import main; main()"
)
_FAILED_HINT = (
    "the model's own code, or a library that processes it, fails: try it in Python, "
    "or leave this variant out with --targets"
)
_TAIL_BYTES = 32 * 1024
_ANSWER_BYTES = 64 * 1024 * 1024
_POLL_SECONDS = 0.2
_EXIT_SECONDS = 5.0
_LACKING_ON_DARWIN = "this system enforces no memory limit for child processes; only time is limited here"
_MEMORY_SIGNS = (b"bad_alloc", b"annot allocate memory", b"MemoryError", b"t allocate memory")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one child may use.

    The memory default is generous: for a sentence encoder of 23 million parameters (91 MB in float32) the largest
    children were measured on Linux, torch and onnxscript's export at 0.9 GiB and the Core ML conversion with its
    check at 0.8 GiB resident. What a larger model needs grows with its weights, of which several copies exist.

    Attributes:
        wall_seconds: Time until it is killed, whatever it does.
        cpu_seconds: CPU time over all of its threads; ``None`` is the wall time on every core.
        memory_bytes: Writable private memory of one process (not enforced on macOS).
        file_bytes: Size of one file that it writes.
    """

    wall_seconds: float = 1200.0
    cpu_seconds: int | None = None
    memory_bytes: int = 12 * 1024**3
    file_bytes: int = 32 * 1024**3

    def to_json(self) -> dict[str, int]:
        """Return the numbers that the child sets on itself."""
        cpu = self.cpu_seconds
        if cpu is None:
            cpu = int(self.wall_seconds * (os.cpu_count() or 1)) + 1
        return {"cpu": cpu, "memory": self.memory_bytes, "file": self.file_bytes}


def run_child(
    entry: str,
    payload: Mapping[str, object],
    *,
    limits: Limits,
    on_progress: Callable[[str], None] | None = None,
) -> dict[str, object]:
    """Call one function of this package in a child process and return its result.

    Args:
        entry: ``triton_router.some.module:function``, called as ``function(payload)``.
        payload: JSON-serialisable.
        limits: What the child may use.
        on_progress: Called with each line that the child gives to `report_progress`, in this thread.

    Returns:
        What the function returned; it must be JSON-serialisable.

    Raises:
        TritonRouterError: The function raised it: same class, message and hint.
        BuildError: The function failed otherwise, the child crashed, or a limit ended it.
        ValueError: ``entry`` is not a function of this package.
    """
    if not entry.startswith("triton_router.") or entry.count(":") != 1:
        raise ValueError(f"entry {entry!r} is not 'triton_router.<module>:<function>'")
    _announce_missing_limits(on_progress)
    with tempfile.TemporaryDirectory(prefix="triton-router-", ignore_cleanup_errors=True) as scratch:
        order = Path(scratch) / "order.json"
        order.write_text(json.dumps({"entry": entry, "payload": payload, "limits": limits.to_json()}))
        child = _Child(order, Path(scratch), limits, on_progress)
        try:
            child.follow()
        finally:
            child.kill()
    return child.outcome(entry)


def _announce_missing_limits(on_progress: Callable[[str], None] | None) -> None:
    if sys.platform != "darwin":
        return
    if on_progress is None:
        _LOGGER.warning(_LACKING_ON_DARWIN)
    else:
        on_progress(_LACKING_ON_DARWIN)


class _Child:
    """One running child: reads its two pipes until it answers, ends, or its time is over."""

    def __init__(self, order: Path, scratch: Path, limits: Limits, on_progress: Callable[[str], None] | None) -> None:
        self._limits = limits
        self._on_progress = on_progress
        self._answer: dict[str, object] | None = None
        self._partial = b""
        self._tail = b""
        self._timed_out = False
        self._deadline = time.monotonic() + limits.wall_seconds
        self._control, control = os.pipe()
        self._process = _start(order, scratch, control)
        os.close(control)

    def follow(self) -> None:
        """Return when there is an answer, the process ended, or the wall time is over."""
        output = self._process.stdout
        assert output is not None  # noqa: S101 - Popen was given PIPE
        with selectors.DefaultSelector() as selector, output:
            for descriptor in (self._control, output.fileno()):
                os.set_blocking(descriptor, False)
                selector.register(descriptor, selectors.EVENT_READ)
            while self._answer is None and not self._timed_out:
                ended = self._process.poll() is not None
                for key, _ in selector.select(0 if ended else _POLL_SECONDS):
                    if not self._take(key.fd):
                        selector.unregister(key.fd)
                if ended:
                    break
                self._timed_out = time.monotonic() > self._deadline
            self._wait_for_exit()
            self._drain(output.fileno())

    def kill(self) -> None:
        """End the child and everything in its session that is still alive; safe to call twice."""
        with contextlib.suppress(ProcessLookupError, PermissionError):  # EPERM: a group of zombies on macOS
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._control >= 0:
            os.close(self._control)
            self._control = -1

    def outcome(self, entry: str) -> dict[str, object]:
        """Return the result, or raise what the child reported or what its end says."""
        answer = self._answer
        if answer is None:
            raise self._ending(entry)
        if "result" in answer:
            return cast("dict[str, object]", answer["result"])
        if "error" in answer:
            raise _rebuilt(cast("dict[str, str]", answer["error"]))
        where = f" (at {answer['where']})" if answer.get("where") else ""
        if "limit" in answer:
            raise self._limit_error(str(answer["limit"]), entry, where)
        error = BuildError(
            f"{entry} failed: {answer.get('failure')}{where}",
            hint=_FAILED_HINT,
        )
        error.add_note(self._tail.decode(errors="replace"))
        raise error

    def _take(self, descriptor: int) -> bool:
        """Read what is there; ``False`` at the end of the stream."""
        try:
            data = os.read(descriptor, 65536)
        except BlockingIOError:
            return True
        if descriptor == self._control:
            self._take_control(data)
        else:
            self._tail = (self._tail + data)[-_TAIL_BYTES:]
        return bool(data)

    def _take_control(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > _ANSWER_BYTES:
            self._answer = {"failure": f"the answer is larger than {_ANSWER_BYTES} bytes", "where": ""}
        for line in lines:
            message = _message(line)
            if "progress" not in message:
                self._answer = self._answer or message
            elif self._on_progress is not None:
                self._on_progress(str(message["progress"]))

    def _wait_for_exit(self) -> None:
        if self._timed_out:
            return
        try:
            self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            _LOGGER.debug("the child answered and did not exit; it is killed")

    def _drain(self, descriptor: int) -> None:
        while True:
            try:
                data = os.read(descriptor, 65536)
            except BlockingIOError:
                return
            if not data:
                return
            self._tail = (self._tail + data)[-_TAIL_BYTES:]

    def _ending(self, entry: str) -> BuildError:
        """Say why a child without an answer is gone."""
        if self._timed_out:
            return self._limit_error("wall", entry, "")
        code = self._process.returncode
        if code == -signal.SIGXCPU:
            return self._limit_error("cpu", entry, "")
        if any(sign in self._tail for sign in _MEMORY_SIGNS):
            return self._limit_error("memory", entry, "")
        lines = [line for line in self._tail.decode(errors="replace").splitlines() if line.strip()]
        # faulthandler puts what happened first and a list of modules last.
        told = next((line for line in lines if line.startswith("Fatal Python error")), lines[-1] if lines else "")
        last = f": {told.strip()}" if told else ""
        if code == -signal.SIGKILL:
            error = BuildError(
                f"the child that ran {entry} was killed by the system{last}",
                hint="most often this is a lack of memory: close other programs, or use a machine with more",
            )
        else:
            reason = f"crashed with {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
            error = BuildError(
                f"the child that ran {entry} {reason} and gave no answer{last}",
                hint=_FAILED_HINT,
            )
        error.add_note("\n".join(lines))
        return error

    def _limit_error(self, limit: str, entry: str, where: str) -> BuildError:
        numbers = self._limits.to_json()
        what, hint = {
            "wall": (
                f"took longer than {self._limits.wall_seconds:g} s",
                "give it more with --time-limit SECONDS",
            ),
            "cpu": (
                f"used more than {numbers['cpu']} s of CPU time",
                "give it more with --time-limit SECONDS",
            ),
            "memory": (
                f"needed more memory than its limit of {numbers['memory'] / 1024**3:.2f} GiB",
                "give it more with --memory-limit BYTES, or add a smaller model",
            ),
            "file": (
                f"wrote a file larger than {numbers['file'] / 1024**3:.2f} GiB",
                "no variant should be that large; check the model",
            ),
            "disk": (
                "found no space left on the disk",
                "free some: models are built beside the repository, with temporary files in TMPDIR",
            ),
        }[limit]
        return BuildError(f"{entry} {what} and was stopped{where}", hint=hint)


def _message(line: bytes) -> dict[str, object]:
    """Read one line of the control pipe; a model's code may have written to it."""
    try:
        value: object = json.loads(line)
    except ValueError:
        value = None
    message = cast("dict[str, object]", value) if isinstance(value, dict) else {}
    if not _is_sound(message):
        return {"failure": "something else than this package wrote to its control pipe", "where": ""}
    return message


def _is_sound(message: Mapping[str, object]) -> bool:
    """Tell whether a message is one that `triton_router.repository.sandbox_child` sends."""
    if "error" in message:
        error = message["error"]
        return isinstance(error, dict) and error.keys() >= {"class", "message", "hint"}
    if "limit" in message:
        return message["limit"] in {"cpu", "memory", "file", "disk"}
    return isinstance(message.get("result"), dict) or "progress" in message or "failure" in message


def _start(order: Path, scratch: Path, control: int) -> subprocess.Popen[bytes]:
    root = str(Path(triton_router.__file__).resolve().parent.parent)
    command = [sys.executable, "-P", "-X", "faulthandler", "-c", _BOOT, str(control), str(os.getpid()), root]
    with order.open("rb") as stdin:
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(control,),
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(scratch)},
            bufsize=0,
        )


def _rebuilt(report: Mapping[str, str]) -> TritonRouterError:
    kind = getattr(errors, report["class"], TritonRouterError)
    if not (isinstance(kind, type) and issubclass(kind, TritonRouterError)):
        kind = TritonRouterError
    return kind(report["message"], hint=report["hint"])
