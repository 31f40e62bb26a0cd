"""``triton-router models`` against a real server: every action, and every refusal a user can meet."""

from __future__ import annotations

import json
import shutil
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.http as triton_http

from triton_router.cli.main import main
from triton_router.errors import NotFoundError
from triton_router.repository.control import ModelControl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from triton_router.testing.triton_server import TritonServer

pytestmark = [pytest.mark.triton, pytest.mark.beside]

SHIPPED = Path(__file__).parents[2] / "model_repository"

SHIPPED_MODELS = {path.name for path in SHIPPED.iterdir()}

CONFIG = """\
backend: "python"
input { name: "x" data_type: TYPE_FP32 dims: [ -1 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ -1 ] }
instance_group { kind: KIND_CPU count: 1 }
"""
ANSWERS_ITS_VERSION = """\
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.answer = np.array([int(args["model_version"])], dtype=np.float32)

    def execute(self, requests):
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", self.answer)]) for _ in requests]
"""


def _add_versions(repository: Path, name: str, *versions: int) -> None:
    for version in versions:
        directory = repository / name / str(version)
        directory.mkdir(parents=True)
        (directory / "model.py").write_text(ANSWERS_ITS_VERSION)
    (repository / name / "config.pbtxt").write_text(CONFIG)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped repository, models with several versions, broken ones, and a router with a broken target."""
    root = tmp_path_factory.mktemp("control") / "models"
    shutil.copytree(SHIPPED, root, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("numbers", "pinned", "cold", "edited", "breaking"):
        _add_versions(root, name, 1, 2, 3)
    _add_versions(root, "broken", 1)
    (root / "broken" / "1" / "model.py").write_text('raise RuntimeError("deliberately broken")\n')
    shutil.copytree(root / "example", root / "half")
    (root / "half" / "router.yaml").write_text(
        "targets:\n  - {name: bad, model: broken}\n  - {name: good, model: example-fast}\n"
    )
    (root / "invalid" / "1").mkdir(parents=True)
    (root / "invalid" / "config.pbtxt").write_text('backend: "python" colour: 3\n')
    return root


@pytest.fixture(scope="module")
def server(start_triton: Callable[..., TritonServer], repository: Path) -> TritonServer:
    """A server in explicit mode: nothing is loaded at first."""
    return start_triton(repository, control_mode="explicit")


class Models:
    """Runs ``triton-router models`` in this process and keeps what it printed."""

    def __init__(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.url, self._capsys, self.err = url, capsys, ""

    def __call__(self, *args: str, code: int = 0) -> str:
        assert main(["models", *args, "--url", self.url]) == code
        captured = self._capsys.readouterr()
        self.err = captured.err
        return captured.out

    def ready(self, model: str) -> list[int]:
        """Versions of a model that serve."""
        rows = json.loads(self("list", "--json"))
        return [row["version"] for row in rows if row["model"] == model and row["state"] == "READY"]

    def serving(self) -> set[str]:
        """Models of the shipped repository that serve."""
        rows = json.loads(self("list", "--json"))
        return {row["model"] for row in rows if row["state"] == "READY" and row["model"] in SHIPPED_MODELS}


@pytest.fixture
def models(server: TritonServer, capsys: pytest.CaptureFixture[str]) -> Iterator[Models]:
    """The command, connected; afterwards no model of the shipped repository is loaded."""
    command = Models(f"http://{server.http_url}", capsys)
    yield command
    with ModelControl(command.url) as control:
        control.unload(*{row.model for row in control.index() if row.ready and row.model in SHIPPED_MODELS})


def _answer(server: TritonServer, model: str, version: str = "") -> float:
    tensor = triton_http.InferInput("x", [1], "FP32")
    tensor.set_data_from_numpy(np.zeros(1, np.float32))
    with triton_http.InferenceServerClient(server.http_url) as client:
        return float(client.infer(model, [tensor], model_version=version).as_numpy("y")[0])


def _post(url: str) -> int:
    with urllib.request.urlopen(urllib.request.Request(url, method="POST")) as response:
        return response.status


def test_the_seeds_plain_calls_work_as_written(server: TritonServer, models: Models) -> None:
    """``curl -X POST .../load`` and ``.../unload`` without a body load and unload."""
    base = f"http://{server.http_url}/v2/repository/models/numbers"
    assert _post(f"{base}/load") == 200
    assert models.ready("numbers") == [3]
    assert _post(f"{base}/unload") == 200
    assert models.ready("numbers") == []


def test_list_says_what_each_model_is(models: Models, repository: Path) -> None:
    """With the repository at hand, the list tells routers, targets and ensembles apart, and what is unreadable."""
    models("load", "example", "--repository", str(repository))
    table = models("list", "--repository", str(repository))
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in table.splitlines()}
    assert rows["MODEL"] == "VERSION STATE REASON ROLE"
    assert rows["example"] == "1 READY routes to example-fast, example-batch"
    assert rows["example-batch"] == "1 READY target of example; target of router"
    assert rows["example-pipeline"] == "- NOT_LOADED ensemble of example-center, example"
    assert rows["invalid"].endswith("unreadable")
    assert "is not a valid Triton model configuration" in rows["invalid"]


def test_a_routed_model_is_loaded_after_its_targets(models: Models, repository: Path) -> None:
    """``load`` of a routed model makes its targets ready first, then itself."""
    loaded = json.loads(models("load", "example", "--repository", str(repository), "--json"))["loaded"]
    assert [entry["model"] for entry in loaded] == ["example-fast", "example-batch", "example"]
    assert models.serving() == {"example", "example-batch", "example-fast"}


def test_without_the_repository_a_hint_tells_how_targets_are_found(models: Models) -> None:
    """The targets of a routed model cannot be known without --repository; the command says so."""
    models("load", "example")
    assert "its targets are loaded first when --repository DIR is given" in models.err


def test_targets_are_unloaded_unless_another_router_needs_them(models: Models, repository: Path) -> None:
    """Two routers share their targets: these go with the second router, not with the first."""
    where = ("--repository", str(repository))
    models("load", "example", *where)
    models("load", "router", *where)
    assert json.loads(models("unload", "example", "--targets", *where, "--json")) == {"unloaded": ["example"]}
    assert models.serving() == {"router", "example-fast", "example-batch"}
    models("unload", "router", "--targets", *where)
    assert models.serving() == set()


def test_unload_with_targets_needs_the_repository(models: Models) -> None:
    """--targets without --repository is refused with what to add."""
    models("unload", "example", "--targets", code=1)
    assert "hint: add --repository DIR" in models.err


def test_an_ensemble_brings_and_takes_its_steps(models: Models, repository: Path) -> None:
    """Loading an ensemble loads the targets behind its routed step too; unloading takes its own steps along."""
    where = ("--repository", str(repository))
    models("load", "example-pipeline", *where)
    everything = {"example-pipeline", "example-center", "example", "example-fast", "example-batch"}
    assert models.serving() == everything
    assert (
        set(json.loads(models("unload", "example-pipeline", "--targets", *where, "--json"))["unloaded"]) == everything
    )
    assert models.serving() == set()


def test_unloading_a_step_names_the_ensemble_that_stops(models: Models, repository: Path) -> None:
    """Triton stops an ensemble whose step is unloaded; the command says which."""
    models("load", "example-pipeline", "--repository", str(repository))
    gone = json.loads(models("unload", "example-center", "--json"))["unloaded"]
    assert set(gone) == {"example-center", "example-pipeline"}


def test_one_version_is_served_and_survives_a_plain_load(server: TritonServer, models: Models) -> None:
    """``--version 2`` serves version 2 alone, also after the model is loaded again without a version."""
    models("load", "pinned")
    assert models.ready("pinned") == [3]
    models("load", "pinned", "--version", "2")
    assert models.ready("pinned") == [2]
    assert _answer(server, "pinned") == 2
    models("load", "pinned")
    assert models.err == ""
    assert models.ready("pinned") == [2]


def test_a_version_of_a_model_that_is_not_loaded(server: TritonServer, models: Models) -> None:
    """The model is loaded first, then its version is chosen."""
    models("load", "cold", "--version", "1")
    assert models.ready("cold") == [1]
    assert _answer(server, "cold") == 1


def test_a_version_that_is_not_there_leaves_a_model_unloaded(models: Models) -> None:
    """A model that was not loaded is not loaded afterwards either, and the refusal says so."""
    models("unload", "cold")
    models("load", "cold", "--version", "9", code=1)
    assert "has no version 9" in models.err
    assert "it is not loaded, as before" in models.err
    assert models.ready("cold") == []


def test_several_versions_answer_under_their_own_address(server: TritonServer, models: Models) -> None:
    """``--version 1,3`` serves both: what version-based canaries need."""
    models("load", "numbers", "--version", "1,3")
    assert models.ready("numbers") == [1, 3]
    assert [_answer(server, "numbers", version) for version in ("1", "3", "")] == [1, 3, 3]
    models("load", "numbers", "--version", "all")
    assert models.ready("numbers") == [1, 2, 3]
    models("load", "numbers", "--version", "latest")
    assert models.ready("numbers") == [3]


@pytest.mark.parametrize("version", ["9", "1,9"])
def test_a_version_that_is_not_there_changes_nothing(models: Models, repository: Path, version: str) -> None:
    """The refusal names the version and what is served; what was served stays so."""
    models("load", "numbers", "--version", "2")
    models("load", "numbers", "--version", version, code=1)
    assert "has no version 9" in models.err
    assert "it still serves version 2" in models.err
    models("load", "numbers", "--version", version, "--repository", str(repository), code=1)
    assert "it has: 1, 2, 3" in models.err
    assert models.ready("numbers") == [2]


def test_an_override_that_ends_is_announced(models: Models, repository: Path) -> None:
    """When a model's files change, Triton goes by its config.pbtxt again; the command says so."""
    models("load", "edited", "--version", "1")
    (repository / "edited" / "2" / "model.py").write_text(ANSWERS_ITS_VERSION + "# edited\n")
    models("load", "edited")
    assert "note: edited served 1 by an override" in models.err
    assert models.ready("edited") == [3]


