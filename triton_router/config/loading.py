"""Read a YAML (or JSON) document strictly: bounded, safe, and with the line of every value for error messages."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, get_args

import yaml
from pydantic import BaseModel

from triton_router.config.printable import shortened
from triton_router.errors import ConfigError, NotFoundError
from triton_router.files import open_regular

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

MAX_DOCUMENT_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_VALUES = 100_000
"""Values in one document, keys included: 256 targets with everything that can be said of them, and a reader's time."""

_AMBIGUOUS = re.compile(r"[-+]?(?:0[0-9_]+$|[0-9_]+:)")
"""Numbers that YAML 1.1 reads as octal (010 is 8) or sexagesimal (1:30 is 90), and people do not."""
_TEXT = "tag:yaml.org,2002:str"
_MAX_NUMBER = 64
"""Characters of a number: longer ones take the square of their length to read."""
_MOST_COMPLAINTS = 100
"""Complaints about one document that are compared with one another; further ones are only counted."""
_LONGEST_KEY = 200
_LONGEST_PROBLEM = 1000

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
        where = shortened(".".join(str(part) for part in path), _LONGEST_KEY)
        problem = shortened(problem, _LONGEST_PROBLEM)
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
        uncompared = max(0, len(details) - _MOST_COMPLAINTS)
        del details[_MOST_COMPLAINTS:]
        meant = {detail["loc"]: _meant(detail, details, settings) for detail in details}
        first = details[0]
        suggestion = meant[first["loc"]]
        problem = {
            "extra_forbidden": "unknown key" + (f" (did you mean {suggestion!r}?)" if suggestion else ""),
            "missing": "is required and missing",
        }.get(first["type"], first["msg"].removeprefix("Value error, "))
        misread, advice = _misread(first)
        typos = {(*path[:-1], key) for path, key in meant.items() if key}
        further = uncompared + sum(not (other["loc"] in typos or _follows(other, details)) for other in details[1:])
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
        ConfigError: It is too large, not UTF-8, not YAML, nested too deeply, has too many values, or uses aliases,
            merges, tags or duplicate keys.
    """
    return parse_yaml(read_text(path, max_bytes=max_bytes), source=str(path))


def read_text(path: Path, *, max_bytes: int = MAX_DOCUMENT_BYTES) -> str:
    """Return the text of the file at ``path``.

    Raises:
        NotFoundError: There is no such file.
        ConfigError: It is too large, not a regular file, cannot be read, or is not UTF-8.
    """
    try:
        with open_regular(path) as stream:
            raw = stream.read(max_bytes + 1)
    except FileNotFoundError as error:
        raise NotFoundError(f"{path} does not exist", hint="check the path") from error
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}", hint="check what it is, and its permissions"
        ) from error
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
        problem = shortened(str(error.problem), _LONGEST_PROBLEM)
        raise ConfigError(f"{source}:{line}: {problem}", hint="correct the YAML at that line") from error
    except (yaml.YAMLError, ValueError) as error:
        problem = shortened(" ".join(str(error).split()), _LONGEST_PROBLEM)
        raise ConfigError(f"{source}: {problem}", hint="correct the YAML") from error


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
    """SafeLoader without aliases and tags, with bounded nesting, count of values and length of numbers.

    Without aliases a small file stays a small value. Tags would have values read as what they are not.
    """

    _depth = 0
    _values = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise _refusal("aliases (*name) are not accepted", event.start_mark)
        if isinstance(event, yaml.NodeEvent) and getattr(event, "tag", None) is not None:
            raise _refusal("tags (!name) are not accepted", event.start_mark)
        self._depth += 1
        self._values += 1
        if self._depth > MAX_DEPTH:
            raise _refusal(f"nested deeper than {MAX_DEPTH} levels", event.start_mark)
        if self._values > MAX_VALUES:
            raise _refusal(f"the document has more than {MAX_VALUES} values", event.start_mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


def _refusal(problem: str, mark: Any) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, mark)


def _number(loader: _StrictLoader, node: yaml.ScalarNode) -> int | float:
    if len(node.value) > _MAX_NUMBER:
        raise _refusal(f"a number has more than {_MAX_NUMBER} characters", node.start_mark)
    if _AMBIGUOUS.match(node.value):
        raise _refusal(
            f"YAML reads {node.value} in base 8 or 60; write the number without a leading zero or colon",
            node.start_mark,
        )
    is_whole = node.tag.endswith(":int")
    return loader.construct_yaml_int(node) if is_whole else loader.construct_yaml_float(node)


for _tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float"):
    _StrictLoader.add_constructor(_tag, _number)


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
            if key.tag != _TEXT:  # nobody asked for that, and no line would be found for it
                problem = f"YAML does not read the key {key.value!r} as text; put it in quotes"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            key_path = (*path, str(key.value))
            if key_path in lines:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} stands twice", key.start_mark)
            _index(value, key_path, lines)
            lines[key_path] = key.start_mark.line + 1
