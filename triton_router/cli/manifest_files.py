"""What ``triton-router manifests`` does with files: all are checked before the first is written."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from triton_router.config.editing import replace_text
from triton_router.config.loading import read_text
from triton_router.errors import InvalidInputError, NotFoundError, UnavailableError
from triton_router.files import TEMPORARY_SUFFIX
from triton_router.kubernetes.nginx_conf import set_conf_weight
from triton_router.kubernetes.weights import set_weight

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_YAML = {".yaml", ".yml"}
_CONF = ".conf"


def write_new(directory: Path, texts: dict[str, str], *, force: bool) -> list[str]:
    """Write files and return what was done with each: ``written``, ``replaced`` or ``unchanged``.

    Raises:
        InvalidInputError: One is there, says something else, and ``force`` does not say that it may go.
        UnavailableError: The directory or a file cannot be written.
        UnsupportedError: A file cannot be replaced.
    """
    places = {directory / name: text for name, text in texts.items()}
    there = {path: read_text(path) for path in places if path.exists()}
    other = [path for path, text in there.items() if text != places[path]]
    if other and not force:
        raise InvalidInputError(
            f"{other[0]} is there and says something else",
            hint="change its weight with --set-weight, give another --out, or replace it with --force",
        )
    for path, text in places.items():
        if path in other:
            replace_text(path, there[path], text)
        elif path not in there:
            _create(path, text)
    return ["written" if path not in there else "replaced" if path in other else "unchanged" for path in places]


def change_weights(paths: Sequence[Path], weight: int) -> dict[Path, list[tuple[str, str, int]]]:
    """Set the canary's share in files, or in the files of directories.

    Returns:
        By file, for each weight: the kind and name of what holds it, and the percent it was before.

    Raises:
        InvalidInputError: There is no weight to set, or one that cannot be set; nothing has been written.
        NotFoundError: A path does not exist.
        UnavailableError: A file is being changed by somebody else; those before it have been written.
        UnsupportedError: A file cannot be replaced; those before it have been.
    """
    texts: dict[Path, tuple[str, str]] = {}
    found: dict[Path, list[tuple[str, str, int]]] = {}
    for place, path in _files(paths).items():
        before = read_text(place)
        if path.suffix == _CONF:
            after, share = set_conf_weight(before, weight, source=str(path))
            changes = [("nginx", "split_clients", share)]
        else:
            after, listed = set_weight(before, weight, source=str(path))
            changes = [(change.kind, change.name, change.before) for change in listed]
        if changes:
            texts[place], found[path] = (before, after), changes
    if not found:
        raise InvalidInputError(
            "nothing there has a weight for a canary: "
            + (", ".join(str(path) for path in paths) or "no file is given"),
            hint="name the traffic.yaml or nginx.conf that 'manifests canary --out DIR' has written, or its directory",
        )
    for place, (before, after) in texts.items():
        if after != before:
            replace_text(place, before, after)
    return found


def _files(paths: Iterable[Path]) -> dict[Path, Path]:
    """Return, by where each file really lies, the path that the user knows it by.

    Through two paths the same file would be changed twice, and through a link the link would be replaced.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(item for item in path.iterdir() if item.suffix in {*_YAML, _CONF} and item.is_file())
        elif path.exists() and path.suffix not in {*_YAML, _CONF}:
            raise InvalidInputError(f"{path} is neither .yaml nor .conf", hint="name a manifest or an nginx.conf")
        elif path.exists():
            found.append(path)
        else:
            raise NotFoundError(f"{path} does not exist", hint="check the path")
    return {path.resolve(): path for path in reversed(found)}


def _create(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UnavailableError(
            f"{path} cannot be written: {error.strerror}", hint="check its permissions and the disk"
        ) from error
