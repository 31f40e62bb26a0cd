"""Change single values of a YAML or JSON text, and not a character of the rest: comments and layout stay.

A change is spliced in at the place that PyYAML reports for a value. Dumping the document again would lose comments, and
the libraries that keep those still break lines, indent and align anew, and write some layouts down as another document.
Every result is read again and compared with what it is to say; where that differs, nothing is changed.
"""

from __future__ import annotations

import copy
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import yaml

from triton_router.config.loading import parse_yaml
from triton_router.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from triton_router.config.loading import KeyPath

_WIDE = 1 << 20
"""Columns before a line is broken: never."""


class _Span(NamedTuple):
    """Where something stands: the first character, and the one behind the last."""

    start: int
    end: int


class Splice:
    """A text that is changed value by value.

    Args:
        text: YAML as `parse_yaml` takes it, or JSON.
        source: Where it came from, for messages.

    Raises:
        ConfigError: It cannot be read.
    """

    def __init__(self, text: str, *, source: str) -> None:
        self.text = text
        self._source = source
        self._data: Any = parse_yaml(text, source=source).data
        self._is_json = _is_json(text)
        self._newline = "\r\n" if "\r\n" in text else "\n"

    @property
    def data(self) -> Any:
        """What the text says."""
        return copy.deepcopy(self._data)

    def set(self, path: KeyPath, value: Any) -> None:
        """Have the mapping at ``path[:-1]`` hold ``value`` under the key ``path[-1]``.

        Raises:
            ConfigError: The layout is one that cannot be changed so; the text is as before.
        """
        wanted = self.data
        _at(wanted, path[:-1])[path[-1]] = value
        self._change(wanted, lambda root: self._set(_node(root, path[:-1]), str(path[-1]), value))

    def append(self, path: KeyPath, value: Any) -> None:
        """Add an item at the end of the sequence at ``path``. Errors as `set`."""
        wanted = self.data
        _at(wanted, path).append(value)
        self._change(wanted, lambda root: self._append(_node(root, path), value))

    def remove(self, path: KeyPath) -> None:
        """Take out the value at ``path``; one that is not there is no error. Errors as `set`."""
        wanted = self.data
        holder = _at(wanted, path[:-1])
        if isinstance(holder, dict) and path[-1] not in holder:
            return
        del holder[path[-1]]
        self._change(wanted, lambda root: self._remove(_node(root, path[:-1]), path[-1]))

    def _change(self, wanted: Any, spliced: Callable[[yaml.Node], str]) -> None:
        if self._is_json:
            text = _json_like(self.text, wanted)
        else:
            root = yaml.compose(self.text, yaml.SafeLoader)
            text = spliced(root) if root is not None else ""
        if _reads_as(text) != wanted:
            raise ConfigError(
                f"{self._source} is laid out so that it cannot be changed without writing it anew",
                hint="change it by hand, or write one setting per line",
            )
        self.text, self._data = text, wanted

    def _set(self, mapping: yaml.Node, key: str, value: Any) -> str:
        known = next((pair for pair in _pairs(mapping) if pair[0].value == key), None)
        if known is None:
            return self._insert(mapping, key, value)
        key_node, old = known
        if _is_flow(mapping) or not (_is_block(old) or _is_large(value)):
            gap = " " if old.start_mark.index == old.end_mark.index else ""
            return self._put(_Span(old.start_mark.index, _end(old)), gap + _flow(value))
        span = _Span(key_node.start_mark.index, max(_end(old), key_node.end_mark.index))
        return self._put(span, _block({key: value}, key_node.start_mark.column).lstrip(" "))

    def _insert(self, mapping: yaml.Node, key: str, value: Any) -> str:
        pairs = _pairs(mapping)
        if _is_flow(mapping):
            entry = f"{_flow(key)}: {_flow(value)}"
            if not pairs:
                return self._put(_Span(mapping.start_mark.index + 1, mapping.start_mark.index + 1), entry)
            return self._put(_Span(_end(pairs[-1][1]), _end(pairs[-1][1])), f", {entry}")
        return self._add_lines(_end_of_pair(pairs[-1]), _block({key: value}, pairs[0][0].start_mark.column))

    def _append(self, sequence: yaml.Node, value: Any) -> str:
        items = _items(sequence)
        if _is_flow(sequence):
            place = _end(items[-1]) if items else sequence.start_mark.index + 1
            return self._put(_Span(place, place), (", " if items else "") + _flow(value))
        column = sequence.start_mark.column
        if _is_flow(items[-1]):
            lines = f"{' ' * column}- {_flow(value)}"
        else:
            block = _block(value, column + 2)
            lines = f"{' ' * column}- {block.lstrip(' ')}"
        return self._add_lines(_end(items[-1]), lines)

    def _remove(self, holder: yaml.Node, key: str | int) -> str:
        if isinstance(holder, yaml.SequenceNode):
            spans = [_Span(item.start_mark.index, _end(item)) for item in _items(holder)]
            number = int(key)
        else:
            pairs = _pairs(holder)
            spans = [_Span(pair[0].start_mark.index, _end_of_pair(pair)) for pair in pairs]
            number = next(i for i, pair in enumerate(pairs) if pair[0].value == key)
        if not _is_flow(holder):
            if len(spans) == 1:
                empty = " []" if isinstance(holder, yaml.SequenceNode) else " {}"
                return self._put(_Span(holder.start_mark.index, _end(holder)), empty)
            return self._without_lines(spans[number])
        if number + 1 < len(spans):
            return self._put(_Span(spans[number].start, spans[number + 1].start), "")
        start = spans[number - 1].end if number else spans[number].start
        return self._put(_Span(start, spans[number].end), "")

    def _put(self, span: _Span, text: str) -> str:
        return self.text[: span.start] + text.replace("\n", self._newline) + self.text[span.end :]

    def _add_lines(self, place: int, lines: str) -> str:
        """Return the text with lines behind the one that ``place`` is in."""
        end = self._line_end(place)
        if end < 0:
            return self._put(_Span(len(self.text), len(self.text)), f"\n{lines}\n")
        return self._put(_Span(end + 1, end + 1), f"{lines}\n")

    def _without_lines(self, span: _Span) -> str:
        start = self.text.rfind("\n", 0, span.start) + 1
        end = self._line_end(span.end)
        return self._put(_Span(start, len(self.text) if end < 0 else end + 1), "")

    def _line_end(self, place: int) -> int:
        """Return where the line that a value ends in does; -1 for the text's own end."""
        if place and self.text[place - 1] == "\n":  # a block of text (``|``) ends behind its last line
            return place - 1
        return self.text.find("\n", place)


