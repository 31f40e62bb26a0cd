"""What is refused of ONNX files, and that each refusal says what is wrong and what to do."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from triton_router.analysis.onnx_model import OnnxLimits, content_hash, external_files, load_checked
from triton_router.errors import ModelFileError
from triton_router.testing import onnx_models as make

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def _save(tmp_path: Path, model: ModelProto | bytes) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path


def _refused(path: Path, match: str, limits: OnnxLimits | None = None) -> ModelFileError:
    with pytest.raises(ModelFileError, match=match) as caught:
        load_checked(path, limits)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("make_model", [make.mlp, make.cnn, make.attention, lambda: make.recurrent("LSTM", 4)])
def test_sound_models_load_unchanged(tmp_path: Path, make_model: Callable[[], ModelProto]) -> None:
    """Checking does not change what is returned."""
    model = make_model()
    assert load_checked(_save(tmp_path, model)) == model


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "no graph"),
        (b"\x00\x01\x02", "damaged or cut off"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "HTML"),
        (b"PK\x03\x04rest of a zip archive", "zip archive"),
        (b"\x80\x02cmodule\n", "pickle"),
        (make.mlp().SerializeToString()[:-40], "damaged or cut off"),
        (make.mlp().SerializeToString().replace(b"Relu", b"Re\xff\xfe"), "not valid UTF-8"),
    ],
)
def test_other_files_are_named(tmp_path: Path, data: bytes, match: str) -> None:
    """Files that commonly carry the wrong suffix are recognised, damaged ones are called that."""
    _refused(_save(tmp_path, data), match)


def test_size_limit_before_parsing(tmp_path: Path) -> None:
    """The size is checked first."""
    _refused(_save(tmp_path, b"x" * 2000), "more than 1000", OnnxLimits(file_bytes=1000))


def test_the_parsed_bytes_have_the_given_hash(tmp_path: Path) -> None:
    """A file that was exchanged after it was hashed is refused."""
    path = _save(tmp_path, make.mlp())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    load_checked(path, sha256=digest)
    with pytest.raises(ModelFileError, match="changed while"):
        load_checked(path, sha256="0" * 64)


def _mutated(change: Callable[[ModelProto], object]) -> ModelProto:
    model = make.mlp()
    change(model)
    return model


def _clear_nodes(model: ModelProto) -> None:
    del model.graph.node[:]


def _clear_inputs(model: ModelProto) -> None:
    del model.graph.input[:]


def _custom(model: ModelProto) -> None:
    model.graph.node[1].domain, model.graph.node[1].op_type = "evil\x1b[31m", "Steal"
    model.opset_import.append(helper.make_opsetid("evil\x1b[31m", 1))


def _sequence_output(model: ModelProto) -> None:
    model.graph.output[0].type.CopyFrom(
        helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    )


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (_clear_nodes, "empty graph"),
        (_clear_inputs, "no inputs"),
        (lambda model: setattr(model, "ir_version", 99), "format version 99"),
        (lambda model: setattr(model.opset_import[0], "version", 99), "operator set 99"),
        (lambda model: setattr(model.graph.node[0], "op_type", "Nope"), "No Op registered for Nope"),
        (lambda model: model.graph.node[0].input.__setitem__(0, "nowhere"), "topologically sorted"),
        (lambda model: model.graph.initializer[0].dims.__setitem__(0, 1 << 40), "more than 4294967296"),
        (lambda model: model.graph.initializer[0].dims.__setitem__(0, -1), "negative dimension"),
        (lambda model: model.graph.initializer[0].dims.__setitem__(0, 64), "holds other data"),
        (lambda model: model.graph.initializer[0].dims.extend([1 << 62, 1 << 62]), "more than 4294967296"),
        (lambda model: setattr(model.graph.initializer[0], "data_type", 99), "no valid element type"),
        (lambda model: setattr(model.graph.input[0].type.tensor_type, "elem_type", 14), "Triton can carry"),
        (lambda model: setattr(model.graph.output[0], "name", "x"), "share a name"),
        (_sequence_output, "Triton can carry"),
        (lambda model: model.graph.output[0].type.tensor_type.ClearField("shape"), "'y' has no shape"),
    ],
)
def test_damaged_and_hostile_models(tmp_path: Path, change: Callable[[ModelProto], object], match: str) -> None:
    """Each defect is found and named before anything large is made of it."""
    _refused(_save(tmp_path, _mutated(change)), match)


@pytest.mark.parametrize(("size", "match"), [(-5, "has a negative dimension"), (2**40, "would have")])
def test_sizes_that_no_request_can_have(tmp_path: Path, size: int, match: str) -> None:
    """A negative or an absurd dimension of an input is refused from its declaration."""
    values = [make.value("x", ["b", size])], [make.value("y", ["b", size])]
    _refused(_save(tmp_path, make.model([helper.make_node("Relu", ["x"], ["y"])], *values)), match)


def test_custom_operators_are_named_and_can_be_allowed(tmp_path: Path) -> None:
    """The error names domain, operator and option, without the control characters in the name."""
    path = _save(tmp_path, _mutated(_custom))
    error = _refused(path, r"custom operators: 'evil\\x1b\[31m::Steal'")
    assert "--allow-domain" in error.hint
    assert "custom op library" in error.hint
    assert "\x1b" not in str(error)
    load_checked(path, OnnxLimits(domains=frozenset({"evil\x1b[31m"})))


def bomb(operator: str) -> ModelProto:
    """A model of a few hundred bytes that makes terabytes."""
    inputs = {"Range": ["zero", "many", "one"], "ConstantOfShape": ["shape"]}.get(operator, ["one4", "shape"])
    nodes = [
        helper.make_node(operator, inputs, ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    weights = [
        make.constant("shape", [1 << 20, 1 << 20]),
        make.constant("one4", [[1.0]], np.float32),
        *(make.constant(name, number, np.float32) for name, number in {"zero": 0, "many": 1e12, "one": 1}.items()),
    ]
    return make.model(nodes, [make.value("x", ["b", 4])], [make.value("y", ["b", 4])], weights)


@pytest.mark.parametrize("operator", ["ConstantOfShape", "Expand", "Tile", "Range"])
def test_bombs(tmp_path: Path, operator: str) -> None:
    """A constant that grows when the model runs is found from its shape."""
    _refused(_save(tmp_path, bomb(operator)), "'huge' would be a tensor of")


def test_limits_of_nodes_depth_and_functions(tmp_path: Path) -> None:
    """Many operators, deep subgraphs, and functions that expand exponentially are refused."""
    _refused(_save(tmp_path, make.mlp()), "more than 3 operators", OnnxLimits(nodes=3))
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["o"])], "g", [], [make.value("o", ["b", 4])])
    for _ in range(20):
        node = helper.make_node("If", ["c"], ["o"], then_branch=graph, else_branch=graph)
        graph = helper.make_graph([node], "g", [], [make.value("o", ["b", 4])])
        if len(graph.SerializeToString()) > 1_000_000:
            break
    model = make.model(
        graph.node, [make.value("x", ["b", 4]), make.value("c", [], TensorProto.BOOL)], [make.value("o", ["b", 4])]
    )
    _refused(_save(tmp_path, model), "nests subgraphs", OnnxLimits(depth=8))


def function(index: int, last: int) -> object:
    """A function of ten nodes, each of which calls the next function."""
    called, domain = (f"f{index + 1}", "local") if index < last else ("Relu", "")
    names = ["a", *(f"t{step}" for step in range(9)), "b"]
    nodes = [helper.make_node(called, [names[i]], [names[i + 1]], domain=domain) for i in range(10)]
    opsets = [helper.make_opsetid("", make.OPSET), helper.make_opsetid("local", 1)]
    return helper.make_function("local", f"f{index}", ["a"], ["b"], nodes, opsets)


def _with_functions(last: int) -> ModelProto:
    values = [make.value("x", ["b", 4])], [make.value("y", ["b", 4])]
    model = make.model([helper.make_node("f0", ["x"], ["y"], domain="local")], *values, domains=["local"])
    model.functions.extend(function(index, last) for index in range(last + 1))
    return model


def test_local_functions(tmp_path: Path) -> None:
    """A few are fine and need no permission; a billion laughs and a recursion are refused."""
    load_checked(_save(tmp_path, _with_functions(1)))
    _refused(_save(tmp_path, _with_functions(8)), "once its local functions are expanded")
    model = _with_functions(0)
    model.functions[0].node[0].op_type, model.functions[0].node[0].domain = "f0", "local"
    _refused(_save(tmp_path, model), "calls itself")


def _with_external_data(location: str, length: int = 2048, offset: str = "0") -> ModelProto:
    model = make.mlp()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in {"location": location, "offset": offset, "length": str(length)}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, text
    return model


def test_external_data_is_loaded_and_hashed(tmp_path: Path) -> None:
    """Data beside the model gives the same model; the content's hash covers it."""
    data = make.mlp().graph.initializer[0].raw_data
    (tmp_path / "weights.bin").write_bytes(data)
    path = _save(tmp_path, _with_external_data("weights.bin"))
    assert load_checked(path).graph.initializer[0].raw_data == data
    bare = load_checked(path, load_external=False)
    files = external_files(path, bare)
    before = content_hash(path, files)
    (tmp_path / "weights.bin").write_bytes(data[::-1])
    assert content_hash(path, files)[0] != before[0]
    assert before[1] == path.stat().st_size + 2048


