"""Checks of the machine and of the Python that the server's stubs will run."""

from __future__ import annotations

import contextlib
import errno
import platform
import re
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from triton_router.serving.launcher.backend_directory import STUB
from triton_router.serving.launcher.preflight.finding import Finding, error, warning

if TYPE_CHECKING:
    from collections.abc import Iterable

    from triton_router.serving.capabilities import Capabilities
    from triton_router.serving.launcher.endpoints import Endpoint
    from triton_router.serving.launcher.find import Installation
    from triton_router.serving.launcher.python_runtime import PythonRuntime

MB = 1 << 20
BUNDLED_GLIBC = (2, 35)
"""The wheel's server is built against it."""

SHM_START = MB
"""Shared memory that each Python instance takes at its start."""

SHM_ROOM = 8 * MB
"""Room per Python instance below which ordinary requests soon fill /dev/shm."""

_STUB_LIBRARY = re.compile(rb"libpython(3\.\d+)\.so")


def numpy_version(python: PythonRuntime, server: Capabilities) -> list[Finding]:
    """The numpy that stubs will import must be one the server understands."""
    if python.numpy is None:
        return [
            error(
                "numpy is not installed in this environment",
                "no Python model can be loaded",
                "pip install 'triton-router[serve]'",
            )
        ]
    if int(python.numpy.split(".")[0]) < 2 or server.numpy2:
        return []
    if not server.known:
        return [
            warning(
                f"numpy {python.numpy} with a server of unknown version",
                "servers before release 24.11 silently corrupt tensors under numpy 2",
                "make sure that the server is 24.11 or newer, or pip install 'numpy<2'",
            )
        ]
    return [
        error(
            f"numpy {python.numpy} with a server of release {server.release}",
            "servers before release 24.11 silently corrupt tensors under numpy 2",
            "pip install 'numpy<2', or use a newer server",
        )
    ]


def stub_python(installation: Installation, python: PythonRuntime) -> list[Finding]:
    """The server must have a stub for this Python, and the stub must find its library."""
    offered = stub_versions(installation)
    if offered and python.version not in offered:
        return [
            error(
                f"this is Python {python.version}, and the server's Python backend is for {', '.join(offered)}",
                "its stubs could not import anything from this environment",
                f"install triton-router in an environment of Python {offered[-1]}",
            )
        ]
    # An image's own stub brings its library along.
    if installation.stubs is not None and not python.library_found:
        return [
            error(
                f"{python.library} is not found",
                "the Python backend's stub cannot start without this Python's shared library",
                f"on Debian and Ubuntu: apt-get install libpython{python.version}; "
                "or use a Python built with --enable-shared",
            )
        ]
    return []


def stub_versions(installation: Installation) -> list[str]:
    """Return the Python versions the server has stubs for, ascending; empty if that cannot be told."""
    if installation.stubs is not None:
        found = [path.parent.name for path in installation.stubs.glob(f"*/{STUB}")]
    elif installation.backends is not None and (installation.backends / "python" / STUB).is_file():
        content = (installation.backends / "python" / STUB).read_bytes()
        found = sorted({match.decode() for match in _STUB_LIBRARY.findall(content)})
    else:
        return []
    return sorted(found, key=lambda version: int(version.split(".")[1]))


def glibc(installation: Installation, found: tuple[str, str] | None = None) -> list[Finding]:
    """The bundled server needs a C library that is new enough."""
    name, version = platform.libc_ver() if found is None else found
    if installation.kind != "bundled" or (name == "glibc" and _numbers(version) >= BUNDLED_GLIBC):
        return []
    return [
        error(
            f"this system's C library is {name or 'not glibc'} {version}".rstrip(),
            f"the bundled tritonserver needs glibc {BUNDLED_GLIBC[0]}.{BUNDLED_GLIBC[1]} or newer",
            "use Debian 12, Ubuntu 22.04 or newer, or NVIDIA's tritonserver image",
        )
    ]


