"""Strict YAML: bounded, safe, and every complaint has a line."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from triton_router.config import loading
from triton_router.config.loading import MAX_DOCUMENT_BYTES, Document, load_yaml, parse_yaml
from triton_router.config.router_config import RouterConfig, load_router_config, validate_router_config
from triton_router.errors import ConfigError, NotFoundError
from triton_router.routing.types import Backend

if TYPE_CHECKING:
    from pathlib import Path

TARGET = "targets:\n  - {name: a, model: m}\n"
MEASURED = "targets:\n  - {name: a, model: m, measured_latency: ["


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\na: 2\n", "f:2: key 'a' stands twice"),
        ("a: &x 1\nb: *x\n", r"f:2: aliases"),
        ("a: [1, 2\n", "f:2: "),
        ("[" * 40 + "]" * 40, "f:1: nested deeper than 32"),
        ("a: !!python/object/apply:os.system ['x']\n", r"f:1: tags \(!name\) are not accepted"),
        ("a: 1\nb: !!bool maybe\n", r"f:2: tags"),
        ("a: 1\nb: !!int ''\n", r"f:2: tags"),
        ("%TAG ! tag:yaml.org,2002:\n---\na: !timestamp soon\n", r"f:3: tags"),
        ("a: 1\nlimit: 010\n", "f:2: YAML reads 010 in base 8 or 60"),
        ("a: 1\nwait: 1:30\n", "f:2: YAML reads 1:30 in base 8 or 60"),
        ("a: 1\nwait: 1:30.5\n", "f:2: YAML reads"),
        ("a: 1\non: true\n", "f:2: YAML does not read the key 'on' as text; put it in quotes"),
        ("a: 1\n3: 4\n", "f:2: YAML does not read the key '3' as text"),
        ("a: 1" + ":1" * 100_000, "f:1: a number has more than 64 characters"),
        ("a: 1" + ":1" * 200 + ".5", "f:1: a number has more than 64 characters"),
        ("? [a]\n: 1\n", "f:1: keys must be plain text"),
        ("a: 1\n---\nb: 2\n", "f:2: "),
        ("a: \x01\n", "f: "),
        ("a: 1\n<<: {a: 2}\n", r"f:2: merge keys \(<<\) are not accepted"),
        ("a: 1\n<<: [{a: 2}, {b: 3}]\n", r"f:2: merge keys"),
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


def test_a_document_of_very_many_values_is_refused_where_they_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A megabyte of empty lists would take hundreds of megabytes to hold; the bound is lowered here to save time."""
    monkeypatch.setattr(loading, "MAX_VALUES", 1_000)
    assert parse_yaml("[" + "[],\n" * 999 + "]", source="f").data == [[]] * 999
    with pytest.raises(ConfigError, match="f:1000: the document has more than 1000 values") as caught:
        parse_yaml("[" + "[],\n" * 1_000_000, source="f")
    assert caught.value.hint


def test_very_many_mistakes_are_counted_and_not_compared_with_one_another() -> None:
    """Targets with two mistyped keys each: for 8,000 of them, comparing all with all took minutes."""
    text = "targets:\n" + "- {nme: a, modl: b}\n" * 500
    with pytest.raises(ConfigError, match=r"f:2: targets.0.nme: unknown key \(did you mean 'name'") as caught:
        validate_router_config(parse_yaml(text, source="f"))
    assert "and 2000 more" in caught.value.message


