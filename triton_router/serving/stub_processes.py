"""Which processes serve the Python models of a Triton server, and which of them have died; read from Linux's /proc.

Triton starts one process (a stub) for each instance of a Python model as a child of its own. Before server 26.01 it
does not notice that one has died: the model stays READY, and each request to it fails after a second. A stub that was
killed stays behind as a zombie until the server ends; one that Triton itself has ended is gone.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_PROGRAM = "triton_python_b"
"""The first 15 characters of the stub's name, which is what the kernel keeps."""
_SERVER = "tritonserver"
_SERVER_LIBRARY = "libtritonserver"
_MODEL_FILE, _INSTANCE = 1, 8
"""Arguments of a stub."""
_STATE, _PARENT, _STARTED, _EXIT_CODE = 0, 1, 19, -1
"""Fields of /proc/PID/stat after the name."""
_ENDED = frozenset({"Z", "X"})
_STOPPED = "T"
_FORGET_STRANGERS = 64
"""Looks after which processes of others are looked at again: their numbers are reused."""
_UNEXPLAINED_LOOKS = 3
"""Looks at which a zombie without a bad exit status has to be there: Triton may be about to collect it."""


class Stub(NamedTuple):
    """One stub process.

    Attributes:
        pid: Its process id.
        started: When, in the kernel's ticks since the machine's start.
        file: The file it was started for, in its version's directory.
        instance: Triton's name of the instance, such as ``minilm_0_0``.
    """

    pid: int
    started: int
    file: Path
    instance: str

    @property
    def model(self) -> str:
        """The model's name."""
        return self.file.parent.parent.name

    @property
    def version(self) -> int:
        """The model's version."""
        name = self.file.parent.name
        return int(name) if name.isdecimal() else 0

    @property
    def directory(self) -> Path:
        """The model's directory."""
        return self.file.parent.parent


class Seen(NamedTuple):
    """What one look at a server's children has found.

    Attributes:
        live: Its stubs.
        ended: Process ids of children that have ended and were not collected, each with its exit status as a shell
            gives it (128 + n for signal n); 0 where it cannot be read.
        stopped: Process ids of the stubs that a signal has stopped.
    """

    live: list[Stub]
    ended: dict[int, int]
    stopped: frozenset[int] = frozenset()


class StubScan:
    """Looks at the children of one server again and again, reading no more than it has to.

    Args:
        server: Process id of tritonserver.
    """

    def __init__(self, server: int) -> None:
        self._server = server
        self._strangers: set[str] = set()
        self._known: dict[str, Stub] = {}
        self._looks = 0

    def look(self) -> Seen:
        """Return what there is now; nothing where there is no /proc."""
        try:
            names = {name for name in os.listdir("/proc") if name.isdecimal()}  # noqa: PTH208 - thousands of them
        except FileNotFoundError:
            return Seen([], {})
        self._looks += 1
        self._strangers = set() if self._looks % _FORGET_STRANGERS == 0 else self._strangers & names
        known, self._known = self._known, {}
        ended: dict[int, int] = {}
        stopped: list[int] = []
        for name in names - self._strangers:
            fields = _stat(name)
            if fields is None:
                continue
            program, values = fields
            if int(values[_PARENT]) != self._server:
                self._strangers.add(name)
            elif values[_STATE] in _ENDED:
                ended[int(name)] = _exit_status(int(values[_EXIT_CODE]))
            elif program == _PROGRAM:
                stub = known.get(name) or _read(int(name), int(values[_STARTED]))
                if stub is not None:
                    self._known[name] = stub
                    stopped += [stub.pid] * (values[_STATE] == _STOPPED)
        return Seen(list(self._known.values()), ended, frozenset(stopped))


@dataclass(frozen=True, slots=True)
class Death:
    """A stub that has died, and nobody has taken its place.

    Attributes:
        stub: The process.
        status: Its exit status, 128 + n for signal n; 0 if unknown.
    """

    stub: Stub
    status: int

    def __str__(self) -> str:
        how = "has ended"
        if self.status > 128:
            number = self.status - 128
            known = number in signal.Signals.__members__.values()
            how = f"was ended by {signal.Signals(number).name if known else f'signal {number}'}"
        elif self.status:
            how = f"has ended with status {self.status}"
        return f"process {self.stub.pid} of {self.stub.instance} {how}"


