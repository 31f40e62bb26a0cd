"""``triton-router pipeline`` as a user runs it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from triton_router.cli.main import main

SHIPPED = Path(__file__).parents[3] / "model_repository"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The shipped repository without its pipeline."""
    target = tmp_path / "models"
    shutil.copytree(SHIPPED, target, ignore=shutil.ignore_patterns("__pycache__", "example-pipeline"))
    return target


def _run(repository: Path, *args: str) -> int:
    return main(
        ["pipeline", str(SHIPPED / "example-pipeline" / "pipeline.yaml"), "--repository", str(repository), *args]
    )


def test_check_writes_nothing(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--check prints the tensors and leaves the repository as it was."""
    assert _run(repository, "--check") == 0
    captured = capsys.readouterr()
    assert "centered  FP32 [-1, -1]  output 'centered' of step 1 (example-center)" in captured.out
    assert captured.err.startswith("checked: ")
    assert not (repository / "example-pipeline").exists()


def test_json_says_what_was_done(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--json puts one document on stdout: what was done, where, and every tensor; the second run says unchanged."""
    results = []
    for _ in range(2):
        assert _run(repository, "--json") == 0
        results.append(json.loads(capsys.readouterr().out))
    assert [result["done"] for result in results] == ["written", "unchanged"]
    assert results[0]["directory"] == str(repository / "example-pipeline")
    assert [tensor["name"] for tensor in results[0]["tensors"]] == ["values", "centered", "scaled"]


def test_a_mistake_leaves_nothing_behind(repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pipeline that is refused exits with 1, and the repository holds what it held."""
    before = sorted(repository.rglob("*"))
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(
        "name: wrong\ninputs: {x: x}\noutputs: {y: y}\nsteps:\n  - {model: absent, inputs: {x: x}, outputs: {y: y}}\n"
    )
    assert main(["pipeline", str(wrong), "--repository", str(repository)]) == 1
    assert f"error: {wrong}:5: steps.0.model: model 'absent' is not in the repository" in capsys.readouterr().err
    assert sorted(repository.rglob("*")) == before
