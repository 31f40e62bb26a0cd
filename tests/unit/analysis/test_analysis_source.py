"""What may be added is found and hashed without being interpreted; everything else is refused with advice."""

from __future__ import annotations

import hashlib
import json
import sys
from typing import TYPE_CHECKING

import pytest

from triton_router.analysis.source import ModelSource, resolve_source
from triton_router.errors import ModelFileError, NotFoundError, TritonRouterError

if TYPE_CHECKING:
    from pathlib import Path

CONTENT = b"any bytes: nothing interprets them here"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_onnx_file(here: Path) -> None:
    """Path, hash and size are taken; the record travels as JSON."""
    (here / "model.ONNX").write_bytes(CONTENT)
    source = resolve_source("model.ONNX")
    assert source == ModelSource("onnx", str(here / "model.ONNX"), here / "model.ONNX", DIGEST, len(CONTENT))
    assert ModelSource.from_json(json.loads(json.dumps(source.to_json()))) == source


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("model.pt", "torch.export.save"),
        ("model.pth", "torch.onnx.export"),
        ("model.safetensors", "package.module:factory"),
        ("model.tflite", "tf2onnx"),
        ("model.h5", "tf2onnx"),
        ("model.plan", "TensorRT"),
        ("model.py", "package.module:factory"),
        ("model", "MODEL.onnx"),
        ("model.xyz", "MODEL.onnx"),
    ],
)
def test_other_kinds_of_file(here: Path, name: str, hint: str) -> None:
    """Each says how to make something of it that can be added."""
    (here / name).write_bytes(CONTENT)
    with pytest.raises(ModelFileError) as caught:
        resolve_source(name)
    assert hint in caught.value.hint


def test_things_that_are_no_model_files(here: Path) -> None:
    """A URL, a directory, an empty file, a device, a malformed factory, a file that is too large."""
    (here / "folder").mkdir()
    (here / "folder" / "inner.onnx").write_bytes(CONTENT)
    (here / "empty.onnx").touch()
    (here / "big.onnx").write_bytes(CONTENT)
    cases = {
        "https://example.org/model.onnx": "curl",
        "folder": "inner.onnx",
        "empty.onnx": "again",
        "/dev/null": "MODEL.onnx",
        "models/encoder.py:build": "dots",
        "module:": "dots",
    }
    for text, hint in cases.items():
        with pytest.raises(ModelFileError) as caught:
            resolve_source(text)
        assert hint in caught.value.hint, text
    with pytest.raises(ModelFileError, match="more than the 10"):
        resolve_source("big.onnx", max_bytes={"onnx": 10, "pt2": 10})


def test_a_missing_file_suggests_its_neighbour(here: Path) -> None:
    """A misspelled name is recognised."""
    (here / "encoder.onnx").write_bytes(CONTENT)
    with pytest.raises(NotFoundError) as caught:
        resolve_source("encodr.onnx")
    assert "encoder.onnx" in caught.value.hint


def test_a_given_hash_is_compared(here: Path) -> None:
    """A wrong hash refuses any kind of source; what is no hash is said to be none."""
    (here / "model.onnx").write_bytes(CONTENT)
    assert resolve_source("model.onnx", sha256=DIGEST.upper()).sha256 == DIGEST
    with pytest.raises(ModelFileError, match="not 000"):
        resolve_source("model.onnx", sha256="0" * 64)
    with pytest.raises(ModelFileError, match="not a SHA-256"):
        resolve_source("model.onnx", sha256="abc")


def test_a_pt2_needs_a_hash(here: Path) -> None:
    """Without one it is refused, and the hint is the option to add, which then works."""
    (here / "model.pt2").write_bytes(CONTENT)
    with pytest.raises(ModelFileError, match="runs code when it is loaded") as caught:
        resolve_source("model.pt2")
    assert caught.value.hint.endswith(f"--sha256 {DIGEST}")
    assert resolve_source("model.pt2", sha256=DIGEST).kind == "pt2"


