"""``manifest.json``: what was built, from what, with what, and how it was checked.

One lies in every directory that this project makes; a model directory without one is somebody else's and is
never touched. The torch backend loads a ``.pt2`` only if its SHA-256 stands in one.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, cast

from triton_router.config.printable import shortened
from triton_router.errors import ConfigError
from triton_router.files import open_regular

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MANIFEST_FILE = "manifest.json"
SCHEMA = 1
_MAX_BYTES = 8 << 20

Manifest = dict[str, Any]


def read(directory: Path) -> Manifest | None:
    """Return the manifest in ``directory``; None if there is no such file.

    Raises:
        ConfigError: It is not one of ours, or of a newer schema.
    """
    path = directory / MANIFEST_FILE
    try:
        with open_regular(path) as file:
            text = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", hint="check its permissions") from error
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path} is not valid JSON: {error}", hint=f"restore it, or remove {directory} and add the model again"
        ) from error
    found = cast("Manifest", value) if isinstance(value, dict) else {}
    if found.get("schema") != SCHEMA or not _are_versions(found.get("versions")):
        schema = shortened(str(found.get("schema")), 20)
        raise ConfigError(
            f"{path} has schema {schema}, or no versions; this version of triton-router reads {SCHEMA}",
            hint="use the triton-router that wrote it, or remove the model's directories and add it again",
        )
    return found


def _are_versions(value: object) -> bool:
    entries = cast("dict[str, object]", value).items() if isinstance(value, dict) else [("", None)]
    return all(number.isdecimal() and isinstance(entry, dict) for number, entry in entries)


def render(manifest: Manifest) -> str:
    """Return the text of a manifest."""
    return json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"


def with_version(manifest: Manifest | None, head: Manifest, version: int, entry: Manifest) -> Manifest:
    """Return a manifest in which ``version`` has the entry.

    Args:
        manifest: The present one, if any.
        head: Its top-level keys, such as ``target``.
        version: Number of the version directory.
        entry: What is recorded of it.
    """
    versions: dict[str, Any] = dict(manifest["versions"]) if manifest else {}
    versions[str(version)] = entry
    return {"schema": SCHEMA, **head, "versions": {key: versions[key] for key in sorted(versions, key=int)}}


def hashed_files(directory: Path, names: Sequence[str]) -> Manifest:
    """Return SHA-256 and size of the named files; a directory is listed file by file."""
    found: Manifest = {}
    for name in names:
        top = directory / name
        paths = sorted(path for path in top.rglob("*") if path.is_file()) if top.is_dir() else [top]
        for path in paths:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found[path.relative_to(directory).as_posix()] = {"sha256": digest, "bytes": path.stat().st_size}
    return found