@pytest.mark.parametrize(
    ("location", "match"),
    [
        ("../weights.bin", "outside its own directory"),
        ("/etc/hostname", "outside its own directory"),
        ("sub/../../weights.bin", "outside its own directory"),
        ("", "outside its own directory"),
        ("link.bin", "symbolic link"),
        ("linked/weights.bin", "symbolic link"),
        ("missing.bin", "is missing"),
        ("short.bin", "does not hold them"),
    ],
)
def test_external_data_stays_in_the_directory(tmp_path: Path, location: str, match: str) -> None:
    """Nothing outside the model's directory is read, by path or by link, and short data is refused."""
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "weights.bin").write_bytes(b"\0" * 2048)
    (inside / "short.bin").write_bytes(b"\0" * 2047)
    (inside / "link.bin").symlink_to(tmp_path / "weights.bin")
    (inside / "linked").symlink_to(tmp_path)
    _refused(_save(inside, _with_external_data(location)), match)


@pytest.mark.parametrize("offset", ["-1", "1", "x", "99999999999999999999"])
def test_external_data_offsets(tmp_path: Path, offset: str) -> None:
    """An offset that is no number or leads past the end is refused."""
    (tmp_path / "weights.bin").write_bytes(b"\0" * 2048)
    _refused(_save(tmp_path, _with_external_data("weights.bin", offset=offset)), "offset")


def test_external_data_size_limit(tmp_path: Path) -> None:
    """The sum of all external files is limited."""
    (tmp_path / "weights.bin").write_bytes(b"\0" * 2048)
    _refused(_save(tmp_path, _with_external_data("weights.bin")), "more than 100", OnnxLimits(external_bytes=100))