MANIFEST = {"schema": 1, "versions": {"1": {"files": {"model.pt2": {"sha256": DIGEST}}}}}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("model.pt2.sha256", f"{DIGEST}  model.pt2\n"),
        ("model.pt2.sha256", f"{DIGEST} *model.pt2\n"),
        ("model.pt2.sha256", f"{'1' * 64}  other.pt2\n{DIGEST}  model.pt2\n"),
        ("model.pt2.sha256", DIGEST),
        ("manifest.json", json.dumps({"files": {"model.pt2": {"sha256": DIGEST}}})),
        ("manifest.json", json.dumps(MANIFEST)),
        ("../manifest.json", json.dumps(MANIFEST)),
    ],
)
def test_files_that_vouch_for_a_pt2(here: Path, name: str, text: str) -> None:
    """sha256sum's output or a manifest beside it, or above its version directory, is enough if it fits."""
    version = here / "1"
    version.mkdir()
    (version / "model.pt2").write_bytes(CONTENT)
    (version / name).write_text(text)
    assert resolve_source("1/model.pt2").sha256 == DIGEST
    (version / name).write_text(text.replace(DIGEST, "0" * 64))
    with pytest.raises(ModelFileError, match="not 000"):
        resolve_source("1/model.pt2")


def test_a_damaged_or_silent_manifest(here: Path) -> None:
    """Damage is reported; a manifest that does not list the file does not vouch for it."""
    (here / "model.pt2").write_bytes(CONTENT)
    (here / "manifest.json").write_text('{"files": []}')
    with pytest.raises(ModelFileError, match="nothing vouches"):
        resolve_source("model.pt2")
    (here / "manifest.json").write_text("{")
    with pytest.raises(ModelFileError, match="not valid JSON"):
        resolve_source("model.pt2")


def test_a_factory_is_found_without_being_imported(here: Path) -> None:
    """The module's file is hashed; neither it nor its packages run."""
    package = here / "some_models"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "encoder.py").write_text("raise SystemExit('imported')")
    source = resolve_source("some_models.encoder:build")
    assert (source.kind, source.path) == ("factory", package / "encoder.py")
    assert source.sha256 == hashlib.sha256((package / "encoder.py").read_bytes()).hexdigest()
    assert "some_models" not in sys.modules


def test_a_factory_in_nested_packages_without_init_files(here: Path) -> None:
    """Namespace packages in namespace packages are searched too, with or without the module in them."""
    (here / "outer" / "inner").mkdir(parents=True)
    (here / "outer" / "inner" / "encoder.py").write_text("raise SystemExit('imported')")
    assert resolve_source("outer.inner.encoder:build").path == here / "outer" / "inner" / "encoder.py"
    for text in ("outer.inner.no_such:build", "outer.no_such.encoder:build", "outer.inner:build"):
        with pytest.raises(NotFoundError, match="no Python module"):
            resolve_source(text)


def test_a_real_package_is_preferred_as_an_import_prefers_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory without __init__.py gives way to a package of that name further down the path."""
    (here / "twins").mkdir()
    (here / "twins" / "model.py").touch()
    installed = here / "site" / "twins"
    installed.mkdir(parents=True)
    (installed / "__init__.py").touch()
    (installed / "model.py").touch()
    monkeypatch.syspath_prepend(here / "site")
    assert resolve_source("twins.model:build").path == installed / "model.py"


@pytest.mark.parametrize("text", ["no_such_module:build", "json.no_such:build", "json.decoder.deeper:build"])
def test_a_missing_module(here: Path, text: str) -> None:
    """A module that does not exist is named, with where it was searched."""
    with pytest.raises(NotFoundError, match="no Python module") as caught:
        resolve_source(text)
    assert isinstance(caught.value, TritonRouterError)
    assert "PYTHONPATH" in caught.value.hint
