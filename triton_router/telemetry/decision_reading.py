"""Reads decision logs: strictly, with the number of the line that is wrong."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from pydantic import ValidationError

from triton_router.config.printable import shortened
from triton_router.errors import InvalidInputError, NotFoundError
from triton_router.telemetry.decision_format import SCHEMA, Record, Start, TargetEntry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

MOST_RECORDS = 200_000
"""Decisions that are read unless told otherwise: they are held in memory, at about 2 KB each."""
_LONGEST_LINE = 1 << 20
_RECORD_BYTES = 4096
"""Of text for each decision that may be read, on average: some seventy targets were considered then."""
_LONGEST_NAME = 100


@dataclass(slots=True)
class DecisionTrace:
    """What a log holds.

    Attributes:
        model: Name of the routed model.
        policy: Name of the policy that was in force.
        targets: What there was to choose from, at one time or another; known by name alone where the log has lost its
            first line.
        records: Decisions, in the order in which they were made.
        notes: What is odd about the log and yet no error.
        at_first: Names of the targets that its first line describes; empty where it has none.
    """

    model: str
    policy: str
    targets: tuple[TargetEntry, ...]
    records: list[Record]
    notes: list[str] = field(default_factory=list[str])
    at_first: frozenset[str] = frozenset()


def read_decision_log(path: Path, *, limit: int = MOST_RECORDS) -> DecisionTrace:
    """Read a log.

    Args:
        path: The file.
        limit: Most decisions to read, from its beginning.

    Raises:
        NotFoundError: There is no such file.
        InvalidInputError: A line is not what a decision log holds, or the log is empty or of several models.
    """
    notes: list[str] = []
    starts: list[Start] = []
    records: list[Record] = []
    size = 0
    for number, line in _lines(path, notes):
        size += len(line)
        if size > limit * _RECORD_BYTES:
            notes.append(f"only the first {size - len(line)} bytes were read; --limit reads more")
            break
        entry = _entry(path, number, line)
        if isinstance(entry, Start):
            starts.append(entry)
            continue
        if records and entry.model != records[0].model:
            raise InvalidInputError(
                f"{path}:{number}: is about model {_named(entry)}, the lines before it about {_named(records[0])}",
                hint="keep one log for each routed model",
            )
        if len(records) == limit:
            notes.append(f"only the first {limit} decisions were read; --limit reads more")
            break
        records.append(entry)
    if not records:
        raise InvalidInputError(f"{path} holds no decisions", hint="record some: docs/decision-log.md says how")
    if not starts:
        notes.append("the log has no first line of kind 'start': backends, prices and power are unknown")
    records.sort(key=lambda record: record.decided_at)
    return DecisionTrace(
        records[0].model,
        starts[-1].policy if starts else records[0].policy,
        _targets(starts, records),
        records,
        notes,
        frozenset(target.name for target in starts[0].targets) if starts else frozenset(),
    )


def _lines(path: Path, notes: list[str]) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that have anything on them, with their numbers; leave out a last one that was cut off."""
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(iter(lambda: stream.readline(_LONGEST_LINE + 1), b""), 1):
                if len(line) > _LONGEST_LINE:
                    raise InvalidInputError(
                        f"{path}:{number}: is longer than {_LONGEST_LINE} bytes", hint="is this a decision log?"
                    )
                if not line.endswith(b"\n") and not _is_json(line):
                    notes.append(f"line {number}, the last one, is cut off and was left out")
                elif line.strip():
                    yield number, line
    except FileNotFoundError as error:
        raise NotFoundError(f"{path} does not exist", hint="check the path") from error
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror}", hint="check the path") from error


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _entry(path: Path, number: int, line: bytes) -> Start | Record:
    where = f"{path}:{number}"
    hint = "docs/decision-log.md describes every key"
    try:
        loaded: object = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{where}: is not JSON: {error}", hint=hint) from error
    if not isinstance(loaded, dict):
        raise InvalidInputError(f"{where}: is no JSON object", hint=hint)
    data = cast("dict[str, Any]", loaded)
    schema = data.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise InvalidInputError(f"{where}: schema: is missing or no number", hint=hint)
    if schema > SCHEMA:
        raise InvalidInputError(
            f"{where}: was written with schema {shortened(str(schema), _LONGEST_NAME)}; this version reads up to "
            f"{SCHEMA}",
            hint="update triton-router",
        )
    kind = {"start": Start, "decision": Record}.get(str(data.get("kind")))
    if kind is None:
        raise InvalidInputError(f"{where}: kind: is neither 'start' nor 'decision'", hint=hint)
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key = shortened(".".join(str(part) for part in first["loc"]), _LONGEST_NAME)
        raise InvalidInputError(f"{where}: {key}: {first['msg']}", hint=hint) from error


def _named(record: Record) -> str:
    return repr(shortened(record.model, _LONGEST_NAME))


def _targets(starts: Sequence[Start], records: list[Record]) -> tuple[TargetEntry, ...]:
    """Return every target that is named anywhere, as last described, in a stable order."""
    known = {target.name: target for start in starts for target in start.targets}
    for record in records:
        for name in record.named:
            if name not in known:
                known[name] = TargetEntry(name=name)
    return tuple(known.values())