def _at(data: Any, path: KeyPath) -> Any:
    for part in path:
        data = data[part]
    return data


def _node(root: yaml.Node, path: KeyPath) -> yaml.Node:
    for part in path:
        if isinstance(root, yaml.SequenceNode):
            root = _items(root)[int(part)]
        else:
            root = next(value for key, value in _pairs(root) if key.value == part)
    return root


def _pairs(node: yaml.Node) -> list[tuple[yaml.Node, yaml.Node]]:
    return cast("list[tuple[yaml.Node, yaml.Node]]", node.value) if isinstance(node, yaml.MappingNode) else []


def _items(node: yaml.Node) -> list[yaml.Node]:
    return cast("list[yaml.Node]", node.value) if isinstance(node, yaml.SequenceNode) else []


def _is_flow(node: yaml.Node) -> bool:
    return isinstance(node, yaml.CollectionNode) and bool(node.flow_style)


def _is_block(node: yaml.Node) -> bool:
    return isinstance(node, yaml.CollectionNode) and not node.flow_style


def _is_large(value: Any) -> bool:
    """Return whether a value has parts that have parts: such are written on several lines."""
    return any(isinstance(part, dict | list) for part in _parts(value))


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(cast("dict[str, Any]", value).values())
    return cast("list[Any]", value) if isinstance(value, list) else []


def _block(value: Any, column: int) -> str:
    return "\n".join(" " * column + line for line in _lines(value))


def _lines(value: Any) -> list[str]:
    """Return the lines of a mapping or a sequence; what has no parts of parts stands on one line each."""
    if isinstance(value, list):
        return [f"- {_flow(item)}" for item in cast("list[Any]", value)]
    lines: list[str] = []
    for key, part in cast("dict[str, Any]", value).items():
        if _is_large(part):
            lines += [f"{_flow(key)}:", *(f"  {line}" for line in _lines(part))]
        else:
            lines.append(f"{_flow(key)}: {_flow(part)}")
    return lines


def _end(node: yaml.Node) -> int:
    """Return where a value ends: a block's own mark stands behind the comments and empty lines that follow it."""
    if not _is_block(node):
        return node.end_mark.index
    pairs = _pairs(node)
    return _end_of_pair(pairs[-1]) if pairs else _end(_items(node)[-1])


def _end_of_pair(pair: tuple[yaml.Node, yaml.Node]) -> int:
    return max(_end(pair[0]), _end(pair[1]))


def _flow(value: Any) -> str:
    dumped = yaml.safe_dump(value, sort_keys=False, default_flow_style=True, width=_WIDE, allow_unicode=True)
    return dumped.removesuffix("\n").removesuffix("\n...")


def _reads_as(text: str) -> Any:
    try:
        return parse_yaml(text, source="").data
    except ConfigError:
        return None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _json_like(text: str, value: Any) -> str:
    """Return a value as JSON, indented as ``text`` is."""
    indent = re.search(r"\n([ \t]+)\S", text)
    written = json.dumps(value, indent=indent[1] if indent else None, ensure_ascii=False)
    return written + ("\n" if text.endswith("\n") else "")
