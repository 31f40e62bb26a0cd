"""The Python that Triton's stub processes will run: this one, so that they see this environment's packages."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class PythonRuntime:
    """The running interpreter, as a stub needs to know it.

    Attributes:
        version: ``3.11``.
        programs: Directory of ``python``; first on PATH it makes a stub use this environment.
        library: Name of the shared library that a stub links to, such as ``libpython3.11.so.1.0``.
        library_directory: Directory that holds it; None where it was not found or the system's loader finds it.
        library_found: Whether a stub will be able to load it.
        numpy: Version of numpy in this environment, None if absent.
    """

    version: str
    programs: Path
    library: str
    library_directory: Path | None
    library_found: bool
    numpy: str | None


def current() -> PythonRuntime:
    """Return the facts about the running interpreter."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    library = f"libpython{version}.so.1.0"
    directory = _library_directory(library)
    return PythonRuntime(
        version=version,
        # Not resolved: a virtual environment's python is a link, and its place is what counts.
        programs=Path(sys.executable).parent,
        library=library,
        library_directory=directory,
        library_found=directory is not None or _loader_knows(library),
        numpy=_version_of("numpy"),
    )


def _library_directory(library: str) -> Path | None:
    configured = [sysconfig.get_config_var(name) for name in ("LIBDIR", "LIBPL")]
    candidates = [Path(str(item)) for item in configured if item]
    candidates.append(Path(sys.base_prefix) / "lib")
    return next((directory for directory in candidates if (directory / library).is_file()), None)


def _loader_knows(library: str) -> bool:
    for ldconfig in ("/sbin/ldconfig", "/usr/sbin/ldconfig"):
        if Path(ldconfig).is_file():
            known = subprocess.run([ldconfig, "-p"], capture_output=True, text=True, check=False).stdout
            return library in known
    return False


def _version_of(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
