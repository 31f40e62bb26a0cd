"""Strict YAML: bounded, safe, and every complaint has a line."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triton_router.config.loading import MAX_DOCUMENT_BYTES, load_yaml, parse_yaml
from triton_router.config.router_config import load_router_config, validate_router_config
from triton_router.errors import ConfigError, NotFoundError
from triton_router.routing.types import Backend

if TYPE_CHECKING:
    from pathlib import Path

TARGET = "targets:\n  - {name: a, model: m}\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\na: 2\n", "f:2: key 'a' stands twice"),
        ("a: &x 1\nb: *x\n", r"f:2: aliases"),
        ("a: [1, 2\n", "f:2: "),
        ("[" * 40 + "]" * 40, "f:1: nested deeper than 32"),
        ("a: !!python/object/apply:os.system ['x']\n", "f:1: could not determine a constructor"),
        ("? [a]\n: 1\n", "f:1: keys must be plain text"),
        ("a: 1\n---\nb: 2\n", "f:2: "),
        ("a: \x01\n", "f: "),
    ],
)
def test_hostile_documents_are_refused_with_a_line(text: str, problem: str) -> None:
    """Duplicate keys, aliases, tags, deep nesting, several documents: refused, and where."""
    with pytest.raises(ConfigError, match=problem) as caught:
        parse_yaml(text, source="f")
    assert caught.value.hint


def test_files_are_bounded_and_must_exist_and_be_text(tmp_path: Path) -> None:
    """A missing, huge, binary or unreadable file is an error of its own."""
    with pytest.raises(NotFoundError, match="does not exist"):
        load_yaml(tmp_path / "none.yaml")
    (tmp_path / "huge.yaml").write_bytes(b"#" * (MAX_DOCUMENT_BYTES + 1))
    with pytest.raises(ConfigError, match="more than"):
        load_yaml(tmp_path / "huge.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_yaml(tmp_path / "binary.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_yaml(tmp_path)


@given(st.text(max_size=200))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    """No text raises anything but a ConfigError."""
    with suppress(ConfigError):
        validate_router_config(parse_yaml(text, source="f"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty or not a mapping"),
        ("[]", "is empty or not a mapping"),
        ("policy: latency\n", "targets: is required"),
        ("targets: []\n", "f:1: targets"),
        (TARGET + "polcy: latency\n", "f:3: polcy: unknown key"),
        (TARGET + "policy: fastest\n", "f:3: policy: Input should be 'latency', 'least-request' or 'random'"),
        ("targets:\n  - name: a\n    model: ../../etc\n", "f:3: targets.0.model"),
        ("targets:\n  - name: a\n    model: m\n    backend: npu\n", "f:4: targets.0.backend.*unknown backend 'npu'"),
        ("targets:\n  - {name: a, model: m}\n  - {name: a, model: n}\n", "target name 'a' stands twice"),
        (TARGET + "explore: 0.5\n", "f:3: explore"),
        (TARGET + "explore: .nan\n", "f:3: explore"),
        (TARGET + "streaming: 1\n", "f:3: streaming"),
        (TARGET + "dispatch:\n  max_concurrency: 0\n", "f:4: dispatch.max_concurrency"),
        ("targets:\n  - {name: a, model: m, version: '2'}\n", "targets.0.version"),
        ("targets:\n  - {name: a, model: m, measured_latency: [{work: 1, latency_ms: -1}]}\n", "latency_ms"),
    ],
)
def test_a_wrong_router_yaml_is_refused_with_line_and_key(text: str, problem: str) -> None:
    """Unknown keys, wrong types, names that leave the repository: refused by name."""
    with pytest.raises(ConfigError, match=problem) as caught:
        validate_router_config(parse_yaml(text, source="f"))
    assert caught.value.hint


def test_a_whole_router_yaml_is_read(tmp_path: Path) -> None:
    """Every key, by alias where there is one, and as JSON alike."""
    path = tmp_path / "router.yaml"
    path.write_text(
        "targets:\n"
        "  - name: a\n    model: m-a\n    version: 2\n    backend: cuda\n    variant: onnx\n"
        "    batch_independent: true\n    measured_latency: [{work: 16, latency_ms: 3}]\n"
        "policy: least-request\nexplore: 0\nstreaming: true\n"
        "dispatch: {max_concurrency: 8, inline: false}\n"
    )
    config = load_router_config(path)
    assert config.targets[0].backend is Backend.GPU
    assert config.targets[0].version == 2
    assert config.targets[0].measured_latency[0].latency_ms == 3.0
    assert config.dispatch.max_concurrency == 8
    path.write_text('{"targets": [{"name": "a", "model": "m"}]}')
    assert load_router_config(path).policy == "latency"


def test_an_unreadable_file_says_so(tmp_path: Path) -> None:
    """A file without permission is an error with its reason (not for root, who may read everything)."""
    path = tmp_path / "router.yaml"
    path.write_text(TARGET)
    path.chmod(0)
    if os.geteuid() == 0:
        assert load_router_config(path).targets
        return
    with pytest.raises(ConfigError, match="Permission denied"):
        load_router_config(path)
