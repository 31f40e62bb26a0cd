"""What a stub process holds: memory, threads, files, shared memory. Linux only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from triton_router.errors import NotFoundError

_START_TIME = 17
"""Where ``/proc/PID/stat`` has it, counted from behind the parent's id (proc(5))."""


@dataclass(frozen=True, slots=True)
class ProcessFigures:
    """One process at one moment.

    Attributes:
        resident_kb: RSS, shared regions included.
        private_kb: Memory that is its own.
        threads: Threads.
        files: Open file descriptors.
        shared_kb: Size of the /dev/shm regions that it maps, of backends written in Python.
    """

    resident_kb: int
    private_kb: int
    threads: int
    files: int
    shared_kb: int


def stubs_of(server_pid: int, model: str) -> list[int]:
    """Return the living stub processes of a model of a server, the oldest first.

    Their first argument is the path of the model.
    """
    found: list[tuple[int, int]] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().split(b"\0")
            state, parent, *figures = (process / "stat").read_text().rsplit(")", 1)[1].split()
        except (OSError, IndexError):  # it ended meanwhile
            continue
        if (
            int(parent) == server_pid
            and state != "Z"
            and len(arguments) > 1
            and f"/{model}/1/".encode() in arguments[1]
        ):
            found.append((int(figures[_START_TIME]), int(process.name)))
    return [pid for _, pid in sorted(found)]


def serving_stub_of(server_pid: int, model: str) -> int:
    """Return the stub process of a model that serves: the newest.

    A target that is unloaded while the server still holds calls of a router that was killed keeps its process.

    Raises:
        NotFoundError: It has none.
    """
    found = stubs_of(server_pid, model)
    if not found:
        raise NotFoundError(f"model {model!r} has no stub process")
    return found[-1]


def stub_of(server_pid: int, model: str) -> int:
    """Return the one stub process of a model.

    Raises:
        NotFoundError: It has none, or several.
    """
    found = stubs_of(server_pid, model)
    if len(found) != 1:
        raise NotFoundError(f"model {model!r} has {len(found)} stub processes, not one")
    return found[0]


def figures_of(pid: int) -> ProcessFigures:
    """Return what a process holds now. Raises `OSError` if it has ended."""
    process = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    rollup = dict(line.split(":", 1) for line in (process / "smaps_rollup").read_text().splitlines()[1:])
    return ProcessFigures(
        resident_kb=int(status["VmRSS"].split()[0]),
        private_kb=sum(int(rollup[name].split()[0]) for name in ("Private_Clean", "Private_Dirty")),
        threads=int(status["Threads"]),
        files=len(list((process / "fd").iterdir())),
        shared_kb=_shared_bytes(process) // 1024,
    )


def _shared_bytes(process: Path) -> int:
    total = 0
    for line in (process / "maps").read_text().splitlines():
        if "_backend_shm_region_" in line:  # marked as deleted where nothing but the processes holds it
            begin, _, end = line.split(maxsplit=1)[0].partition("-")
            total += int(end, 16) - int(begin, 16)
    return total
