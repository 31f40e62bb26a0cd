"""Change the weights in manifests, and not a character of the rest: comments and layout stay.

Each weight is replaced at the place that PyYAML reports for it. Where several objects split the traffic (HTTP and gRPC,
say), all get the same weight. What is found is the canary's by its name: a service, host or subset that ends in
``canary``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import yaml

from triton_router.config.printable import shortened
from triton_router.errors import ConfigError, InvalidInputError
from triton_router.kubernetes import names
from triton_router.kubernetes.ingress import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_DEPTH = 64
_LONGEST = 120
_BY_HAND = "give two destinations, one of them the canary's, each with its weight, or change it by hand"


class Change(NamedTuple):
    """One object's weights.

    Attributes:
        kind: Of the object.
        name: Of the object.
        before: Percent that the canary got.
        after: Percent that it gets.
    """

    kind: str
    name: str
    before: int
    after: int


class _Edit(NamedTuple):
    node: yaml.ScalarNode
    text: str


class _Weighted(NamedTuple):
    """A weight that was found: what it says in percent, and the scalars that are to be written."""

    before: int
    edits: tuple[_Edit, ...]


def set_weight(text: str, weight: int, *, source: str) -> tuple[str, list[Change]]:
    """Return the manifests with another weight of the canary, and what that changes.

    Args:
        text: YAML, any number of documents.
        weight: Percent, 0 to 100; stable gets the rest.
        source: Where the text came from, for messages.

    Raises:
        ConfigError: It is not YAML, nested too deeply, or uses aliases.
        InvalidInputError: An object splits traffic in another way than between stable and a canary.
    """
    names.percentage("--set-weight", weight)
    changes: list[Change] = []
    edits: list[_Edit] = []
    for root in _documents(text, source):
        kind = _value(_at(root, "kind"))
        name = _value(_at(root, "metadata", "name"))
        where = f"{source}: {shortened(f'{kind} {name}', _LONGEST)}"
        for weighted in _weights(root, kind, weight, where):
            changes.append(Change(kind, name, weighted.before, weight))
            edits += weighted.edits
    for edit in sorted(edits, key=lambda edit: edit.node.start_mark.index, reverse=True):
        quote = edit.node.style if edit.node.style in {'"', "'"} else ""
        start, end = edit.node.start_mark.index, edit.node.end_mark.index
        text = f"{text[:start]}{quote}{edit.text}{quote}{text[end:]}"
    return text, changes


def _documents(text: str, source: str) -> list[yaml.Node]:
    try:
        _check(text)
        return [node for node in yaml.compose_all(text, yaml.SafeLoader) if isinstance(node, yaml.MappingNode)]
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(
            f"{source}:{line}: {shortened(str(error.problem), _LONGEST)}", hint="correct the YAML at that line"
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: {shortened(str(error), _LONGEST)}", hint="correct the YAML") from error


def _check(text: str) -> None:
    """Refuse what could not be edited at one place, or not be read without end."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise _refusal("aliases (*name) are not accepted", event)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise _refusal(f"nested deeper than {MAX_DEPTH} levels", event)


def _refusal(problem: str, event: yaml.Event) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=cast("yaml.Mark", event.start_mark))


def _weights(root: yaml.Node, kind: str, weight: int, where: str) -> Iterator[_Weighted]:
    if kind == "Ingress":
        yield from _of_ingress(root, weight, where)
    elif kind == "VirtualService":
        for rule in _items(_at(root, "spec", "http")):
            yield from _of_destinations(_items(_at(rule, "route")), weight, where)
    elif kind in {"HTTPRoute", "GRPCRoute"}:
        for rule in _items(_at(root, "spec", "rules")):
            yield from _of_destinations(_items(_at(rule, "backendRefs")), weight, where)


def _of_ingress(root: yaml.Node, weight: int, where: str) -> Iterator[_Weighted]:
    annotations = _at(root, "metadata", "annotations")
    if _value(_at(annotations, f"{PREFIX}canary")) != "true":
        return
    if _value(_at(annotations, f"{PREFIX}canary-weight-total")) not in {"", "100"}:
        raise InvalidInputError(f"{where}: its canary-weight-total is not 100", hint="remove that annotation")
    node = _scalar(_at(annotations, f"{PREFIX}canary-weight"), where)
    yield _Weighted(_number(node, where), (_Edit(node, str(weight)),))


def _of_destinations(destinations: list[yaml.Node], weight: int, where: str) -> Iterator[_Weighted]:
    canaries = [item for item in destinations if _is_canary(item)]
    if len(destinations) < 2 or not canaries:
        return  # a rule that sends everything to one place, or is none of ours
    if len(destinations) != 2 or len(canaries) != 1:
        raise InvalidInputError(f"{where}: splits in another way than between stable and one canary", hint=_BY_HAND)
    (canary,) = canaries
    (stable,) = (item for item in destinations if item is not canary)
    given, rest = _scalar(_at(canary, "weight"), where), _scalar(_at(stable, "weight"), where)
    share, total = _number(given, where), _number(given, where) + _number(rest, where)
    before = round(100 * share / total) if total else 0
    yield _Weighted(before, (_Edit(given, str(weight)), _Edit(rest, str(100 - weight))))


def _is_canary(item: yaml.Node) -> bool:
    target = _at(item, "destination") or item
    host = _value(_at(target, "host")).partition(".")[0]
    return any(
        name == "canary" or name.endswith("-canary")
        for name in (host, _value(_at(target, "subset")), _value(_at(target, "name")))
    )


def _at(node: yaml.Node | None, *path: str) -> yaml.Node | None:
    for part in path:
        if not isinstance(node, yaml.MappingNode):
            return None
        pairs = cast("list[tuple[yaml.Node, yaml.Node]]", node.value)
        # As a cluster reads it: of a key that stands twice, the last counts.
        node = next((value for key, value in reversed(pairs) if _value(key) == part), None)
    return node


def _items(node: yaml.Node | None) -> list[yaml.Node]:
    return cast("list[yaml.Node]", node.value) if isinstance(node, yaml.SequenceNode) else []


def _value(node: yaml.Node | None) -> str:
    return str(node.value) if isinstance(node, yaml.ScalarNode) else ""


def _scalar(node: yaml.Node | None, where: str) -> yaml.ScalarNode:
    if isinstance(node, yaml.ScalarNode) and node.style in {None, '"', "'"}:
        return node
    raise InvalidInputError(f"{where}: a weight is missing", hint=_BY_HAND)


def _number(node: yaml.ScalarNode, where: str) -> int:
    text = _value(node)
    if text.isascii() and text.isdigit() and len(text) <= 7:
        return int(text)
    line = node.start_mark.line + 1
    raise InvalidInputError(
        f"{where}: the weight in line {line} is not a number: {shortened(text, _LONGEST)!r}",
        hint="write a number there",
    )
