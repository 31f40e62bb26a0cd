"""``triton-router add`` on real small models, through the command line."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from triton_router.config.router_config import load_router_config
from triton_router.repository.model_config import read

pytestmark = pytest.mark.build

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Answer:
    """What one command printed."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.out)

    def target(self, suffix: str) -> dict[str, Any]:
        return next(row for row in self.json["targets"] if row["target"] == suffix)


def _add(model: object, repository: Path, *arguments: str, name: str = "m") -> Answer:
    command = _command(model, repository, *arguments, name=name)
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=280, check=False)
    return Answer(done.returncode, done.stdout, done.stderr)


def _command(model: object, repository: Path, *arguments: str, name: str = "m") -> list[str]:
    command = [sys.executable, "-m", "triton_router.cli.main", "add", str(model), "--name", name]
    return [*command, "--repository", str(repository), *arguments]


def _files(root: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(root)): (hashlib.sha256(path.read_bytes()).digest(), path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }


def _write(writer: str, path: Path, **options: Any) -> Path:
    # In a process of its own: onnx and torch warn at import, which these tests take for errors.
    code = f"import sys; sys.path.insert(0, {str(HERE)!r}); import added_models, pathlib; "
    code += f"added_models.{writer}(pathlib.Path({str(path)!r}), **{options!r})"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return path


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answer]:
    """A repository with a text encoder in three variants, and what was said about it."""
    repository = tmp_path_factory.mktemp("encoder") / "models"
    return repository, _add("added_models:encoder", repository, "--targets", "onnx-cpu,onnx-int8-cpu,pt2-cpu", "--json")


def test_a_torch_model_becomes_three_targets_and_a_router(encoder: tuple[Path, Answer]) -> None:
    """Three target models, the routed model that names them, and nothing beside the repository."""
    repository, answer = encoder
    assert answer.status == 0, answer.err
    assert {path.name for path in repository.iterdir()} == {"m", "m-onnx-cpu", "m-onnx-int8-cpu", "m-pt2-cpu"}
    assert [path.name for path in repository.parent.iterdir()] == ["models"]
    settings = load_router_config(repository / "m" / "router.yaml")
    assert [target.model for target in settings.targets] == ["m-onnx-cpu", "m-onnx-int8-cpu", "m-pt2-cpu"]
    assert all(len(target.measured_latency) >= 3 for target in settings.targets)


def test_all_targets_take_the_same_requests(encoder: tuple[Path, Answer]) -> None:
    """Names, types and shapes in all four configurations agree, batch up to the model's own bound."""
    repository, _ = encoder
    configs = [read(repository / name) for name in ("m", "m-onnx-cpu", "m-onnx-int8-cpu", "m-pt2-cpu")]
    for config in configs:
        assert [tensor.name for tensor in config.input] == ["ids", "mask"]
        assert config.max_batch_size == 16
        assert (config.input, config.output) == (configs[0].input, configs[0].output)


def test_dynamic_int8_is_not_merged_by_triton(encoder: tuple[Path, Answer]) -> None:
    """Its scales span the batch: strangers' requests stay apart, while fp32 is batched dynamically."""
    repository, answer = encoder
    verdicts = {row["target"]: row["checks"]["batch"] for row in answer.json["targets"] if row["checks"]}
    assert verdicts == {"onnx-cpu": "independent", "onnx-int8-cpu": "quantisation", "pt2-cpu": "independent"}
    assert read(repository / "m-onnx-cpu").HasField("dynamic_batching")
    assert read(repository / "m-pt2-cpu").HasField("dynamic_batching")
    assert not read(repository / "m-onnx-int8-cpu").HasField("dynamic_batching")
    independent = [t.batch_independent for t in load_router_config(repository / "m" / "router.yaml").targets]
    assert independent == [True, False, True]


def test_the_manifest_vouches_for_the_program(encoder: tuple[Path, Answer]) -> None:
    """The torch backend finds the .pt2's SHA-256 where it looks for it."""
    repository, _ = encoder
    manifest = json.loads((repository / "m-pt2-cpu" / "manifest.json").read_text())
    digest = hashlib.sha256((repository / "m-pt2-cpu" / "1" / "model.pt2").read_bytes()).hexdigest()
    assert manifest["versions"]["1"]["files"]["model.pt2"]["sha256"] == digest
    rows = json.loads((repository / "m" / "manifest.json").read_text())["versions"]["1"]["targets"]
    assert len(rows) == 9
    assert all(row["reason"] for row in rows.values())


def test_a_factory_added_again_changes_nothing(encoder: tuple[Path, Answer]) -> None:
    """Every file keeps its bytes and its time."""
    repository, _ = encoder
    before = _files(repository)
    answer = _add("added_models:encoder", repository, "--targets", "pt2-cpu,onnx-int8-cpu,onnx-cpu")
    assert (answer.status, answer.out) == (0, "m version 1 is already up to date\n"), answer.err
    assert _files(repository) == before