def test_versions_lists_what_is_served_and_what_lies_on_disk(models: Models, repository: Path) -> None:
    """Versions that the server has not touched come from the repository."""
    models("load", "numbers", "--version", "2")
    rows = json.loads(models("versions", "numbers", "--repository", str(repository), "--json"))["versions"]
    states = {row["version"]: row["state"] for row in rows}
    assert set(states) == {1, 2, 3}
    assert states[2] == "READY"
    assert states[3] != "READY"


def test_a_failed_load_keeps_the_old_version_and_gives_the_reason(
    server: TritonServer, models: Models, repository: Path
) -> None:
    """A new version that cannot be loaded is refused with Triton's reason in one line; the old one answers."""
    models("load", "breaking")
    (repository / "breaking" / "4").mkdir()
    (repository / "breaking" / "4" / "model.py").write_text('raise RuntimeError("no weights")\n')
    models("load", "breaking", code=1)
    assert "error: the server could not load model 'breaking': version 4: RuntimeError: no weights (at " in models.err
    assert "importlib" not in models.err
    assert _answer(server, "breaking") == 3


def test_a_router_serves_without_a_broken_target(models: Models, repository: Path) -> None:
    """The targets that load are loaded, the router too; the broken one is named and the exit code is 1."""
    models("load", "half", "--repository", str(repository), code=1)
    assert "deliberately broken" in models.err
    assert "1 of the targets of 'half' could not be loaded" in models.err
    assert models.serving() == {"example-fast"}
    assert models.ready("half") == [1]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("load", "absent"), "found no usable model 'absent'"),
        (("load", "invalid"), "found no usable model 'invalid'"),
        (("unload", "absent"), "has no model 'absent'"),
        (("versions", "absent"), "has no model 'absent'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_an_unknown_model_is_an_error(models: Models, args: tuple[str, ...], says: str) -> None:
    """Also for unload, to which Triton itself answers 200."""
    models(*args, code=1)
    assert says in models.err


def test_a_server_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    """A refused connection names the address and how to start a server."""
    command = Models("http://127.0.0.1:9", capsys)
    command("list", code=1)
    assert command.err.startswith("error: the server at http://127.0.0.1:9 cannot be reached: Connection refused\n")


def test_the_wrong_port_of_the_right_server(server: TritonServer, capsys: pytest.CaptureFixture[str]) -> None:
    """GRPC's and metrics' ports answer something else; the hint says which port is meant."""
    for port in (server.grpc_port, server.metrics_port):
        command = Models(f"http://127.0.0.1:{port}", capsys)
        command("list", code=1)
        assert "error: " in command.err
        assert "8000" in command.err


def test_a_server_outside_explicit_mode(
    start_triton: Callable[..., TritonServer], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server that loads by itself refuses; the hint gives the flag. Reading works all the same."""
    _add_versions(tmp_path, "numbers", 1)
    automatic = start_triton(tmp_path, control_mode="none")
    command = Models(f"http://{automatic.http_url}", capsys)
    assert command.ready("numbers") == [1]
    for action in ("load", "unload"):
        command(action, "numbers", code=1)
        assert "explicit model load / unload is not allowed" in command.err
        assert "hint: start it with: triton-router serve --repository DIR --model-control-mode explicit" in command.err


def test_a_server_that_restricts_this_api(
    start_triton: Callable[..., TritonServer], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the header the command says which one is missing; with it, it works."""
    _add_versions(tmp_path, "numbers", 1)
    guarded = start_triton(
        tmp_path, control_mode="explicit", extra=("--http-restricted-api=model-repository:key=secret",)
    )
    command = Models(f"http://{guarded.http_url}", capsys)
    command("load", "numbers", code=1)
    assert "expecting header 'key'" in command.err
    loaded: dict[str, Any] = json.loads(command("load", "numbers", "--header", "key:secret", "--json"))
    assert loaded == {"loaded": [{"model": "numbers", "versions": [1]}]}


def test_a_program_can_ask_for_versions(server: TritonServer, models: Models) -> None:
    """The class behind the command raises where the command prints."""
    with ModelControl(models.url) as control:
        assert control.load_versions("numbers", (1, 2)) == (1, 2)
        with pytest.raises(NotFoundError, match="has no version 8"):
            control.load_versions("numbers", (8,))
        assert control.unload("numbers") == ("numbers",)
