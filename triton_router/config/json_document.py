"""Read a JSON document as strictly as YAML: bounded, no key twice, no NaN, and with the line of every value."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn, cast

from triton_router.config.loading import MAX_DEPTH, Document, parse_yaml, read_text
from triton_router.config.printable import shortened
from triton_router.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from triton_router.config.loading import KeyPath

MAX_JSON_CHARACTERS = 1 << 18
"""Lines are found by a slow parser; a routing configuration has a few thousand characters."""
_LONGEST_PROBLEM = 1000


def load_json(path: Path) -> Document:
    """Read and parse the file at ``path``.

    Raises:
        NotFoundError: There is no such file.
        ConfigError: It is too large, not UTF-8, not JSON, nested too deeply, or has a key twice.
    """
    return parse_json(read_text(path, max_bytes=MAX_JSON_CHARACTERS), source=str(path))


def parse_json(text: str, *, source: str) -> Document:
    """Parse the text of a document. ``source`` names it in messages. Errors as `load_json`."""
    if len(text) > MAX_JSON_CHARACTERS:
        raise ConfigError(
            f"{source} has more than {MAX_JSON_CHARACTERS} characters", hint="such a file is a few kilobytes"
        )
    try:
        data: object = json.loads(text, object_pairs_hook=_each_once, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{source}:{error.lineno}: {error.msg}", hint="correct the JSON at that line") from error
    except RecursionError as error:
        raise ConfigError(f"{source}: nested too deeply", hint="correct the JSON") from error
    except ValueError as error:
        raise ConfigError(f"{source}: {shortened(str(error), _LONGEST_PROBLEM)}", hint="correct the JSON") from error
    if _is_deeper(data, MAX_DEPTH):
        raise ConfigError(f"{source}: nested deeper than {MAX_DEPTH} levels", hint="correct the JSON")
    return Document(source, data, _lines(text))


def _lines(text: str) -> dict[KeyPath, int]:
    """Return the line of each value; none for the rare JSON that is no YAML: messages then name the key alone."""
    try:
        # Valid JSON has tabs between values only, where YAML has none.
        return parse_yaml(text.replace("\t", " "), source="").lines
    except ConfigError:
        return {}


def _is_deeper(value: object, levels: int) -> bool:
    if isinstance(value, dict):
        inner = list(cast("dict[str, object]", value).values())
    elif isinstance(value, list):
        inner = cast("list[object]", value)
    else:
        return False
    return levels == 0 or any(_is_deeper(item, levels - 1) for item in inner)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key!r} stands twice")
        found[key] = value
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