def test_a_branch_on_the_batch_forbids_batching(tmp_path: Path) -> None:
    """torch.cond over the batch: no batching at all, the first dimension is part of the shape."""
    answer = _add("added_models:branching", tmp_path / "r", "--targets", "onnx-cpu,pt2-cpu", "--json")
    assert answer.status == 0, answer.err
    assert (answer.json["batch"], answer.json["max_batch_size"]) == ("dependent", 0)
    for name in ("m", "m-onnx-cpu", "m-pt2-cpu"):
        config = read(tmp_path / "r" / name)
        assert config.max_batch_size == 0
        assert list(config.input[0].dims) == [-1, 8]
        assert not config.HasField("dynamic_batching")


def test_a_recurrent_model_with_named_outputs(tmp_path: Path) -> None:
    """The keys of the returned dict are the output names of every variant, in one order."""
    answer = _add("added_models:lstm", tmp_path / "r", "--targets", "onnx-cpu,pt2-cpu", "--json")
    assert answer.status == 0, answer.err
    assert answer.target("onnx-cpu")["status"] == answer.target("pt2-cpu")["status"] == "served"
    for name in ("m-onnx-cpu", "m-pt2-cpu"):
        assert [tensor.name for tensor in read(tmp_path / "r" / name).output] == ["states", "last"]


def test_a_model_that_takes_any_keywords(tmp_path: Path) -> None:
    """One export serves every variant: names of inputs as given, and a result of whatever class taken apart."""
    answer = _add("added_models:catch_all", tmp_path / "r", "--targets", "onnx-cpu,pt2-cpu", "--json")
    assert answer.status == 0, answer.err
    assert answer.json["characteristics"]["input_shapes"] == {"right": [-1, 4], "left": [-1, 8]}
    for name in ("m-onnx-cpu", "m-pt2-cpu"):
        assert [tensor.name for tensor in read(tmp_path / "r" / name).input] == ["right", "left"]
        assert [tensor.name for tensor in read(tmp_path / "r" / name).output] == ["score", "twice"]


def test_versions_of_an_onnx_model(tmp_path: Path) -> None:
    """The same file twice is up to date, another file is version 2, other inputs or outputs are refused."""
    repository = tmp_path / "r"
    first, second = _write("write_mlp", tmp_path / "1.onnx"), _write("write_mlp", tmp_path / "2.onnx", seed=1)
    other = _write("write_mlp", tmp_path / "3.onnx", outputs=5)
    only = ("--targets", "onnx-cpu")
    assert _add(first, repository, *only).status == 0
    before = _files(repository)
    assert "already up to date" in _add(first, repository, *only).out
    assert _files(repository) == before
    installed = repository / "m-onnx-cpu/1/model.onnx"
    installed.write_bytes(b"changed")
    damaged = _add(first, repository, *only)
    assert (damaged.status, "is not the file that was checked" in damaged.err) == (1, True)
    installed.write_bytes(first.read_bytes())
    assert _add(second, repository, *only).status == 0
    assert sorted(path.name for path in (repository / "m-onnx-cpu").iterdir() if path.is_dir()) == ["1", "2"]
    assert (repository / "m-onnx-cpu/1/model.onnx").read_bytes() == first.read_bytes()
    assert (repository / "m-onnx-cpu/2/model.onnx").read_bytes() == second.read_bytes()
    assert (repository / "m/2").is_dir()
    before = _files(repository)
    refused = _add(other, repository, *only)
    assert refused.status == 1
    assert "outputs are y FP32[-1, 5]; version 1 has y FP32[-1, 4]" in refused.err
    taken = _add(_write("write_mlp", tmp_path / "4.onnx", seed=2), repository, *only, "--version", "2")
    assert (taken.status, "version 2 exists" in taken.err) == (1, True)
    assert _files(repository) == before


@pytest.mark.parametrize(
    ("kind", "shape"), [("STRING", ["b", 1]), ("FLOAT", []), ("BOOL", []), ("FLOAT", ["b", 0]), ("DOUBLE", [2, 3])]
)
def test_unusual_tensors(tmp_path: Path, kind: str, shape: list[int | str]) -> None:
    """Text, scalars, tensors without elements, double precision and fixed batches are added like others."""
    path = _write("write_small", tmp_path / "small.onnx", kind=kind, shape=shape)
    answer = _add(path, tmp_path / "r", "--targets", "onnx-cpu", "--json")
    assert answer.status == 0, answer.err
    assert answer.target("onnx-cpu")["status"] == "served"
    dims = [-1 if isinstance(size, str) else size for size in shape]
    skipped = 1 if answer.json["max_batch_size"] else 0
    assert list(read(tmp_path / "r" / "m-onnx-cpu").input[0].dims) == dims[skipped:]


def test_convolutions_are_quantised_with_calibration(tmp_path: Path) -> None:
    """A static int8 model does not depend on its batch, so Triton may merge for it."""
    path = _write("write_cnn", tmp_path / "cnn.onnx")
    answer = _add(path, tmp_path / "r", "--targets", "onnx-cpu,onnx-int8-cpu", "--json")
    assert answer.status == 0, answer.err
    row = answer.target("onnx-int8-cpu")
    assert (row["quantisation"], row["status"], row["checks"]["batch"]) == ("static", "served", "independent")
    assert row["checks"]["cosine"] > 0.99


