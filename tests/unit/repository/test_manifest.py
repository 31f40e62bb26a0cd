"""Manifests: what they say of files, and which are refused."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from triton_router.errors import ConfigError
from triton_router.repository import manifest

if TYPE_CHECKING:
    from pathlib import Path


def test_a_directory_without_one_is_not_ours(tmp_path: Path) -> None:
    """No manifest reads as None, which is no error."""
    assert manifest.read(tmp_path) is None


def test_versions_are_added_and_read_back_in_order(tmp_path: Path) -> None:
    """A further version keeps the earlier ones as they are; 10 comes after 9."""
    known = None
    for version in (9, 10, 2):
        known = manifest.with_version(known, {"model": "m"}, version, {"variant": f"v{version}"})
    assert known is not None
    (tmp_path / manifest.MANIFEST_FILE).write_text(manifest.render(known))
    read = manifest.read(tmp_path)
    assert read == known
    assert list(read["versions"]) == ["2", "9", "10"]
    assert read["versions"]["9"] == {"variant": "v9"}


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        json.dumps({"schema": 99, "versions": {}}),
        json.dumps({"schema": 1}),
        json.dumps({"schema": 1, "versions": {"../1": {}}}),
        json.dumps({"schema": 1, "versions": {"1": []}}),
        '{"a":' * 100_000,
    ],
)
def test_what_is_not_a_manifest_is_refused(tmp_path: Path, text: str) -> None:
    """Damaged files and newer schemas are never taken for an empty manifest."""
    (tmp_path / manifest.MANIFEST_FILE).write_text(text)
    with pytest.raises(ConfigError, match=r"manifest\.json"):
        manifest.read(tmp_path)


def test_files_and_directories_are_hashed(tmp_path: Path) -> None:
    """A directory such as a Core ML package is listed file by file."""
    (tmp_path / "model.onnx").write_bytes(b"abc")
    (tmp_path / "model.mlpackage" / "Data").mkdir(parents=True)
    (tmp_path / "model.mlpackage" / "Data" / "weight.bin").write_bytes(b"w")
    assert manifest.hashed_files(tmp_path, ["model.onnx", "model.mlpackage"]) == {
        "model.onnx": {"sha256": hashlib.sha256(b"abc").hexdigest(), "bytes": 3},
        "model.mlpackage/Data/weight.bin": {"sha256": hashlib.sha256(b"w").hexdigest(), "bytes": 1},
    }
