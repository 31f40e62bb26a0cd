"""Read a YAML (or JSON) document strictly: bounded, safe, and with the line of every value for error messages."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, get_args

import yaml
from pydantic import BaseModel

from triton_router.config.printable import printable
from triton_router.errors import ConfigError, NotFoundError

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

MAX_DOCUMENT_BYTES = 1 << 20
MAX_DEPTH = 32

KeyPath = tuple[str | int, ...]
"""Where a value stands: mapping keys and sequence indexes from the root."""


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed document.

    Attributes:
        source: Where it came from, for messages.
        data: Plain Python values.
        lines: 1-based line of each value, by its path.
    """

    source: str
    data: Any
    lines: dict[KeyPath, int] = field(default_factory=dict[KeyPath, int])

    def line_of(self, path: KeyPath) -> int:
        """Return the line of the value at ``path``, or of its nearest known ancestor."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def error(self, path: KeyPath, problem: str, *, hint: str) -> ConfigError:
        """Return an error that names the file, the line and the key."""
        where = printable(".".join(str(part) for part in path))
        return ConfigError(f"{self.source}:{self.line_of(path)}: {f'{where}: ' if where else ''}{problem}", hint=hint)

    def validation_error(
        self, error: ValidationError, *, hint: str, settings: type[BaseModel] | None = None
    ) -> ConfigError:
        """Turn pydantic's complaints into one sentence with a line about the first; further ones are counted.

        Unknown keys come first: a mistyped key is the cause, and the key that is missing for it the consequence.

        Args:
            error: What pydantic found.
            hint: What to do, unless the complaint itself tells.
            settings: What was validated; all of its keys are then suggested for unknown ones, not just missing keys.
        """
        details = error.errors(include_url=False, include_context=False)
        details.sort(key=lambda detail: detail["type"] != "extra_forbidden")
        meant = {detail["loc"]: _meant(detail, details, settings) for detail in details}
        first = details[0]
        suggestion = meant[first["loc"]]
        problem = {
            "extra_forbidden": "unknown key" + (f" (did you mean {suggestion!r}?)" if suggestion else ""),
            "missing": "is required and missing",
        }.get(first["type"], first["msg"].removeprefix("Value error, "))
        misread, advice = _misread(first)
        typos = {(*path[:-1], key) for path, key in meant.items() if key}
        further = sum(not (other["loc"] in typos or _follows(other, details)) for other in details[1:])
        more = f" (and {further} more)" if further else ""
        return self.error(first["loc"], problem + misread + more, hint=advice or hint)


def _meant(detail: ErrorDetails, details: list[ErrorDetails], settings: type[BaseModel] | None) -> str:
    """Return the key that an unknown one probably stands for; empty if none is close, or the key is known."""
    if detail["type"] != "extra_forbidden":
        return ""
    *parent, key = detail["loc"]
    missing = [
        str(other["loc"][-1]) for other in details if other["type"] == "missing" and [*other["loc"][:-1]] == parent
    ]
    known = _keys_at(settings, parent) if settings else []
    # What is missing wins over what is only as close.
    return next(iter(get_close_matches(str(key), missing, 1) or get_close_matches(str(key), known, 1)), "")


def _keys_at(settings: type[BaseModel], path: list[str | int]) -> list[str]:
    """Return the keys that a mapping at ``path`` may have; none where any may stand."""
    found: type[BaseModel] | None = settings
    for part in path:
        if isinstance(part, str):
            found = _settings_in(found.model_fields[part].annotation) if found and part in found.model_fields else None
    return list(found.model_fields) if found else []


def _settings_in(annotation: object) -> type[BaseModel] | None:
    """Return the settings that a field holds: itself, or one, or several of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((inner for part in get_args(annotation) if (inner := _settings_in(part))), None)


def _misread(detail: ErrorDetails) -> tuple[str, str]:
    """Return what YAML made of the value, where that is probably not what its writer meant, and what to write."""
    value: object = detail["input"]
    if detail["type"] == "string_type" and not isinstance(value, dict | list):
        return f"; YAML reads this as {_in_yaml(value)}", 'put the text in quotes, such as "on"'
    if detail["type"] in {"float_type", "int_type", "bool_type"} and isinstance(value, str):
        return "; YAML reads this as text", "write it without quotes; an exponent needs a point and a sign: 1.0e-2"
    return "", ""


def _in_yaml(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, int | float):
        return "a number"
    return "a date" if isinstance(value, dt.date) else f"a {type(value).__name__}"


def _follows(detail: ErrorDetails, details: list[ErrorDetails]) -> bool:
    """Return whether a complaint only follows from another: a refused item makes its list too short as well."""
    path = detail["loc"]
    return detail["type"] == "too_short" and any(
        len(other["loc"]) > len(path) and other["loc"][: len(path)] == path for other in details
    )


def load_yaml(path: Path, *, max_bytes: int = MAX_DOCUMENT_BYTES) -> Document:
    """Read and parse the file at ``path``.

    Raises:
        NotFoundError: There is no such file.
        ConfigError: It is too large, not UTF-8, not YAML, nested too deeply, or uses aliases, merges, tags or
            duplicate keys.
    """
    return parse_yaml(read_text(path, max_bytes=max_bytes), source=str(path))


def read_text(path: Path, *, max_bytes: int = MAX_DOCUMENT_BYTES) -> str:
    """Return the text of the file at ``path``.

    Raises:
        NotFoundError: There is no such file.
        ConfigError: It is too large, cannot be read, or is not UTF-8.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(max_bytes + 1)
    except FileNotFoundError as error:
        raise NotFoundError(f"{path} does not exist", hint="check the path") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", hint="check its permissions") from error
    if len(raw) > max_bytes:
        raise ConfigError(
            f"{path} has more than {max_bytes} bytes",
            hint="such a file is a few kilobytes; is it the right one?",
        )
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error}", hint="save it as UTF-8") from error


def parse_yaml(text: str, *, source: str) -> Document:
    """Parse the text of a document. Errors as `load_yaml`."""
    try:
        return _parse(text, source)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{source}:{line}: {error.problem}", hint="correct the YAML at that line") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{source}: {error}", hint="correct the YAML") from error


def _parse(text: str, source: str) -> Document:
    loader = _StrictLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return Document(source, None)
        lines: dict[KeyPath, int] = {}
        _index(node, (), lines)
        return Document(source, loader.construct_document(node), lines)
    finally:
        loader.dispose()


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader without aliases (a small file must stay a small value) and with bounded nesting."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.constructor.ConstructorError(None, None, "aliases (*name) are not accepted", event.start_mark)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            mark = self.peek_event().start_mark
            raise yaml.constructor.ConstructorError(None, None, f"nested deeper than {MAX_DEPTH} levels", mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


def _index(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int]) -> None:
    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _index(item, (*path, index), lines)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "keys must be plain text", key.start_mark)
            if key.tag == "tag:yaml.org,2002:merge":  # its keys could stand twice unseen
                raise yaml.constructor.ConstructorError(None, None, "merge keys (<<) are not accepted", key.start_mark)
            key_path = (*path, str(key.value))
            if key_path in lines:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} stands twice", key.start_mark)
            _index(value, key_path, lines)
            lines[key_path] = key.start_mark.line + 1