def test_a_message_stays_short_and_printable_whatever_the_document_holds() -> None:
    """Keys of any length and with any characters end up in logs and on terminals."""
    for text in ("k" * 5_000 + "\x9b: 1\n", '"' + "\\e[2J" * 500 + '": 1\n', "a\0b", "a: \ud800", "- " + "*" * 5_000):
        with pytest.raises(ConfigError) as caught:
            validate_router_config(parse_yaml(text, source="f"))
        assert len(caught.value.message) < 500
        assert caught.value.message.isprintable()


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    """Nobody may ever write to it."""
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match="it is not a regular file"):
        load_yaml(tmp_path / "pipe.yaml")


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
        (TARGET + "policy: fastest\n", "f:3: policy: there is no policy 'fastest'.*; use one of latency"),
        ("targets:\n  - name: a\n    model: ../../etc\n", "f:3: targets.0.model"),
        ("targets:\n  - name: a\n    model: m\n    backend: npu\n", "f:4: targets.0.backend.*unknown backend 'npu'"),
        ("targets:\n  - {name: a, model: m}\n  - {name: a, model: n}\n", "target name 'a' stands twice"),
        (
            TARGET + "health:\n  first_pause_s: 60\n  longest_pause_s: 1\n",
            r"f:3: health: first_pause_s \(60\) is longer",
        ),
        (TARGET + "streaming: true\nmirror: 0.01\n", "mirror does nothing where streaming is true"),
        (TARGET + "streaming: true\nhedge: {share: 0.1}\n", "hedge.share does nothing where streaming is true"),
        (TARGET + "streaming: true\nmerge: {calls_in_flight: 2}\n", "merge does nothing where streaming is true"),
        (TARGET + "explore: 0.5\n", "f:3: explore"),
        (TARGET + "explore: .nan\n", "f:3: explore"),
        (TARGET + "streaming: 1\n", "f:3: streaming"),
        (TARGET + "dispatch:\n  max_concurrency: 0\n", "f:4: dispatch.max_concurrency"),
        ("targets:\n  - {name: a, model: m, version: '2'}\n", "targets.0.version"),
        ("targets:\n  - {name: a, model: m, measured_latency: [{work: 1, latency_ms: -1}]}\n", "latency_ms"),
        (MEASURED + "{work: 1, latency_ms: 1.0e+200}]}\n", "latency_ms: Input should be less than or equal to"),
        (MEASURED + "{work: 1, latency_ms: %s}]}\n" % ("9" * 60), "latency_ms"),
        (MEASURED + "{work: %s, latency_ms: 1}]}\n" % ("9" * 60), "work: Input should be less than or equal to"),
        (MEASURED + "{work: 0x%s, latency_ms: 1}]}\n" % ("f" * 60), "work: "),
        (TARGET + '"\\e[2J": 1\n', r"f:3: \\x1b\[2J: unknown key"),
        (MEASURED + "{work: 1, latency_ms: true}]}\n", "latency_ms: Input should be a valid number"),
        (MEASURED + "{work: 1, latency_ms: '3.5'}]}\n", "latency_ms: Input should be a valid number"),
        (TARGET + "explore: 'few'\n", "f:3: explore: Input should be a valid number"),
        (TARGET + "explore: '0.05'\n", "f:3: explore: Input should be less than or equal to 0.01"),
        (TARGET + "explore: false\n", "f:3: explore: Input should be a valid number"),
        ("targets:\n  - {name: a, model: m, version: 99999999999999999999999}\n", "version: Input should be less than"),
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
    assert load_router_config(path).policy_in_force.name == "latency"


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


def test_what_is_switched_off_may_be_said_of_streams() -> None:
    """A file may say that streams are neither copied, hedged nor merged; and 0, 0.5 and 0x10 are plain numbers."""
    text = TARGET + "streaming: true\nmirror: 0\nhedge: {share: 0}\nmerge: {enabled: false}\n"
    assert validate_router_config(parse_yaml(text, source="f")).streaming
    assert parse_yaml("[0, -0, 0.5, 00.5, 0x10, 10]", source="f").data == [0, 0, 0.5, 0.5, 16, 10]


def test_a_quoted_merge_sign_is_an_ordinary_key() -> None:
    """Only YAML's merge is refused, not the two characters."""
    assert parse_yaml("'<<': 1\n", source="f").data == {"<<": 1}