def shared_memory(instances: int, directory: Path = Path("/dev/shm")) -> list[Finding]:  # noqa: S108 - its fixed place
    """Python instances exchange tensors through /dev/shm, which containers give 64 MB."""
    if not directory.is_dir():
        return [
            error(
                f"{directory} does not exist", "the Python backend exchanges tensors through it", "mount a tmpfs there"
            )
        ]
    usage = shutil.disk_usage(directory)
    free, total = usage.free // MB, usage.total // MB
    if usage.free < instances * SHM_START:
        return [
            error(
                f"{directory} has {free} MB free of {total}",
                f"{instances} Python instances take {SHM_START // MB} MB each before the first request",
                "give the container more: docker run --shm-size=1g, or a medium: Memory volume on Kubernetes",
            )
        ]
    if usage.free < instances * SHM_ROOM:
        return [
            warning(
                f"{directory} has {free} MB free of {total}",
                f"{instances} Python instances start with {SHM_START // MB} MB each, and each grows to its largest "
                "(input + output bytes) x requests in flight and never shrinks; when it is full, requests fail",
                "give the container more: docker run --shm-size=1g, or a medium: Memory volume on Kubernetes",
            )
        ]
    return []


def threads(instances: int, pool: int, limit: int | None) -> list[Finding]:
    """Every Python instance has a thread pool in the server; a container limits threads."""
    wanted = instances * pool
    if limit is None or wanted < limit // 2:
        return []
    return [
        warning(
            f"{instances} Python instances with pools of {pool} threads may reach {wanted} threads of {limit} allowed",
            "the server aborts when it cannot start a thread",
            "raise the container's pids limit, or pass -- --backend-config=python,thread-pool-size=32",
        )
    ]


def thread_limit(cgroup: Path = Path("/sys/fs/cgroup/pids.max")) -> int | None:
    """Return how many threads this container may have; None if there is no limit."""
    try:
        text = cgroup.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def ports(endpoints: Iterable[tuple[str, str, Endpoint | None]]) -> list[Finding]:
    """Every port must be free, and no two the same.

    Args:
        endpoints: Service, flag and place of each listener.
    """
    found: list[Finding] = []
    seen: dict[int, str] = {}
    for service, flag, place in endpoints:
        if place is None or place.port == 0:
            continue
        if place.port in seen:
            found.append(
                error(
                    f"port {place.port} is given to both {seen[place.port]} and {service}",
                    "only one of them can listen there",
                    f"choose another {flag}",
                )
            )
        elif _in_use(place):
            found.append(
                error(
                    f"port {place.port} for {service} is in use",
                    "the server could not listen there",
                    f"choose another {flag}, or end what listens there",
                )
            )
        seen[place.port] = service
    return found


def addresses(places: Iterable[Endpoint | None]) -> list[Finding]:
    """Every address must be one of this machine's. Each is told of once."""
    problems = {place.address: _why_not_ours(place.address) for place in places if place is not None}
    return [
        error(
            f"nothing can listen on {address}: {problem}",
            "it has to be an address of this machine, or a name that stands for one",
            "pass --address 127.0.0.1, 0.0.0.0 for every interface, or the address of one of them",
        )
        for address, problem in problems.items()
        if problem
    ]


def _why_not_ours(address: str) -> str:
    """Return why no socket can be bound to an address; "" where one can, whatever the port."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0]
        with contextlib.closing(socket.socket(family, kind, protocol)) as probe:
            probe.bind(place)
    except (OSError, UnicodeError) as problem:  # the latter of names that could be none
        return str(problem.strerror if isinstance(problem, OSError) else problem)
    return ""


def _in_use(place: Endpoint) -> bool:
    family = socket.AF_INET6 if ":" in place.address else socket.AF_INET
    with contextlib.closing(socket.socket(family)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((place.address, place.port))
        except (OSError, UnicodeError) as problem:  # what is no address is `addresses` to tell
            return isinstance(problem, OSError) and problem.errno == errno.EADDRINUSE
        return False


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
