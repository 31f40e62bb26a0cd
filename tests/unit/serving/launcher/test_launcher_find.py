"""Which tritonserver is found, and the backend directory that is composed for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from triton_router.errors import NotFoundError, UnsupportedError
from triton_router.serving.launcher import find as finding
from triton_router.serving.launcher.backend_directory import STUB, available, backend_directory, compose
from triton_router.serving.launcher.find import Installation, find

if TYPE_CHECKING:
    from pathlib import Path


def install(home: Path, *backends: str, version: str = "") -> Path:
    """Write something that looks like an installation and return its program."""
    program = home / "bin" / "tritonserver"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for backend in backends:
        (home / "backends" / backend).mkdir(parents=True)
        (home / "backends" / backend / f"libtriton_{backend}.so").write_bytes(b"library")
    if version:
        (home / "TRITON_VERSION").write_text(version + "\n")
    return program


def test_path_wins_over_everything_but_an_explicit_choice(tmp_path: Path) -> None:
    """A server on PATH is taken, with its version read from the file beside it; --tritonserver overrules it."""
    on_path = install(tmp_path / "one", "python", version="2.60.0")
    other = install(tmp_path / "two", "python")
    environment = {"PATH": str(on_path.parent), "TRITON_SERVER_VERSION": "2.51.0"}
    found = find(environment=environment)
    assert (found.executable, found.kind, found.version) == (on_path, "path", "2.60.0")
    assert find(other, environment=environment).executable == other
    assert find(tmp_path / "two", environment=environment).executable == other
    assert find(other, environment=environment).version == "2.51.0", "the environment speaks where no file does"


def test_nvidias_image_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one on PATH, NVIDIA's installation directory is used."""
    program = install(tmp_path / "opt", "python", version="2.63.0")
    monkeypatch.setattr(finding, "NVIDIA_DIRECTORY", tmp_path / "opt")
    found = find(environment={"PATH": ""})
    assert (found.kind, found.executable) == ("nvidia", program)


def test_a_wrong_explicit_choice_is_refused(tmp_path: Path) -> None:
    """Nothing else is tried in its place."""
    with pytest.raises(NotFoundError, match="neither a tritonserver program nor a directory"):
        find(tmp_path)


def test_the_composed_directory_joins_native_and_own_backends(tmp_path: Path) -> None:
    """Native backends stay native; ours stand beside them; onnxruntime is ours only where there is no other."""
    home = tmp_path / "home"
    program = install(home, "python", "onnxruntime", "tensorrt")
    installation = Installation("path", program, home / "backends")
    with backend_directory(installation, "3.11") as directory:
        assert (directory / "onnxruntime").resolve() == home / "backends" / "onnxruntime"
        assert (directory / "tensorrt" / "libtriton_tensorrt.so").read_bytes() == b"library"
        assert (directory / "python").resolve() == home / "backends" / "python"
        assert (directory / "router" / "model.py").is_file()
        names = {path.name for path in directory.iterdir()}
    assert not directory.exists()
    assert set(available(installation)) == names
    assert available(installation)["onnxruntime"] is False

    bare = Installation("path", install(tmp_path / "bare", "python"), tmp_path / "bare" / "backends")
    target = tmp_path / "composed"
    target.mkdir()
    compose(target, bare, "3.11")
    assert (target / "onnxruntime" / "model.py").read_text() == (target / "onnx" / "model.py").read_text()
    assert available(bare)["onnxruntime"] is True


def test_the_stub_of_this_python_is_chosen(tmp_path: Path) -> None:
    """Its backend directory is a copy, because the stub has to lie in it; a Python without a stub is refused."""
    program = install(tmp_path / "home", "python")
    for version in ("3.9", "3.11"):
        (tmp_path / "stubs" / version).mkdir(parents=True)
        (tmp_path / "stubs" / version / STUB).write_text(version)
        (tmp_path / "stubs" / version / STUB).chmod(0o755)
    installation = Installation("bundled", program, tmp_path / "home" / "backends", stubs=tmp_path / "stubs")
    with backend_directory(installation, "3.11") as directory:
        assert (directory / "python" / STUB).read_text() == "3.11"
        assert not (directory / "python").is_symlink()
    with (
        pytest.raises(UnsupportedError, match=r"no stub for Python 3\.12; it has 3\.9, 3\.11"),
        backend_directory(installation, "3.12"),
    ):
        pass


def test_a_server_without_the_python_backend_is_refused(tmp_path: Path) -> None:
    """The router could not run there at all."""
    program = install(tmp_path, "onnxruntime")
    with (
        pytest.raises(NotFoundError, match="no Python backend"),
        backend_directory(Installation("path", program, tmp_path / "backends"), "3.11"),
    ):
        pass
