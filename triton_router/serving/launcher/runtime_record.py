"""What a running `serve` or `watch` leaves for other commands of the same user: where it is, and its key.

A file of its own for each, readable by its owner alone, in the user's runtime directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from triton_router.errors import InvalidInputError, NotFoundError
from triton_router.files import replace_private
from triton_router.serving.stub_processes import runs

if TYPE_CHECKING:
    from collections.abc import Generator

_SUFFIX = ".json"
_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0", "::"})  # noqa: S104 - they are asked, not bound
_POLL_S = 0.1
_MAX_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class RuntimeRecord:
    """One running `serve` or `watch`.

    Attributes:
        pid: Its process id.
        kind: ``serve`` or ``watch``.
        server_pid: That of its tritonserver.
        http_port: The server's; None without HTTP.
        grpc_port: The server's; None without gRPC.
        http_headers: What opens the repository API over HTTP.
    """

    pid: int
    kind: str
    server_pid: int
    http_port: int | None
    grpc_port: int | None
    http_headers: dict[str, str]


@contextlib.contextmanager
def recorded(record: RuntimeRecord) -> Generator[Path]:
    """Keep the record on disk as long as the context lasts."""
    directory = runtime_directory()
    _make_own(directory)
    path = directory / f"{record.kind}-{record.pid}{_SUFFIX}"
    replace_private(path, json.dumps(asdict(record)).encode())
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def key_headers(port: int | None, host: str) -> dict[str, str]:
    """Return what opens the repository API of a server that this user serves on this machine; nothing of others."""
    if host not in _LOCAL_HOSTS:
        return {}
    return next((record.http_headers for record in records() if record.http_port == port), {})


def records() -> list[RuntimeRecord]:
    """Return those of this user that still run; files of processes that were killed are taken away."""
    directory = runtime_directory()
    if not directory.is_dir() or not _is_own(directory):
        return []
    found: list[RuntimeRecord] = []
    for path in sorted(directory.glob(f"*{_SUFFIX}")):
        with contextlib.suppress(OSError, ValueError, TypeError):  # gone, or written by another version
            with path.open(encoding="utf-8") as file:
                record = RuntimeRecord(**json.loads(file.read(_MAX_BYTES)))
            if runs(record.pid):
                found.append(record)
            else:
                path.unlink(missing_ok=True)
    return found


def chosen(url: str | None, pid: int | None) -> RuntimeRecord:
    """Return the one that a user means: by its server's HTTP address, by a process id, or the only one.

    Raises:
        NotFoundError: There is none.
        InvalidInputError: There are several.
    """
    found = records()
    if pid is not None:
        found = [record for record in found if pid in {record.pid, record.server_pid}]
    elif url is not None:
        port = urlsplit(url if "://" in url else f"http://{url}").port or 80
        found = [record for record in found if record.http_port == port]
    if not found:
        raise NotFoundError(
            "no 'triton-router serve' or 'watch' of this user runs here" + (" for that server" if url or pid else ""),
            hint="run this on the server's machine, as its user and with its XDG_RUNTIME_DIR; a server that something "
            "else started needs 'triton-router watch'",
        )
    if len(found) > 1:
        places = ", ".join(f"{record.kind} {record.pid} (HTTP port {record.http_port})" for record in found)
        raise InvalidInputError(f"there are several: {places}", hint="choose one with --pid or --url")
    return found[0]


def wait_for_end(pid: int, timeout_s: float) -> bool:
    """Wait until a process has ended; False if it still runs after so many seconds."""
    deadline = time.monotonic() + timeout_s
    while runs(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def runtime_directory() -> Path:
    """Return the directory of such files: under ``$XDG_RUNTIME_DIR``, or the user's own under the temporary one."""
    base = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    if base.is_absolute() and base.is_dir():
        return base / "triton-router"
    return Path(tempfile.gettempdir()) / f"triton-router-{os.getuid()}"


def _make_own(directory: Path) -> None:
    directory.mkdir(mode=0o700, exist_ok=True)
    if not _is_own(directory):
        raise InvalidInputError(
            f"{directory} is not a directory of this user's alone, so the server's key cannot be kept there",
            hint="remove it, make it yours with mode 700, or set XDG_RUNTIME_DIR; or serve with an open API",
        )


def _is_own(directory: Path) -> bool:
    found = directory.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
