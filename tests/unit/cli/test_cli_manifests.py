"""``triton-router manifests`` as a user runs it."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import yaml

from triton_router.cli.main import main
from triton_router.cli.manifests import _MESHES
from triton_router.kubernetes.rendering import MESHES

TRAFFIC = Path(__file__).parents[2] / "golden" / "manifests" / "nginx.yaml"
"""A file with weights."""


def run(*words: object) -> int:
    return main(["manifests", "canary", *(str(word) for word in words)])


def error_of(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Return what a refused command prints: an error, a hint, and nothing on stdout."""
    assert run(*words) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert lines[-2].startswith("error: ")
    assert lines[-1].startswith("hint: ")
    return captured.err


def test_the_meshes_offered_are_those_that_there_are() -> None:
    """The command's own list, which spares --help an import, is the right one."""
    assert tuple(MESHES) == _MESHES


def test_without_a_directory_it_prints(capsys: pytest.CaptureFixture[str]) -> None:
    """For ``kubectl apply -f -``: all objects on stdout as one stream of YAML, nothing else."""
    assert run("--mesh", "gateway-api", "--host", "infer.example.com") == 0
    captured = capsys.readouterr()
    kinds = [one["kind"] for one in yaml.safe_load_all(captured.out)]
    assert kinds == [*["Deployment", "Service", "PodDisruptionBudget"] * 2, "HTTPRoute", "GRPCRoute"]
    assert captured.err == ""


def test_writing_changing_and_writing_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory is written, its weight changed in place, and not written over unless that is said."""
    out = tmp_path / "a" / "k8s"
    assert run("--mesh", "istio", "--out", out, "--json") == 0
    assert set(json.loads(capsys.readouterr().out)["files"].values()) == {"written"}
    assert run("--mesh", "istio", "--out", out, "--json") == 0
    assert set(json.loads(capsys.readouterr().out)["files"].values()) == {"unchanged"}

    traffic = out / "traffic.yaml"
    traffic.chmod(0o640)
    assert run("--set-weight", 25, out, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["weight"] == 25
    assert [(change["kind"], change["name"], change["before"]) for change in found["changes"]] == [
        ("VirtualService", "triton-http", 10),
        ("VirtualService", "triton-grpc", 10),
    ]
    assert stat.S_IMODE(traffic.stat().st_mode) == 0o640
    changed = traffic.read_text()
    assert changed.count("weight: 25") == 2
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []

    assert "says something else" in error_of(capsys, "--mesh", "istio", "--out", out)
    assert traffic.read_text() == changed
    assert run("--mesh", "istio", "--out", out, "--force", "--json") == 0
    assert json.loads(capsys.readouterr().out)["files"] == {
        "stable.yaml": "unchanged",
        "canary.yaml": "unchanged",
        "traffic.yaml": "replaced",
    }


def test_one_bad_file_keeps_all_others_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything is checked before anything is written."""
    assert run("--mesh", "nginx", "--out", tmp_path) == 0
    capsys.readouterr()
    before = (tmp_path / "traffic.yaml").read_text()
    (tmp_path / "zz.yaml").write_text("a: [1")
    assert "zz.yaml:1" in error_of(capsys, "--set-weight", 50, tmp_path)
    assert (tmp_path / "traffic.yaml").read_text() == before


def test_a_file_named_twice_and_through_a_link_is_changed_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is one file: it is reported once, by the first name, and the link stays one."""
    assert run("--mesh", "nginx", "--out", tmp_path / "k8s") == 0
    capsys.readouterr()
    link = tmp_path / "link.yaml"
    link.symlink_to(tmp_path / "k8s" / "traffic.yaml")
    assert run("--set-weight", 30, link, tmp_path / "k8s", "--json") == 0
    changes = json.loads(capsys.readouterr().out)["changes"]
    assert [(change["file"], change["before"]) for change in changes] == [(str(link), 10)] * 2
    assert link.is_symlink()
    assert 'canary-weight: "30"' in link.read_text()


def test_a_promotion_in_the_words_of_the_documentation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --stable-version v2 and --weight 0, stable becomes what the canary was, and the canary gets nothing."""
    assert run("--mesh", "nginx", "--out", tmp_path) == 0
    assert run("--mesh", "nginx", "--stable-version", "v2", "--weight", 0, "--out", tmp_path, "--force") == 0
    stable = next(yaml.safe_load_all((tmp_path / "stable.yaml").read_text()))
    assert stable["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/version"] == "v2"
    assert 'canary-weight: "0"' in (tmp_path / "traffic.yaml").read_text()
    capsys.readouterr()
    assert "nothing to try" in error_of(capsys, "--mesh", "nginx", "--stable-version", "v2")


def test_a_canary_with_too_few_pods_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    """Half of the traffic for one of four pods is written, and said; a quarter is fair."""
    assert run("--mesh", "istio", "--weight", 50) == 0
    assert "1 of 4 pods would take 50% of the traffic" in capsys.readouterr().err
    assert run("--mesh", "istio", "--weight", 25) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ((), "nothing says what splits the traffic"),
        (("--mesh", "istio", "k8s"), "not what to change"),
        (("--mesh", "istio", "--plain", "--model", "m"), "--plain is an nginx.conf"),
        (("--mesh", "nginx", "--plain"), "--plain is an nginx.conf"),
        (("--mesh", "nginx", "--model", "m"), "--model is for --plain"),
        (("--mesh", "nginx", "--plain", "--model", "m", "--canary-version", "v2"), "--canary-version 'v2'"),
        (("--mesh", "nginx", "--name", "a\n---\nb"), "--name"),
        (("--mesh", "nginx", "--image", "x:latest"), "names no particular image"),
        (("--mesh", "nginx", "--weight", "101"), "--weight '101'"),
        (("--set-weight", "101", str(TRAFFIC)), "--set-weight '101'"),
        (("--set-weight", "50"), "no file is given"),
        (("--set-weight", "50", "/nowhere"), "does not exist"),
        (("--set-weight", "50", "/dev/null"), "neither .yaml nor .conf"),
    ],
)
def test_wrong_use_is_refused_with_what_to_do(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    problem: str,
) -> None:
    """One line that says what is wrong, one that says what to do."""
    (tmp_path / "traffic.yaml").write_text("kind: Ingress\n")
    monkeypatch.chdir(tmp_path)
    assert problem in error_of(capsys, *words)


def test_files_without_a_weight_are_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A directory whose files split nothing is no success."""
    (tmp_path / "service.yaml").write_text("kind: Service\n")
    (tmp_path / "notes.txt").write_text("weight: 10\n")
    assert "nothing there has a weight" in error_of(capsys, "--set-weight", 50, tmp_path)
