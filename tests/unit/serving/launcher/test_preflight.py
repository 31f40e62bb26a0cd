"""Each check before the start: what it refuses, what it says, and what it lets pass."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from triton_router.serving.capabilities import capabilities
from triton_router.serving.launcher.endpoints import Endpoint
from triton_router.serving.launcher.find import Installation
from triton_router.serving.launcher.models import closure, read_models
from triton_router.serving.launcher.options import ServeOptions
from triton_router.serving.launcher.preflight import cycles, flags, host, signature
from triton_router.serving.launcher.preflight import models as checks
from triton_router.serving.launcher.preflight.finding import error
from triton_router.serving.launcher.preflight.repositories import mistaken
from triton_router.serving.launcher.python_runtime import PythonRuntime

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triton_router.serving.launcher.models import ServedModel
    from triton_router.serving.launcher.preflight.finding import Finding

TENSORS = 'input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } output { name: "y" data_type: TYPE_FP32 dims: [ 2 ] }'


def python(numpy: str | None = "1.26.4", *, found: bool = True) -> PythonRuntime:
    """Return an interpreter's facts."""
    return PythonRuntime("3.11", Path("/bin"), "libpython3.11.so.1.0", None, found, numpy)


def levels(findings: Sequence[Finding]) -> list[str]:
    """Return the findings' levels; every finding must say why and what to do."""
    assert all(finding.why and finding.hint for finding in findings)
    return [finding.level for finding in findings]


@pytest.mark.parametrize(
    ("numpy", "server", "expected"),
    [
        ("1.26.4", "2.51.0", []),
        ("2.1.0", "2.51.0", ["error"]),
        ("2.1.0", "24.11", []),
        ("2.1.0", None, ["warning"]),
        (None, "2.51.0", ["error"]),
    ],
)
def test_numpy_that_corrupts_tensors_is_refused(numpy: str | None, server: str | None, expected: list[str]) -> None:
    """Numpy 2 with a server before 24.11 is an error; of an unknown server it is said."""
    assert levels(host.numpy_version(python(numpy), capabilities(server))) == expected


def test_a_python_without_stub_or_library_is_refused(tmp_path: Path) -> None:
    """The bundled server needs a stub for this Python, and the stub needs libpython."""
    (tmp_path / "3.11").mkdir()
    (tmp_path / "3.11" / "triton_python_backend_stub").touch()
    bundled = Installation("bundled", tmp_path, tmp_path, stubs=tmp_path)
    assert host.stub_python(bundled, python()) == []
    (missing,) = host.stub_python(bundled, python(found=False))
    assert missing.level == "error"
    assert "apt-get install libpython3.11" in missing.hint
    (tmp_path / "3.11").rename(tmp_path / "3.12")
    assert levels(host.stub_python(bundled, python())) == ["error"]


def test_an_images_stub_tells_its_python(tmp_path: Path) -> None:
    """NVIDIA's stub carries the name of the library it was linked to: that is its Python."""
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "triton_python_backend_stub").write_bytes(b"\x00libpython3.10.so.1.0\x00")
    image = Installation("nvidia", tmp_path, tmp_path)
    assert host.stub_versions(image) == ["3.10"]
    assert levels(host.stub_python(image, python())) == ["error"]


@pytest.mark.parametrize(
    ("found", "expected"), [(("glibc", "2.36"), []), (("glibc", "2.31"), ["error"]), (("", ""), ["error"])]
)
def test_an_old_c_library_is_refused(found: tuple[str, str], expected: list[str]) -> None:
    """The wheel's server needs glibc 2.35; another libc has no version at all."""
    assert levels(host.glibc(Installation("bundled", Path(), Path()), found)) == expected
    assert host.glibc(Installation("nvidia", Path(), Path()), found) == []


