"""The shipped pipelines: what is written for them, byte for byte."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from triton_router.repository.pipeline import write_pipeline
from triton_router.repository.pipeline_check import check_pipeline
from triton_router.repository.pipeline_spec import load_pipeline

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "pipeline"

ROUTED_MINILM = """\
backend: "router"
max_batch_size: 64
dynamic_batching { }
input { name: "input_ids" data_type: TYPE_INT64 dims: [ -1 ] }
input { name: "attention_mask" data_type: TYPE_INT64 dims: [ -1 ] }
output { name: "last_hidden_state" data_type: TYPE_FP32 dims: [ -1, 384 ] }
"""


def _written(source: Path, repository: Path) -> str:
    directory, _ = write_pipeline(check_pipeline(*load_pipeline(source), repository), repository, source=source.name)
    return (directory / "config.pbtxt").read_text()


@pytest.fixture
def minilm_repository(tmp_path: Path) -> Path:
    """The example's two models beside a routed model with the interface of all-MiniLM-L6-v2."""
    for folder in ("tokenize", "pool"):
        shutil.copytree(ROOT / "examples" / "minilm" / folder, tmp_path / f"minilm-{folder}")
    (tmp_path / "minilm" / "1").mkdir(parents=True)
    (tmp_path / "minilm" / "config.pbtxt").write_text(ROUTED_MINILM)
    return tmp_path


def test_minilm_pipeline(minilm_repository: Path) -> None:
    """examples/minilm/pipeline.yaml gives this ensemble."""
    text = _written(ROOT / "examples" / "minilm" / "pipeline.yaml", minilm_repository)
    assert text == (GOLDEN / "minilm-embed.pbtxt").read_text()


def test_example_pipeline_is_what_its_yaml_gives(tmp_path: Path) -> None:
    """The config.pbtxt in model_repository/ is what the command writes from the pipeline.yaml beside it."""
    shutil.copytree(ROOT / "model_repository", tmp_path / "models")
    shutil.rmtree(tmp_path / "models" / "example-pipeline")
    shipped = ROOT / "model_repository" / "example-pipeline"
    assert _written(shipped / "pipeline.yaml", tmp_path / "models") == (shipped / "config.pbtxt").read_text()
