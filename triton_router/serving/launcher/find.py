"""Find the tritonserver to start: a given one, on PATH, NVIDIA's images, or the wheel that bundles one.

The wheel is found without importing it: its import starts background machinery that a launcher has no use for.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from triton_router.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping

NVIDIA_DIRECTORY = Path("/opt/tritonserver")
"""Where NVIDIA's container images install the server."""

BUNDLED_SERVERS = {"0.7.0": "2.51.0"}
"""Version of the nvidia-pytriton wheel to the server inside it."""

_VERSION = re.compile(r"\d+\.\d+(\.\d+)?")


@dataclass(frozen=True, slots=True)
class Installation:
    """One tritonserver that can be started.

    Attributes:
        kind: ``bundled`` (the wheel), ``nvidia`` (an image's own) or ``path`` (found or given elsewhere).
        executable: The server's program.
        backends: Directory of its backends; absent where the server was found without one.
        stubs: Directory with one Python stub per Python version; only the wheel has it.
        library_paths: Directories that the dynamic loader needs for the server.
        version: The server's own version such as ``2.51.0``, or a release such as ``24.10``; None if unknown.
    """

    kind: Literal["bundled", "nvidia", "path"]
    executable: Path
    backends: Path | None
    stubs: Path | None = None
    library_paths: tuple[Path, ...] = ()
    version: str | None = None


def find(explicit: Path | None = None, *, environment: Mapping[str, str] | None = None) -> Installation:
    """Return the tritonserver to start.

    Args:
        explicit: An executable, or the directory of an installation; nothing else is tried then.
        environment: Process environment; the current one by default.

    Raises:
        NotFoundError: There is none, with what to install.
    """
    environment = os.environ if environment is None else environment
    if explicit is not None:
        return _given(explicit, environment)
    on_path = shutil.which("tritonserver", path=environment.get("PATH"))
    if on_path:
        return _installed(Path(on_path), environment)
    image = NVIDIA_DIRECTORY / "bin" / "tritonserver"
    if _is_program(image):
        return _installed(image, environment)
    bundled = _bundled()
    if bundled is not None:
        return bundled
    raise NotFoundError(
        f"no tritonserver: not on PATH, not in {NVIDIA_DIRECTORY}, and no wheel that bundles one is installed",
        hint=_what_to_install(),
    )


def _given(path: Path, environment: Mapping[str, str]) -> Installation:
    for candidate in (path, path / "bin" / "tritonserver", path / "tritonserver"):
        if _is_program(candidate):
            return _installed(candidate, environment)
    raise NotFoundError(
        f"{path} is neither a tritonserver program nor a directory that holds one",
        hint="pass the program itself or its installation directory to --tritonserver, or leave the option out",
    )


def _installed(executable: Path, environment: Mapping[str, str]) -> Installation:
    executable = executable.resolve()
    bundled = _bundled()
    if bundled is not None and bundled.executable.resolve() == executable:
        return bundled
    home = executable.parent.parent
    backends = home / "backends"
    libraries = home / "lib"
    return Installation(
        kind="nvidia" if home == NVIDIA_DIRECTORY.resolve() else "path",
        executable=executable,
        backends=backends if backends.is_dir() else None,
        library_paths=(libraries,) if libraries.is_dir() else (),
        version=_installed_version(home, environment),
    )


def _installed_version(home: Path, environment: Mapping[str, str]) -> str | None:
    """Prefer the file beside the program: the environment may speak of another installation."""
    file = home / "TRITON_VERSION"
    texts = [file.read_text(encoding="utf-8")] if file.is_file() else []
    texts += [environment.get(name, "") for name in ("TRITON_SERVER_VERSION", "NVIDIA_TRITON_SERVER_VERSION")]
    for text in texts:
        found = _VERSION.search(text)
        if found:
            return found.group()
    return None


def _bundled() -> Installation | None:
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        return None
    package = Path(spec.origin).parent
    home = package / "tritonserver"
    executable = home / "bin" / "tritonserver"
    if not _is_program(executable):
        return None
    return Installation(
        kind="bundled",
        executable=executable,
        backends=home / "backends",
        stubs=home / "python_backend_stubs",
        library_paths=(package.parent / "nvidia_pytriton.libs",),
        version=BUNDLED_SERVERS.get(importlib.metadata.version("nvidia-pytriton")),
    )


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _what_to_install() -> str:
    if sys.platform == "linux" and os.uname().machine == "x86_64":
        return "pip install 'triton-router[serve]' brings a server, or run inside NVIDIA's tritonserver image"
    return (
        "no wheel bundles a server for this platform: run inside NVIDIA's tritonserver image, "
        "or build Triton and pass --tritonserver"
    )