def test_small_shared_memory_is_said_with_the_arithmetic(tmp_path: Path) -> None:
    """More instances than megabytes cannot start; a tight fit is a warning with the numbers in it."""
    free = host.shutil.disk_usage(tmp_path).free // host.MB
    assert host.shared_memory(1, tmp_path) == []
    (tight,) = host.shared_memory(free // 2, tmp_path)
    assert tight.level == "warning"
    assert f"{free // 2} Python instances start with 1 MB each" in tight.why
    assert levels(host.shared_memory(free * 2, tmp_path)) == ["error"]


def test_threads_are_compared_with_the_containers_limit(tmp_path: Path) -> None:
    """50 instances with 256 threads made 13,006 threads once: near the limit that is said."""
    (tmp_path / "max").write_text("4096\n")
    (tmp_path / "none").write_text("max\n")
    assert host.thread_limit(tmp_path / "max") == 4096
    assert host.thread_limit(tmp_path / "none") is None
    assert levels(host.threads(50, 128, 4096)) == ["warning"]
    assert host.threads(4, 128, 4096) == host.threads(50, 128, None) == []


def test_a_port_in_use_is_refused() -> None:
    """So is one port for two services."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        place = Endpoint("127.0.0.1", taken.getsockname()[1])
        (found,) = host.ports([("HTTP", "--http-port", place), ("gRPC", "--grpc-port", None)])
        assert f"port {place.port} for HTTP is in use" in found.what
    twice = [("HTTP", "--http-port", place), ("gRPC", "--grpc-port", place)]
    assert ["given to both" in finding.what for finding in host.ports(twice)] == [True]


@pytest.mark.parametrize("address", ["nosuchhost.invalid", "192.0.2.1", "2001:db8::1"])
def test_an_address_that_is_not_this_machines_is_refused(address: str) -> None:
    """A name that nothing knows, and an address of another machine: nothing could listen there. Said once."""
    place = Endpoint(address, 8000)
    found = host.addresses([place, Endpoint(address, 8001), None])
    assert levels(found) == ["error"]
    assert address in found[0].what


def test_the_addresses_of_this_machine_pass() -> None:
    """Loopback by number."""
    assert host.addresses([Endpoint("127.0.0.1", 8000), None]) == []


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("x-(route|tenant).*", []), ("(", ["error"]), (".*", ["warning"]), ("AUTHORIZATION", ["warning"])],
)
def test_header_patterns(pattern: str, expected: list[str]) -> None:
    """Not a regular expression: refused. Forwarding secrets to every model: said."""
    options = ServeOptions(repositories=(), extra=(f"--grpc-header-forward-pattern={pattern}",))
    assert levels(flags.header_patterns(options)) == expected


@pytest.mark.parametrize(
    ("address", "mode", "extra", "expected"),
    [
        ("0.0.0.0", "explicit", (), ["warning", "warning"]),  # noqa: S104 - nothing is bound here
        ("0.0.0.0", "explicit", ("--http-restricted-api=model-repository,k=v",), ["warning"]),  # noqa: S104
        ("0.0.0.0", "none", (), []),  # noqa: S104
        ("127.0.0.1", "explicit", (), []),
    ],
)
def test_an_open_model_repository_api_is_said(
    address: str, mode: str, extra: tuple[str, ...], expected: list[str]
) -> None:
    """Whoever reaches it can run code, so each open door is named."""
    options = ServeOptions(repositories=(), address=address, control_mode=mode, extra=extra)
    assert levels(flags.exposure(options)) == expected


class Repository:
    """A repository on disk, written model by model."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def model(self, name: str, config: str, files: dict[str, str] | None = None) -> Repository:
        directory = self.path / name
        (directory / "1").mkdir(parents=True)
        (directory / "config.pbtxt").write_text(config)
        for file, content in (files or {}).items():
            (directory / file).write_text(content)
        return self

    def routed(self, more: str = "", tensors: str = TENSORS, settings: str = "") -> Repository:
        router = f"targets: [{{name: a, model: target}}]\n{settings}"
        return self.model("routed", f'backend: "router" {tensors} {more}', {"router.yaml": router})

    def target(self, config: str = "") -> Repository:
        return self.model("target", config or f'backend: "onnxruntime" {TENSORS}')

    def models(self) -> dict[str, ServedModel]:
        return {model.name: model for model in read_models([self.path])}


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """An empty repository."""
    return Repository(tmp_path)


def test_a_sound_repository_has_no_findings(repository: Repository) -> None:
    """A routed model whose target fits passes every check."""
    models = repository.routed().target().models()
    listed = list(models.values())
    assert checks.readable(listed) == checks.complete_files(listed) == checks.router_settings(listed) == []
    assert checks.unique(listed) == checks.targets_fit(models) == []
    assert checks.backends_present(listed, {"router": True, "onnxruntime": False}) == []


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ("response_cache { enable: true }", "response cache"),
        ('instance_group { rate_limiter { resources { name: "r" count: 1 } } }', "rate limiter"),
    ],
)
def test_settings_that_break_a_router_are_refused(repository: Repository, more: str, named: str) -> None:
    """The response cache mixes answers up, and resources can deadlock."""
    (found,) = checks.router_settings(list(repository.routed(more).target().models().values()))
    assert found.level == "error"
    assert named in found.what


def test_a_missing_target_is_named(repository: Repository) -> None:
    """The error names the target, the model, and the file to change."""
    (found,) = checks.targets_fit(repository.routed().models())
    assert "target 'a' of routed model 'routed' is the model 'target', which is in no repository" in found.what
    assert "router.yaml" in found.hint


