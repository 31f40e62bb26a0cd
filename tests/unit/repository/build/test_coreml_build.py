"""Core ML packages of real models: built, read back, and held against their parents."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from triton_router.repository.build import coreml
from triton_router.repository.build.job import BuildJob, IoSpec, TensorSpec
from triton_router.repository.sandbox import Limits, run_child

IO = IoSpec(
    (TensorSpec("x", "FP32", (-1, 4), ("batch", "")),),
    (TensorSpec("y", "FP32", (-1, 2), ("batch", "")),),
    {"batch": (1, 64)},
    "batch",
)


def _job(**changes: object) -> BuildJob:
    known: dict[str, Any] = {
        "model": "m",
        "target": "coreml-ane",
        "staging": "nowhere",
        "version": 1,
        "source_kind": "pt2",
        "source": "m.pt2",
        "onnx": "",
        "program": "program.pt2",
        "references": (),
        "io": IO,
        "max_batch_size": 8,
    }
    return BuildJob(**(known | changes))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of every model in coreml_jobs.py, built in one child process."""
    root = tmp_path_factory.mktemp("coreml")
    script = Path(__file__).with_name("coreml_jobs.py")
    child = subprocess.run([sys.executable, str(script), str(root)], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr[-4000:]
    return json.loads((root / "results.json").read_text()) | {"root": str(root)}


@pytest.mark.build
@pytest.mark.parametrize("name", ["mlp", "cnn", "lstm", "encoder", "chooser", "grouped"])
def test_a_package_answers_as_its_parent_does(built: dict[str, Any], name: str) -> None:
    """Every output of the saved package is evaluated and agrees with the fp32 parent within float16."""
    checks = built[name]["checks"]
    assert checks["passed"], checks
    assert checks["detail"].startswith("verified: full")
    assert checks["batch"] == "independent"
    assert checks["max_abs_error"] < 0.01
    assert built[name]["files"] == ["model.mlpackage"]


@pytest.mark.build
def test_the_check_fails_when_weights_are_damaged(built: dict[str, Any]) -> None:
    """Zeroing 128 bytes of the saved weights is found by the check that the untouched package passes."""
    assert built["cnn"]["checks"]["passed"]
    assert not built["cnn"]["damaged"]["passed"]
    assert "differs by" in built["cnn"]["damaged"]["detail"]


@pytest.mark.build
def test_padding_that_changes_answers_fails_the_check(built: dict[str, Any]) -> None:
    """A model whose rows influence each other is called as it would be served, padded, and does not pass."""
    assert not built["coupled"]["checks"]["passed"]
    assert built["coupled"]["checks"]["batch"] == "dependent"


@pytest.mark.build
def test_a_lone_dynamic_batch_is_listed(built: dict[str, Any]) -> None:
    """The batches 1, 2, 4, 8 are enumerated, because the Neural Engine runs a range at its default only."""
    described = built["mlp"]["described"]
    assert described["inputs"]["input"]["listed"] == [[1, 16], [2, 16], [4, 16], [8, 16]]
    assert json.loads(described["metadata"])["batches"] == [1, 2, 4, 8]
    assert described["specification"] == 9  # macOS 15


@pytest.mark.build
def test_batch_and_length_are_ranges_with_the_contract_bounds(built: dict[str, Any]) -> None:
    """Padding a text would change its answer, so both dimensions take any size within the bounds."""
    described = built["encoder"]["described"]
    assert described["inputs"]["input_ids"]["ranges"] == [[1, 8], [2, 32]]
    assert json.loads(described["metadata"])["batches"] == []
    assert any("default shape only" in note for note in built["encoder"]["notes"])


@pytest.mark.build
def test_types_and_names_at_the_boundary(built: dict[str, Any]) -> None:
    """Floats stay float32, integers and booleans become int32 with a note, and names lose their dots."""
    assert built["mlp"]["described"]["outputs"] == {"y_0": "FLOAT32"}
    assert json.loads(built["mlp"]["described"]["metadata"])["outputs"] == {"y.0": "y_0"}
    chooser = built["chooser"]
    assert chooser["described"]["inputs"]["flags"]["type"] == "INT32"
    assert chooser["described"]["outputs"] == {"best": "INT32", "ok": "INT32"}
    assert "best is int32 inside the package; the serving backend casts from and to INT64" in chooser["notes"]


@pytest.mark.build
def test_the_ladder_says_which_steps_failed(built: dict[str, Any]) -> None:
    """A model that needs the full decomposition table gets it; one that needs fixed shapes is built for one row."""
    assert not any("attempt" in note for note in built["mlp"]["notes"])
    (note,) = [note for note in built["lstm"]["notes"] if "attempt" in note]
    made = "converted at attempt 2, with the full decomposition table; attempt 1, with the exported program, failed: "
    assert note.startswith(made)
    (note,) = [note for note in built["grouped"]["notes"] if "attempt" in note]
    assert note.startswith("converted at attempt 3, with one row at a time; attempt 1, with the exported program, ")
    assert json.loads(built["grouped"]["described"]["metadata"])["batches"] == [1]


@pytest.mark.build
def test_control_flow_is_not_available(built: dict[str, Any]) -> None:
    """torch.cond does not convert; the answer says so, and nothing is written."""
    assert built["cond"]["unavailable"] == "the model has control flow (torch.cond), which does not convert"
    assert list((Path(built["root"]) / "cond" / "staging").iterdir()) == []


@pytest.mark.build
def test_what_cannot_be_evaluated_is_named_and_never_called_full(built: dict[str, Any]) -> None:
    """An operator without reference arithmetic makes the check partial; if no output is left, it does not pass."""
    half, unknown = built["half"]["checks"], built["unknown"]["checks"]
    assert half["passed"]
    assert half["detail"].startswith("verified: partial")
    assert "resample" in half["detail"]
    assert not unknown["passed"]
    assert unknown["detail"].startswith("verified: none")
    assert unknown["cosine"] == 0.0
    assert unknown["detail"] in built["unknown"]["notes"]


@pytest.mark.build
def test_it_builds_within_the_limits_of_a_child_process(built: dict[str, Any], tmp_path: Path) -> None:
    """The same step runs under the sandbox that `triton-router add` uses."""
    source = Path(built["root"]) / "mlp"
    inputs = (TensorSpec("input", "FP32", (-1, 16), ("batch", "")),)
    outputs = (TensorSpec("y.0", "FP32", (-1, 4), ("batch", "")),)
    job = _job(
        staging=str(tmp_path),
        program=str(source / "program.pt2"),
        references=(str(source / "3.npz"),),
        io=IoSpec(inputs, outputs, {"batch": (1, 8)}, "batch"),
    )
    result = run_child("triton_router.repository.build.coreml:build", job.to_json(), limits=Limits())
    assert result["files"] == ["model.mlpackage"]
    assert (tmp_path / "model.mlpackage" / "Manifest.json").is_file()


def test_an_onnx_source_is_not_available_and_says_what_to_give() -> None:
    """Coremltools reads no ONNX; the reason names the alternative."""
    result = coreml.build(_job(source_kind="onnx", program="", onnx="model.onnx").to_json())
    assert "give the torch factory or .pt2 instead" in result["unavailable"]
    assert result["files"] == ()


def test_a_missing_coremltools_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra there is no error, only a reason with the command that helps."""
    monkeypatch.setitem(sys.modules, "coremltools", None)
    result = coreml.build(_job().to_json())
    assert result["unavailable"] == "coremltools is not installed; pip install 'triton-router[coreml]'"


@pytest.mark.parametrize("datatype", ["BYTES", "BF16"])
def test_a_type_that_core_ml_lacks_is_not_available(datatype: str) -> None:
    """Text and bfloat16 have no tensor in Core ML."""
    io = IoSpec((TensorSpec("x", datatype, (-1,), ("batch",)),), IO.outputs, IO.bounds, IO.batch_axis)
    assert coreml.unavailable(_job(io=io)) == f"Core ML has no tensors of type {datatype}"


def test_two_names_that_become_one_are_not_available() -> None:
    """``y.0`` and ``y_0`` would be the same feature."""
    outputs = (TensorSpec("y.0", "FP32", (-1,), ("batch",)), TensorSpec("y_0", "FP32", (-1,), ("batch",)))
    assert "same name" in coreml.unavailable(_job(io=IoSpec(IO.inputs, outputs, IO.bounds, IO.batch_axis)))


@pytest.mark.parametrize(
    ("largest", "sizes"), [(1, (1,)), (2, (1, 2)), (6, (1, 2, 4, 6)), (8, (1, 2, 4, 8)), (33, (1, 2, 4, 8, 16, 32, 33))]
)
def test_listed_batches_are_powers_of_two_up_to_the_largest(largest: int, sizes: tuple[int, ...]) -> None:
    """A full batch is never padded, and no batch is padded to more than twice its size."""
    assert coreml.batch_sizes(largest) == sizes


@pytest.mark.parametrize(("name", "feature"), [("input_ids", "input_ids"), ("y.0", "y_0"), ("0/x:0", "_0_x_0")])
def test_feature_names_are_identifiers(name: str, feature: str) -> None:
    """Core ML wants names that are identifiers; those that are stay."""
    assert coreml.feature_name(name) == feature
    assert feature.isidentifier()