@pytest.mark.parametrize("name", ["_preprocess", "model+v2", "model@prod", "my model", "a:b", "-x", "ünï", "x" * 255])
def test_names_that_triton_allows_are_taken(name: str) -> None:
    """A model is a directory: whatever is printable and stays inside the repository may be a target."""
    config = validate_router_config(Document("f", {"targets": [{"name": name, "model": name}]}))
    assert config.targets[0].model == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".hidden",
        "../m",
        "a/b",
        "a\\b",
        "/m",
        "a\x00",
        "a\x1b[2J",
        "a\n",
        "\u202ea",
        "a ",
        " a",
        "x" * 256,
    ],
)
@pytest.mark.parametrize("key", ["name", "model"])
def test_names_that_leave_the_repository_or_cannot_be_printed_are_refused(key: str, name: str) -> None:
    """They become paths, metric labels and lines on a terminal."""
    target = {"name": "a", "model": "m", key: name}
    with pytest.raises(ConfigError, match=rf"targets\.0\.{key}: ") as caught:
        validate_router_config(Document("f", {"targets": [target]}))
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("on", "the boolean true"),
        ("No", "the boolean false"),
        ("0x" + "f" * 60, "a number"),
        ("~", "nothing"),
        ("2024-01-02", "a date"),
    ],
)
def test_text_that_yaml_reads_as_something_else_is_told_to_be_quoted(text: str, named: str) -> None:
    """``name: on`` is a boolean in YAML; whoever wrote it meant a name."""
    with pytest.raises(ConfigError, match=f"YAML reads this as {named}") as caught:
        validate_router_config(parse_yaml(f"targets:\n  - name: {text}\n    model: m\n", source="f"))
    assert "quotes" in caught.value.hint


def test_a_number_that_yaml_reads_as_text_is_told_how_to_be_written() -> None:
    """``1e-2`` without a point is text in YAML 1.1."""
    with pytest.raises(ConfigError, match="YAML reads this as text") as caught:
        validate_router_config(parse_yaml(MEASURED + "{work: 1, latency_ms: 1e-2}]}\n", source="f"))
    assert "1.0e-2" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("targets:\n  - {name: a, model: m, versoin: 2}\n", None),
        ("targets:\n  - {name: a, model: m, versoin: 2}\nexplore: 7\n", 1),
        ("targets:\n  - {name: a, model: m, versoin: 2, backend: npu}\n  - {name: b}\n", 2),
        (MEASURED + "{work: 0, latency_ms: 1}]}\n", None),
    ],
)
def test_further_complaints_are_counted_honestly(text: str, more: int | None) -> None:
    """A list that is too short only because its item was refused is no complaint of its own."""
    with pytest.raises(ConfigError) as caught:
        validate_router_config(parse_yaml(text, source="f"))
    counted = caught.value.message.partition("(and ")[2]
    assert counted == (f"{more} more)" if more else "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TARGET + "  - name: b\n    modle: m\n", "f:4: targets.1.modle: unknown key (did you mean 'model'?)"),
        ("tragets: []\n", "f:1: tragets: unknown key (did you mean 'targets'?)"),
        (TARGET + "  - name: b\n    zzz: m\n", "f:4: targets.1.zzz: unknown key (and 1 more)"),
        (TARGET + "explore: 7\nxyzzy: red\n", "f:4: xyzzy: unknown key (and 1 more)"),
    ],
)
def test_a_mistyped_key_is_named_before_what_is_missing_for_it(text: str, message: str) -> None:
    """The typo is the cause: it is what is reported, with the key that was probably meant."""
    with pytest.raises(ConfigError) as caught:
        validate_router_config(parse_yaml(text, source="f"))
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [
        (TARGET + "polcy: random\n", "f:3: polcy: unknown key (did you mean 'policy'?)"),
        (TARGET + "dispatch:\n  max_concurency: 1\n", "max_concurency: unknown key (did you mean 'max_concurrency'?)"),
        (MEASURED + "{work: 1, latency_ms: 1, wrok: 1}]}\n", "wrok: unknown key (did you mean 'work'?)"),
    ],
)
def test_optional_keys_are_suggested_where_the_settings_are_known(text: str, suggestion: str) -> None:
    """With the settings at hand, every key that the place allows is a candidate."""
    document = parse_yaml(text, source="f")
    with pytest.raises(ValidationError) as caught:
        RouterConfig.model_validate(document.data)
    assert suggestion in document.validation_error(caught.value, hint="h", settings=RouterConfig).message