@dataclass(slots=True)
class StubDeaths:
    """Tells the deaths of stubs from their ordinary ends, one look after the other; pure.

    A place (a model's version and an instance's name) whose process has died is dead until another process takes it,
    the model is no longer said to be ready, or all its processes are new: it was loaded again, with other instances.
    """

    _places: dict[tuple[str, int, str], Stub] = field(default_factory=dict[tuple[str, int, str], Stub])
    _dead: dict[tuple[str, int, str], Death] = field(default_factory=dict[tuple[str, int, str], Death])
    # The live processes of its model and version when it died.
    _survivors: dict[tuple[str, int, str], frozenset[int]] = field(
        default_factory=dict[tuple[str, int, str], frozenset[int]]
    )
    _suspects: dict[int, int] = field(default_factory=dict[int, int])

    def update(self, seen: Seen, is_ready: Callable[[str, int], bool | None]) -> list[Death]:
        """Return who is dead now.

        Args:
            seen: The look.
            is_ready: Says whether the server holds a version of a model for ready; None if it cannot be told. It is
                asked only about models that have lost a process.
        """
        live = {_place(stub): stub for stub in seen.live if not _only_completes(stub)}
        pids: dict[tuple[str, int], set[int]] = {}
        for place, stub in live.items():
            pids.setdefault(place[:2], set()).add(stub.pid)
        for place, former in list(self._places.items()):
            others = pids.get(place[:2], set())
            if place in live:
                self._revive(place)
            elif place in self._dead or self._has_died(former, seen, alone=not others):
                survivors = self._survivors.setdefault(place, frozenset(others))
                if (others and not others & survivors) or is_ready(place[0], place[1]) is False:
                    self._forget(place)
                else:
                    self._dead.setdefault(place, Death(former, seen.ended.get(former.pid, 0)))
            elif former.pid not in self._suspects:
                self._forget(place)
        self._places |= live
        self._suspects = {pid: looks for pid, looks in self._suspects.items() if self._is_known(pid)}
        return list(self._dead.values())

    def _has_died(self, stub: Stub, seen: Seen, *, alone: bool) -> bool:
        """Return whether a process that does not run any more has died rather than been ended by Triton."""
        if seen.ended.get(stub.pid):
            return True
        # Without a status: it is about to be collected, or the server is one that collects what dies by itself.
        if stub.pid not in seen.ended and not alone:
            self._suspects.pop(stub.pid, None)
            return False
        looks = self._suspects[stub.pid] = self._suspects.get(stub.pid, 0) + 1
        return looks > _UNEXPLAINED_LOOKS

    def _forget(self, place: tuple[str, int, str]) -> None:
        former = self._places.pop(place)
        self._revive(place)
        self._suspects.pop(former.pid, None)

    def _revive(self, place: tuple[str, int, str]) -> None:
        self._dead.pop(place, None)
        self._survivors.pop(place, None)

    def _is_known(self, pid: int) -> bool:
        return any(stub.pid == pid for stub in self._places.values())


def stubs_of(stubs: Iterable[Stub], model: str, version: int | None) -> list[Stub]:
    """Return those of a model; of one version, unless that is None."""
    return [stub for stub in stubs if stub.model == model and version in {None, stub.version}]


def runs(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not collected does not."""
    found = _stat(str(pid))
    return found is not None and found[1][_STATE] not in _ENDED


def is_tritonserver(pid: int) -> bool:
    """Whether a process is a server: by its program's name, or by the library in a program that has it in itself."""
    directory = Path("/proc", str(pid))
    try:
        if (directory / "comm").read_text().startswith(_SERVER):
            return True
        with (directory / "maps").open() as maps:
            return any(_SERVER_LIBRARY in line for line in maps)
    except OSError:  # it has ended, or is another user's and called otherwise
        return False


def is_stopped(pid: int) -> bool:
    """Whether a signal has stopped a process, which goes on when another (SIGCONT) lets it."""
    found = _stat(str(pid))
    return found is not None and found[1][_STATE] == _STOPPED


def _place(stub: Stub) -> tuple[str, int, str]:
    return stub.model, stub.version, stub.instance


def _only_completes(stub: Stub) -> bool:
    """Whether it only completes a model's configuration, after which it ends: it bears the model's own name."""
    return stub.instance == stub.model


def _stat(pid: str) -> tuple[str, list[str]] | None:
    """Return a process's name, and the fields behind it; None if it is gone."""
    try:
        text = Path("/proc", pid, "stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    head, _, tail = text.rpartition(")")
    return head.partition("(")[2], tail.split()


def _read(pid: int, started: int) -> Stub | None:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    if len(words) <= _INSTANCE:
        return None
    return Stub(pid, started, Path(os.fsdecode(words[_MODEL_FILE])), os.fsdecode(words[_INSTANCE]))


def _exit_status(code: int) -> int:
    """Return what a shell would say of the kernel's exit code."""
    number = code & 0x7F
    return 128 + number if number else code >> 8
