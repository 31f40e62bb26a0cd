"""A snapshot: what one routed model has learned, as one file of JSON. Reading one trusts nothing in it.

The file is replaced in one step (written beside its place, flushed to the disk, renamed), so that whoever reads it,
and whenever its writer is killed, finds either the old snapshot or the new one.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from triton_router.config.printable import shortened
from triton_router.errors import InvalidInputError, NotFoundError
from triton_router.files import open_regular, replace_private

if TYPE_CHECKING:
    from pathlib import Path

    from triton_router.config.router_config import TargetConfig

SCHEMA = 1
"""Of the file as a whole, and of what a profile writes of itself."""
MAX_BYTES = 8 << 20
"""256 targets, the most that a routed model has, at four times what a profile takes."""
MAX_ORIGINS = 256
"""Learners that a snapshot names; of the longest gone nothing is left in what fades."""
_LONGEST_PROBLEM = 300

_Pair = Annotated[tuple[int, float], Field(strict=False)]
_ShortText = Annotated[str, Field(max_length=512)]


class StatePart(BaseModel):
    """A part of a file in the state directory."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


_State = TypeVar("_State", bound=StatePart)


class TargetIdentity(StatePart):
    """Which model a profile was learned of. What was learned of another one is not worth having.

    Attributes:
        measured: ``(work, latency_ms)`` from its build: a model that was built anew has other figures.
    """

    model: _ShortText
    version: int | None
    backend: _ShortText
    variant: _ShortText
    measured: Annotated[tuple[_Pair, ...], Field(max_length=64, strict=False)]

    def may_be(self, other: TargetIdentity) -> bool:
        """Whether what was learned of one is worth keeping for the other: no version is whichever is served.

        To write down the version that is served anyway, as a rollout begins by, forgets nothing.
        """
        if self.version is None or other.version is None:
            other = other.model_copy(update={"version": self.version})
        return self == other


class TargetState(StatePart):
    """One target's profile, as `TargetProfile.state` gave it."""

    identity: TargetIdentity
    profile: dict[str, Any]


class Snapshot(StatePart):
    """What one instance of a routed model has learned.

    Attributes:
        model: Name of the routed model.
        instance: Name of the machine, or whatever keeps instances apart.
        machine: The kind of machine that it was learned on.
        origins: The learners whose evidence is in it: two snapshots that share one must not be added up.
        written_at: Seconds since 1970.
        targets: By name.
    """

    format: Literal["triton-router snapshot"] = "triton-router snapshot"
    schema_version: Annotated[int, Field(ge=1)] = SCHEMA
    model: _ShortText
    instance: _ShortText
    machine: _ShortText
    origins: Annotated[tuple[_ShortText, ...], Field(min_length=1, max_length=MAX_ORIGINS, strict=False)]
    written_at: Annotated[float, Field(ge=0)]
    targets: Annotated[dict[_ShortText, TargetState], Field(max_length=256)]


def identity_of(settings: TargetConfig) -> TargetIdentity:
    """Return which model a target's profile is of."""
    return TargetIdentity(
        model=settings.model,
        version=settings.version,
        backend=settings.backend.value,
        variant=settings.variant,
        measured=tuple((point.work, point.latency_ms) for point in settings.measured_latency),
    )


def read_snapshot(path: Path) -> Snapshot:
    """Read and check a snapshot; the profiles in it are still to be checked by `TargetProfile.from_state`.

    Raises:
        NotFoundError: There is no such file.
        InvalidInputError: It is no snapshot, or one of a newer version, or cannot be read.
    """
    try:
        return read_state(path, Snapshot, MAX_BYTES)
    except FileNotFoundError:
        raise NotFoundError(f"there is no snapshot {path}", hint="check the path") from None
    except OSError as error:
        raise InvalidInputError(
            f"the snapshot {path} cannot be read: {error.strerror}", hint="check its permissions"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(
            f"{path} is not a snapshot that can be used: {in_a_line(error)}",
            hint="remove it; the router learns afresh, from the latencies measured at build time",
        ) from error


def write_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Put a snapshot in the place of the one at ``path``.

    Raises:
        OSError: It cannot be written. The old one is still whole.
        ValueError: It is larger than what would be read again.
    """
    data = json.dumps(snapshot.model_dump(mode="json"), allow_nan=False, separators=(",", ":")).encode()
    if len(data) > MAX_BYTES:
        raise ValueError(f"it would have {len(data)} bytes, {MAX_BYTES} at most")
    replace_private(path, data)


def read_state(path: Path, kind: type[_State], max_bytes: int) -> _State:
    """Read a file of the state directory.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not of this kind, or of a newer version, or has more than ``max_bytes``.
        RecursionError: It is nested too deeply.
    """
    # Neither a link to elsewhere nor a pipe, which would keep the reader waiting, is one.
    with open_regular(path, follow_links=False) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ValueError(f"it has more than {max_bytes} bytes")
    document: object = json.loads(data.decode("utf-8"), parse_constant=_not_finite, parse_float=_finite)
    found = document.get("schema_version") if isinstance(document, dict) else None
    if isinstance(found, int) and found > SCHEMA:
        raise ValueError(
            f"it has schema {shortened(str(found), 20)}, of a newer triton-router; this one reads {SCHEMA}"
        )
    return kind.model_validate(document)


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _not_finite(text)


def _not_finite(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


def in_a_line(error: BaseException) -> str:
    """Return what is wrong with a file, for a message."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        return shortened(f"{where}: {first['msg']}" if where else first["msg"], _LONGEST_PROBLEM)
    return shortened(str(error) or type(error).__name__, _LONGEST_PROBLEM)
