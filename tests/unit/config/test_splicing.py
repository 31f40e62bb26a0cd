"""A change of one value leaves every other character of the text as it was."""

from __future__ import annotations

import difflib
import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from triton_router.config.splicing import Splice
from triton_router.errors import ConfigError

TEXT = """\
# The routed model
targets:
  # the old one
  - {name: onnx-int8-cpu,   model: minilm-onnx-int8-cpu, backend: cpu,
     variant: onnx-int8}   # int8
  - name: pt2-cpu
    model: minilm-pt2-cpu
    measured_latency:
    - {work: 1, latency_ms: 1.50}

policy: latency   # fast

# at the end
mirror: 0.0050
decision_log:
    path: "/var/log/a"   # deep
"""


def changed_lines(before: str, after: str) -> list[str]:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


def spliced(text: str = TEXT) -> Splice:
    return Splice(text, source="router.yaml")


def test_a_new_section_is_added_behind_everything() -> None:
    """Nested settings on lines of their own, lists of plain values on one line."""
    splice = spliced()
    splice.set(("rollout",), {"id": "r1", "steps": [1, 5.5], "gate": {"min_requests": 3}})
    assert changed_lines(TEXT, splice.text) == [
        "+rollout:",
        "+  id: r1",
        "+  steps: [1, 5.5]",
        "+  gate: {min_requests: 3}",
    ]


def test_an_item_is_added_in_the_layout_of_the_one_before() -> None:
    """A target behind one of several lines takes several lines; behind one in braces, one line in braces."""
    splice = spliced()
    splice.append(("targets",), {"name": "v2", "model": "m", "measured_latency": [{"work": 1, "latency_ms": 2.0}]})
    assert changed_lines(TEXT, splice.text) == [
        "+  - name: v2",
        "+    model: m",
        "+    measured_latency:",
        "+      - {work: 1, latency_ms: 2.0}",
    ]
    short = spliced("targets:\n- {name: a, model: a} # first\n# last\n")
    short.append(("targets",), {"name": "b", "model": "b"})
    assert short.text == "targets:\n- {name: a, model: a} # first\n- {name: b, model: b}\n# last\n"


def test_a_key_is_added_in_braces_and_on_a_line_of_its_own() -> None:
    """The comment behind the braces stays there, and what stands in the braces as it stood."""
    splice = spliced()
    splice.set(("targets", 0, "version"), 1)
    splice.set(("targets", 1, "version"), 3)
    assert changed_lines(TEXT, splice.text) == [
        "-     variant: onnx-int8}   # int8",
        "+     variant: onnx-int8, version: 1}   # int8",
        "+    version: 3",
    ]


def test_a_value_is_replaced_and_its_comment_stays() -> None:
    """Short by short."""
    splice = spliced()
    splice.set(("policy",), "balanced")
    splice.set(("decision_log", "path"), "/var/log/b")
    assert changed_lines(TEXT, splice.text) == [
        "-policy: latency   # fast",
        "+policy: balanced   # fast",
        '-    path: "/var/log/a"   # deep',
        "+    path: /var/log/b   # deep",
    ]


def test_what_is_taken_out_takes_its_lines_along() -> None:
    """Of several lines, of braces on two lines, within braces, and the last of all."""
    splice = spliced()
    splice.remove(("targets", 1))
    splice.remove(("mirror",))
    assert changed_lines(TEXT, splice.text) == [
        "-  - name: pt2-cpu",
        "-    model: minilm-pt2-cpu",
        "-    measured_latency:",
        "-    - {work: 1, latency_ms: 1.50}",
        "-mirror: 0.0050",
    ]
    splice.remove(("targets", 0, "model"))
    splice.remove(("targets", 0, "variant"))
    assert "  - {name: onnx-int8-cpu,   backend: cpu}   # int8\n" in splice.text
    splice.remove(("decision_log", "path"))
    assert splice.data["decision_log"] == {}
    splice.remove(("nowhere",))


def test_there_and_back_is_where_it_was() -> None:
    """Taking out what was put in gives the first text back, to the character."""
    splice = spliced()
    splice.append(("targets",), {"name": "v2", "model": "m"})
    splice.set(("rollout",), {"id": "r", "canary": ["v2"]})
    splice.remove(("rollout",))
    splice.remove(("targets", 2))
    assert splice.text == TEXT


@pytest.mark.parametrize(
    "text",
    [
        "targets: [{name: a, model: a}]",
        "---\ntargets:\n- name: a\n  model: a\n...\n",
        "targets:\r\n  - name: a\r\n    model: a\r\npolicy: |\r\n  latency\r\n",
        "{targets: [{name: a, model: a}], policy: x}\n",
        "targets:\n  -\n    name: a\n    model: a\n    note: |\n      two\n      lines\n# end",
        "\ufefftargets:\n  - name: a\n    model: a",
    ],
)
def test_other_ways_to_write_it(text: str) -> None:
    """No line break at the end, document markers, line breaks of Windows, all in braces, blocks of text."""
    splice = spliced(text)
    splice.append(("targets",), {"name": "b", "model": "b"})
    splice.set(("rollout",), {"id": "r", "gate": {"rollback": False}})
    splice.set(("targets", 0, "version"), 7)
    found = yaml.safe_load(splice.text)
    assert [target["name"] for target in found["targets"]] == ["a", "b"]
    assert found["targets"][0]["version"] == 7
    assert found["rollout"] == {"id": "r", "gate": {"rollback": False}}
    assert ("\r\n" in text) == ("\r\n" in splice.text)
    assert splice.text.count("\n") - splice.text.count("\r\n") in {0, splice.text.count("\n")}


@pytest.mark.parametrize("indent", [None, 4, "\t"])
def test_json_stays_json(indent: int | str | None) -> None:
    """Indented as it was."""
    text = json.dumps({"targets": [{"name": "a", "model": "a"}]}, indent=indent)
    if indent == "\t":
        text = text.replace("\t", "  ")
        indent = 2
    splice = spliced(text)
    splice.append(("targets",), {"name": "b", "model": "b"})
    splice.set(("rollout",), {"id": "r"})
    wanted = {"targets": [{"name": n, "model": n} for n in "ab"], "rollout": {"id": "r"}}
    assert splice.text == json.dumps(wanted, indent=indent)


def test_a_layout_that_would_come_out_wrong_is_refused_untouched() -> None:
    """An empty section written as nothing holds no place for a key."""
    splice = spliced("targets:\npolicy: latency\n")
    before = splice.text
    with pytest.raises((ConfigError, TypeError, AttributeError)):
        splice.set(("targets", "a"), 1)
    assert splice.text == before


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.text("ab:#-{}[],'\" \n", max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=2), _VALUES, min_size=1, max_size=4),
    st.sampled_from([True, False, None]),
    _VALUES,
)
def test_whatever_is_set_is_read_again(data: dict[str, Any], flow: bool | None, value: Any) -> None:
    """Any value at any key of any document, in any of PyYAML's layouts: all else reads as before."""
    text = yaml.safe_dump(data, default_flow_style=flow)
    for key in [*data, "new"]:
        splice = Splice(text, source="t")
        splice.set((key,), value)
        assert yaml.safe_load(splice.text) == {**data, key: value}
        splice.remove((key,))
        assert yaml.safe_load(splice.text) == {name: other for name, other in data.items() if name != key}