def test_a_missing_version_is_named(repository: Repository) -> None:
    """A pinned version must lie on disk."""
    files = {"router.yaml": "targets: [{name: a, model: target, version: 3}]"}
    models = repository.model("routed", f'backend: "router" {TENSORS}', files).target().models()
    (found,) = checks.targets_fit(models)
    assert "names version 3" in found.what


def test_a_target_that_does_not_fit_is_refused(repository: Repository) -> None:
    """Another datatype would fail every request."""
    models = repository.routed().target(f'backend: "onnxruntime" {TENSORS.replace("FP32", "FP16")}').models()
    assert [finding.level for finding in checks.targets_fit(models)] == ["error", "error"]


@pytest.mark.parametrize("behind", ["routed", "loopb", "pipe"])
def test_routed_models_that_call_each_other_are_refused(repository: Repository, behind: str) -> None:
    """One request would fill every pool and never be answered: itself, another router, through an ensemble."""
    route = "targets: [{{name: a, model: {}}}, {{name: b, model: target}}, {{name: c, model: absent}}]"
    for name, target in (("routed", behind), ("loopb", "routed"), ("outer", "routed")):
        repository.model(name, f'backend: "router" {TENSORS}', {"router.yaml": route.format(target)})
    repository.target().model("pipe", 'platform: "ensemble" ensemble_scheduling { step { model_name: "routed" } }')
    (found,) = cycles.no_cycles(repository.models())
    assert levels([found]) == ["error"]
    first, *others, last = found.what.partition(": ")[2].split(" -> ")
    assert first == last
    assert {first, *others} == {"routed", behind}


def test_routed_models_may_stand_behind_each_other(repository: Repository) -> None:
    """A tree, or two ways to one target, is no cycle."""
    route = "targets: [{{name: a, model: {}}}, {{name: b, model: target}}]"
    repository.model("inner", "", {"router.yaml": route.format("target")}).target()
    models = repository.model("outer", "", {"router.yaml": route.format("inner")})
    assert cycles.no_cycles(models.models()) == []


def test_a_rule_that_leaves_no_target_is_found(repository: Repository) -> None:
    """The routed model would not load: its targets are all on a backend that a rule excludes."""
    rule = (
        "targets: [{name: a, model: target}]\nrouting_rules: [{model_name_pattern: 'r*', excluded_backends: [cpu]}]\n"
    )
    models = repository.model("routed", f'backend: "router" {TENSORS}', {"router.yaml": rule}).target().models()
    (found,) = checks.readable(list(models.values()))
    assert "leave no target" in found.why
    assert "excluded_backends" in found.hint


def test_a_name_breaks_no_line() -> None:
    """What a finding quotes is others' text: it is printed as one line, whatever is in it."""
    text = str(error("model 'a'", "/models/a\nerror: all is well\x1b[2J", "rename it"))
    assert text.splitlines() == ["error: model 'a': /models/a\\nerror: all is well\\x1b[2J", "hint: rename it"]


def test_a_decoupled_target_needs_a_streaming_router(repository: Repository) -> None:
    """Under a unary router every call would fail; under a streaming one it is right."""
    decoupled = f'backend: "python" {TENSORS} model_transaction_policy {{ decoupled: true }}'
    (found,) = checks.targets_fit(repository.routed().target(decoupled).models())
    assert "is decoupled" in found.what


def test_a_streaming_router_is_a_decoupled_target(repository: Repository) -> None:
    """Its config.pbtxt need not say so: that is completed when it loads."""
    inner = {"router.yaml": "targets: [{name: a, model: leaf}]\nstreaming: true\n"}
    repository.model("target", f'backend: "router" {TENSORS}', inner).model("leaf", TENSORS)
    (found,) = checks.targets_fit(repository.routed().models())
    assert "is decoupled" in found.what


def test_invalid_files_are_findings_not_crashes(repository: Repository) -> None:
    """A broken config.pbtxt and a broken router.yaml each become one error with its hint."""
    repository.model("broken", "backend: ???")
    repository.model("routed", f'backend: "router" {TENSORS}', {"router.yaml": "targets: 7"})
    assert levels(checks.readable(list(repository.models().values()))) == ["error", "error"]


def test_a_python_model_without_its_file_is_refused(repository: Repository) -> None:
    """The server would wait for it for ever."""
    repository.model("lost", f'backend: "python" {TENSORS}').model("there", f'backend: "python" {TENSORS}')
    (repository.path / "there" / "1" / "model.py").touch()
    (found,) = checks.complete_files(list(repository.models().values()))
    assert "'lost' has no model.py in version 1" in found.what