def test_a_variant_that_fails_its_check_is_left_out(tmp_path: Path) -> None:
    """int8 ruins this model: it is not installed, the others are, and the output says so."""
    path = _write("write_steep", tmp_path / "steep.onnx")
    answer = _add(path, tmp_path / "r", "--targets", "onnx-cpu,onnx-int8-cpu", "--json")
    assert answer.status == 0, answer.err
    assert answer.target("onnx-int8-cpu")["status"] == "failed"
    assert "its check failed: cosine similarity" in answer.target("onnx-int8-cpu")["reason"]
    assert {path.name for path in (tmp_path / "r").iterdir()} == {"m", "m-onnx-cpu"}
    assert [target.name for target in load_router_config(tmp_path / "r/m/router.yaml").targets] == ["onnx-cpu"]


def test_nothing_is_installed_when_no_target_passes(tmp_path: Path) -> None:
    """If the only target fails, the command fails, and no repository appears."""
    path = _write("write_steep", tmp_path / "steep.onnx")
    answer = _add(path, tmp_path / "r", "--targets", "onnx-int8-cpu")
    assert answer.status == 1
    assert "no target can be served: onnx-int8-cpu: its check failed" in answer.err
    assert [path.name for path in tmp_path.iterdir()] == ["steep.onnx"]


def test_a_program_needs_its_digest(tmp_path: Path) -> None:
    """A .pt2 runs code when loaded: without a SHA-256 it is refused unread, with it served."""
    path = _write("write_program", tmp_path / "linear.pt2")
    refused = _add(path, tmp_path / "r", "--targets", "pt2-cpu")
    assert refused.status == 1
    assert "--sha256" in refused.err
    assert not (tmp_path / "r").exists()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    answer = _add(path, tmp_path / "r", "--targets", "pt2-cpu", "--sha256", digest)
    assert answer.status == 0, answer.err
    assert (tmp_path / "r/m-pt2-cpu/1/model.pt2").read_bytes() == path.read_bytes()
    assert read(tmp_path / "r" / "m-pt2-cpu").max_batch_size == 32


@pytest.mark.parametrize("content", [b"not a model", b"", b"\x08\x0a\x12\xff\xff\xff\xff\x0f"])
def test_a_hostile_file_leaves_nothing(tmp_path: Path, content: bytes) -> None:
    """A file that is no model is refused with a hint; neither repository nor staging remains."""
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    answer = _add(path, tmp_path / "r")
    assert answer.status == 1
    assert "hint:" in answer.err
    assert "Traceback" not in answer.err
    assert [path.name for path in tmp_path.iterdir()] == ["bad.onnx"]


def test_a_disk_that_takes_nothing(tmp_path: Path) -> None:
    """When this process itself cannot write, that is said, and nothing is left."""
    path = _write("write_mlp", tmp_path / "mlp.onnx")
    command = ["bash", "-c", 'ulimit -f 0; exec "$@"', "limited", *_command(path, tmp_path / "r")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 1
    assert "error: the disk cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mlp.onnx"]


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    """The plan is printed with a row for every target; no file and no directory appears."""
    path = _write("write_mlp", tmp_path / "mlp.onnx")
    answer = _add(path, tmp_path / "r", "--dry-run", "--json")
    assert answer.status == 0, answer.err
    assert len(answer.json["plan"]) == 9
    assert answer.json["characteristics"]["parameter_count"] == 8 * 32 + 32 * 4
    assert [path.name for path in tmp_path.iterdir()] == ["mlp.onnx"]


def test_another_models_directory_is_not_touched(tmp_path: Path) -> None:
    """A directory of the wanted name without our manifest stops the command before anything is built."""
    path = _write("write_mlp", tmp_path / "mlp.onnx")
    theirs = tmp_path / "r" / "m-onnx-cpu" / "config.pbtxt"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("theirs")
    answer = _add(path, tmp_path / "r", "--targets", "onnx-cpu")
    assert answer.status == 1
    assert "was not made by triton-router" in answer.err
    assert [path for path in (tmp_path / "r").rglob("*") if path.is_file()] == [theirs]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_addition_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM while a variant is built: status 130, existing models to the byte, no staging, no child."""
    repository = tmp_path / "r"
    first, second = _write("write_mlp", tmp_path / "1.onnx"), _write("write_mlp", tmp_path / "2.onnx", seed=1)
    assert _add(first, repository, "--targets", "onnx-cpu").status == 0
    before = _files(repository)
    command = _command(second, repository, "--targets", "onnx-cpu,onnx-int8-cpu")
    with subprocess.Popen(command, cwd=HERE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("parent:"):
                process.send_signal(number)
                break
        assert process.wait(120) == 130
    assert _files(repository) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.onnx", "2.onnx", "r"]
