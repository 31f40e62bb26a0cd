"""Compose the backend directory that a server is started with, and take it away afterwards.

Triton knows one backend directory. Ours joins the server's own backends, the stub for the running Python and
this project's Python-based backends. Triton refuses a backend library whose real path leaves its own directory,
so libraries are never linked one by one: a whole directory is linked, or its files are copied.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from triton_router.assets import shipped
from triton_router.errors import NotFoundError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from triton_router.serving.launcher.find import Installation

STUB = "triton_python_backend_stub"
_PREFIX = "triton-router-backends-"
_PLAIN = re.compile(r"[A-Za-z0-9_./+@%=:,-]+")


@contextlib.contextmanager
def backend_directory(installation: Installation, python_version: str) -> Generator[Path]:
    """Yield a composed backend directory that lives as long as the context.

    Args:
        installation: The server that will use it.
        python_version: Such as ``3.11``; chooses the stub.

    Raises:
        NotFoundError: The server lacks the Python backend.
        UnsupportedError: No stub for this Python, or the temporary directory forbids programs.
    """
    _remove_abandoned()
    with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-") as name:
        if not is_plain(name):
            raise UnsupportedError(
                f"the temporary directory {tempfile.gettempdir()} has a name that Triton's Python backend cannot use",
                hint="set TMPDIR to a directory whose path has letters, digits and ._- only",
            )
        directory = Path(name) / "backends"
        directory.mkdir()
        compose(directory, installation, python_version)
        yield directory


def is_plain(path: Path | str) -> bool:
    """Return whether the Python backend can start a stub with this path: a shell splits and expands the words."""
    return _PLAIN.fullmatch(str(path)) is not None


@contextlib.contextmanager
def plain_repositories(repositories: Sequence[Path], directory: Path) -> Generator[tuple[Path, ...]]:
    """Yield paths of these repositories that the Python backend can use, through links where it has to be."""
    links: list[Path] = []
    result: list[Path] = []
    for index, repository in enumerate(repositories):
        path = repository.absolute()
        if not is_plain(path):
            link = directory / f"repository-{index}"
            link.symlink_to(path, target_is_directory=True)
            links.append(link)
            path = link
        result.append(path)
    try:
        yield tuple(result)
    finally:
        for link in links:
            link.unlink()


def compose(directory: Path, installation: Installation, python_version: str) -> None:
    """Fill an empty directory with every backend the server is to have; see `backend_directory`."""
    native = installation.backends
    if native is None or not (native / "python").is_dir():
        raise NotFoundError(
            f"{installation.executable} has no Python backend beside it, which the router runs in",
            hint="use a server with backends/python, such as NVIDIA's -py3 images or 'triton-router[serve]'",
        )
    _python_backend(directory / "python", native / "python", installation.stubs, python_version)
    for backend in sorted(native.iterdir()):
        if backend.is_dir() and backend.name != "python":
            (directory / backend.name).symlink_to(backend.resolve())
    own = shipped("backends")
    for backend in sorted(own.iterdir()):
        if (backend / "model.py").is_file():
            link = directory / backend.name
            link.unlink(missing_ok=True)
            link.symlink_to(backend)
    if not (directory / "onnxruntime").exists() and (own / "onnx").is_dir():
        # Models name Triton's own backend, so the same repository serves where that one is installed.
        (directory / "onnxruntime").symlink_to(own / "onnx")


def _python_backend(target: Path, source: Path, stubs: Path | None, python_version: str) -> None:
    if stubs is None:
        target.symlink_to(source.resolve())
        return
    stub = stubs / python_version / STUB
    if not stub.is_file():
        offered = ", ".join(sorted((path.name for path in stubs.iterdir()), key=lambda name: int(name.split(".")[1])))
        raise UnsupportedError(
            f"the bundled server has no stub for Python {python_version}; it has {offered}",
            hint="run triton-router in an environment of Python 3.11 or 3.12",
        )
    shutil.copytree(source, target)
    shutil.copy2(stub, target / STUB)
    if not os.access(target / STUB, os.X_OK):
        raise UnsupportedError(
            f"programs cannot run from {target.parent}: it lies on a file system mounted noexec",
            hint="set TMPDIR to a directory whose file system allows programs",
        )


def _remove_abandoned() -> None:
    """Remove what launchers of this user left behind when they were killed outright."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        pid = path.name.removeprefix(_PREFIX).split("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists() and path.lstat().st_uid == os.getuid():
            shutil.rmtree(path, ignore_errors=True)


def available(installation: Installation) -> dict[str, bool]:
    """Return the backends that a composed directory will have; True marks those of this project."""
    native = installation.backends
    names = {path.name: False for path in native.iterdir() if path.is_dir()} if native is not None else {}
    own = {path.name for path in shipped("backends").iterdir() if (path / "model.py").is_file()}
    names.update(dict.fromkeys(own, True))
    if "onnx" in own:
        names.setdefault("onnxruntime", True)
    return names