def test_a_backend_that_is_not_there_is_refused(repository: Repository) -> None:
    """With what there is; a model that brings its own library is left alone."""
    repository.model("plan", f'backend: "tensorrt" {TENSORS}').model("own", f'backend: "mine" {TENSORS}')
    (repository.path / "own" / "libtriton_mine.so").touch()
    (found,) = checks.backends_present(list(repository.models().values()), {"python": False, "router": True})
    assert "needs the backend 'tensorrt'" in found.what
    assert found.why == "this server has python, router"


def test_a_model_in_two_repositories_is_refused(tmp_path: Path) -> None:
    """Triton would serve it from neither."""
    for name in ("one", "two"):
        Repository(tmp_path / name).target()
    (found,) = checks.unique(read_models([tmp_path / "one", tmp_path / "two"]))
    assert "in 2 repositories" in found.what


def test_loading_a_routed_model_brings_its_targets(repository: Repository) -> None:
    """Also through an ensemble; each once, and what is needed before what needs it."""
    repository.routed().target().model(
        "whole", 'platform: "ensemble" ensemble_scheduling { step { model_name: "routed" } }'
    )
    models = repository.models()
    assert closure(models, ["whole", "routed"]) == ["target", "routed", "whole"]
    assert closure(models, ["unknown"]) == ["unknown"]
    (found,) = checks.wanted_exist(models, ["unknown", "*"])
    assert "'unknown' of --load-model" in found.what


def test_a_name_that_a_shell_would_split_is_refused(repository: Repository) -> None:
    """The stub would die at the start, and the server wait for it for ever."""
    (found,) = checks.plain_names(list(repository.target().model("my model", "").models().values()))
    assert "'my model'" in found.what


def test_targets_that_leave_nothing_to_complete_from_are_refused(repository: Repository) -> None:
    """A routed model that declares no tensors fails at its load when its targets disagree, so that is tried."""
    files = {"router.yaml": "targets: [{name: a, model: target}, {name: b, model: other}]"}
    repository.model("routed", 'backend: "router"', files).target()
    repository.model("other", f'backend: "onnxruntime" {TENSORS.replace("FP32", "INT32")}')
    (found,) = signature.completed(repository.models())
    assert levels([found]) == ["error"]
    assert found.why == "tensor 'x' is TYPE_FP32[4] at one target and TYPE_INT32[4] at 'other'"
    assert "'routed'" in found.what
    (repository.path / "other" / "config.pbtxt").write_text(TENSORS)
    assert signature.completed(repository.models()) == []


def test_what_another_check_refuses_is_not_completed(repository: Repository) -> None:
    """A missing target and a circle have their own findings; a declared model needs no completion."""
    missing = {"router.yaml": "targets: [{name: a, model: nowhere}]"}
    circle = {"router.yaml": "targets: [{name: a, model: circle}]"}
    repository.model("missing", 'backend: "router"', missing).model("circle", 'backend: "router"', circle)
    assert signature.completed(repository.routed().target('backend: "onnxruntime"').models()) == []


@pytest.mark.parametrize(
    ("config", "hint"),
    [
        ('backend: "router"', "create the empty directory {}"),
        ('platform: "ensemble"', "create the empty directory {}"),
        ('backend: "onnxruntime"', "create {} with the model's file in it"),
    ],
)
def test_a_model_without_a_version_is_refused(repository: Repository, config: str, hint: str) -> None:
    """Triton loads none without; nothing belongs in that of a model that only calls others."""
    repository.model("m", f"{config} {TENSORS}")
    (repository.path / "m" / "1").rmdir()
    (found,) = checks.complete_files(list(repository.models().values()))
    assert found.level == "error"
    assert found.hint == hint.format(repository.path / "m" / "1")


def test_a_directory_without_models_is_said(repository: Repository) -> None:
    """A server of nothing helps nobody, unless models may come later."""
    (found,) = mistaken([repository.path], "none").values()
    assert levels([found]) == ["error"]
    assert found.what == f"no models in {repository.path}"
    assert levels(list(mistaken([repository.path], "explicit").values())) == ["warning"]
    (repository.path / "notes").mkdir()
    assert levels(list(mistaken([repository.path], "none").values())) == ["error"]
    assert mistaken([repository.target().path, repository.path / "absent"], "none") == {}


@pytest.mark.parametrize("wrong", ["model", "parent"])
def test_a_directory_that_is_one_too_deep_or_too_high_is_recognised(tmp_path: Path, wrong: str) -> None:
    """The hint names the repository that was meant."""
    meant = Repository(tmp_path / "my models").target().path
    given = {"model": meant / "target", "parent": tmp_path}[wrong]
    (found,) = mistaken([given], "explicit").values()
    assert levels([found]) == ["error"]
    assert "looks like" in found.what
    assert found.hint == f"did you mean --repository '{meant}'?"
