"""Which version an addition is: one that is there already, or the next one, for the same callers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from triton_router.config.loading import load_yaml
from triton_router.config.router_config import ROUTER_FILE
from triton_router.errors import ConfigError, InvalidInputError, NotFoundError
from triton_router.repository import manifest
from triton_router.repository.plan import BY_SUFFIX

if TYPE_CHECKING:
    from pathlib import Path

    from triton_router.repository.build.job import IoSpec
    from triton_router.repository.manifest import Manifest

_LARGEST = (1 << 63) - 1
"""Triton reads version directories as 64-bit integers."""


def same_version(known: Manifest | None, fingerprint: str, options: Manifest) -> int | None:
    """Return the version that was made from this source with these options; None if there is none.

    Args:
        known: The routed model's manifest, if there is one.
        fingerprint: Digest of the source.
        options: What else decides what is built.
    """
    for version, entry in _versions(known).items():
        if entry.get("fingerprint") == fingerprint and entry.get("options") == options:
            return int(version)
    return None


def next_version(known: Manifest | None, wanted: int | None) -> int:
    """Return the number of a new version.

    Args:
        known: The routed model's manifest, if there is one.
        wanted: What the user asked for; None for the next free one.

    Raises:
        InvalidInputError: The wanted number is taken or not a version.
    """
    taken = [int(version) for version in _versions(known)]
    following = max(taken, default=0) + 1
    if wanted is None:
        return following
    if not 1 <= wanted <= _LARGEST:
        raise InvalidInputError(
            f"--version {wanted} is not between 1 and {_LARGEST}", hint="leave --version out for the next one"
        )
    if wanted in taken:
        raise InvalidInputError(
            f"version {wanted} exists and was made from another source or with other options",
            hint=f"leave --version out for version {following}",
        )
    return wanted


def require_same_io(known: Manifest | None, io: IoSpec) -> None:
    """Refuse a version whose callers would have to change.

    Raises:
        InvalidInputError: Names, types or shapes differ from a version that is there.
    """
    for version, entry in _versions(known).items():
        for role, specs in (("inputs", io.inputs), ("outputs", io.outputs)):
            new = {spec.name: [spec.datatype, *spec.shape] for spec in specs}
            old = {item["name"]: [item["datatype"], *item["shape"]] for item in entry["io"][role]}
            if new != old:
                raise InvalidInputError(
                    f"its {role} are {_shown(new)}; version {version} has {_shown(old)}",
                    hint="versions of one model take the same requests; add it under another --name",
                )


def require_intact(repository: Path, name: str, version: int) -> None:
    """Refuse to call a version up to date whose files are not those that were checked.

    Raises:
        ConfigError: A target's file is missing or has changed.
    """
    for suffix in BY_SUFFIX:
        directory = repository / f"{name}-{suffix}"
        files = _versions(manifest.read(directory)).get(str(version), {}).get("files", {})
        for file, recorded in files.items():
            path = directory / str(version) / file
            if not path.is_file() or manifest.hashed_files(path.parent, [path.name])[path.name] != recorded:
                raise ConfigError(
                    f"{path} is missing or is not the file that was checked",
                    hint=f"restore it, or remove {repository / name} and its targets and add it again",
                )


def require_no_rollout(directory: Path) -> None:
    """Refuse to write a routed model's targets anew while two versions of them share its requests.

    Raises:
        InvalidInputError: Its ``router.yaml`` has a rollout.
    """
    path = directory / ROUTER_FILE
    try:
        settings: object = load_yaml(path).data
    except NotFoundError:
        return
    if isinstance(settings, dict) and cast("dict[str, object]", settings).get("rollout"):
        raise InvalidInputError(
            f"{path} has a rollout, whose targets an addition would replace",
            hint=f"end it first: triton-router canary finish {directory.name} --repository {directory.parent}",
        )


def _versions(known: Manifest | None) -> dict[str, Any]:
    return known["versions"] if known else {}


def _shown(tensors: dict[str, list[Any]]) -> str:
    return ", ".join(f"{name} {kind}{shape}" for name, (kind, *shape) in tensors.items())
