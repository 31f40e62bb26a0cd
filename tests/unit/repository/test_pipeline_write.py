"""A pipeline is written whole, once, and never over somebody else's model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from triton_router.errors import ConfigError
from triton_router.repository.pipeline import write_pipeline
from triton_router.repository.pipeline_check import CheckedPipeline, check_pipeline
from triton_router.repository.pipeline_spec import load_pipeline

if TYPE_CHECKING:
    from pathlib import Path

PIPELINE = """\
name: twice
inputs: {x: x}
outputs: {y: y}
steps:
  - {model: same, inputs: {a: x}, outputs: {b: once}}
  - {model: same, inputs: {a: once}, outputs: {b: y}}
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one model."""
    root = tmp_path / "models"
    (root / "same" / "1").mkdir(parents=True)
    (root / "same" / "config.pbtxt").write_text(
        'backend: "python" max_batch_size: 8\n'
        'input { name: "a" data_type: TYPE_FP32 dims: [4] } output { name: "b" data_type: TYPE_FP32 dims: [4] }\n'
    )
    return root


def _checked(repository: Path, text: str = PIPELINE) -> CheckedPipeline:
    path = repository.parent / "twice.yaml"
    path.write_text(text)
    return check_pipeline(*load_pipeline(path), repository)


def _files(root: Path) -> dict[str, tuple[int, bytes]]:
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in root.rglob("*") if path.is_file()}


def test_writing_again_changes_nothing(repository: Path) -> None:
    """The second run says 'unchanged' and touches no file, so that Triton has nothing to reload."""
    directory, done = write_pipeline(_checked(repository), repository, source="twice.yaml")
    before = _files(repository)
    assert done == "written"
    assert write_pipeline(_checked(repository), repository, source="twice.yaml") == (directory, "unchanged")
    assert _files(repository) == before


def test_a_changed_pipeline_replaces_its_own_config(repository: Path) -> None:
    """What this command wrote before, it may replace; nothing is left beside it."""
    write_pipeline(_checked(repository), repository, source="twice.yaml")
    changed = _checked(repository, "max_batch_size: 2\n" + PIPELINE)
    directory, done = write_pipeline(changed, repository, source="twice.yaml")
    assert done == "updated"
    assert "max_batch_size: 2" in (directory / "config.pbtxt").read_text()
    assert sorted(path.name for path in directory.iterdir()) == ["1", "config.pbtxt"]


def test_a_foreign_model_is_left_alone(repository: Path) -> None:
    """A model of that name which came from elsewhere is refused and stays as it is."""
    (repository / "twice").mkdir()
    (repository / "twice" / "config.pbtxt").write_text('platform: "ensemble"\n')
    before = _files(repository)
    with pytest.raises(ConfigError, match="did not write"):
        write_pipeline(_checked(repository), repository, source="twice.yaml")
    assert _files(repository) == before


def test_an_edit_by_hand_is_not_lost(repository: Path) -> None:
    """A config that was edited after it was written is refused and stays as it is."""
    directory, _ = write_pipeline(_checked(repository), repository, source="twice.yaml")
    with (directory / "config.pbtxt").open("a") as config:
        config.write("# tuned\n")
    before = _files(repository)
    with pytest.raises(ConfigError, match="was edited"):
        write_pipeline(_checked(repository), repository, source="twice.yaml")
    assert _files(repository) == before


def test_a_repository_that_cannot_be_written_is_left_whole(repository: Path) -> None:
    """When the new model cannot be put in place, no scratch directory remains."""
    checked = _checked(repository)
    (repository / "twice").write_text("a file where the model's directory should be")
    before = sorted(path.name for path in repository.iterdir())
    with pytest.raises(ConfigError, match="did not write"):
        write_pipeline(checked, repository, source="twice.yaml")
    assert sorted(path.name for path in repository.iterdir()) == before
