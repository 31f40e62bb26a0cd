"""The demo's model repository: MiniLM's variants and the routed model, the tokenizer, the pooling, the pipeline."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from examples.minilm.demo.processes import PROGRAM, run

if TYPE_CHECKING:
    from examples.minilm.demo.console import Console
    from examples.minilm.demo.interruption import Interruption

MODEL = "minilm"
PIPELINE = "minilm-embed"
TOKENIZER = "minilm-tokenize"
POOLING = "minilm-pool"
TARGETS = ("onnx-cpu", "onnx-int8-cpu", "pt2-cpu")

_EXAMPLE = Path(__file__).parents[1]


def build(repository: Path, console: Console, interruption: Interruption) -> None:
    """Build whatever of the repository is missing or out of date.

    Raises:
        BuildError: A command failed.
    """
    run(
        [
            *(PROGRAM, "add", "examples.minilm.model:factory", "--name", MODEL),
            *("--repository", repository, "--targets", ",".join(TARGETS)),
        ],
        console,
        interruption,
    )
    for source, name in (("tokenize", TOKENIZER), ("pool", POOLING)):
        console.command(["cp", "-rT", _EXAMPLE / source, repository / name])
        shutil.copytree(
            _EXAMPLE / source, repository / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    run([PROGRAM, "pipeline", _EXAMPLE / "pipeline.yaml", "--repository", repository], console, interruption)
