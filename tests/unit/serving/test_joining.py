"""A target that joins a routed model while it serves takes whatever that takes, or the edit is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from triton_router.errors import ConfigError
from triton_router.serving.joining import compare, refuse_unsuitable

if TYPE_CHECKING:
    from pathlib import Path

ROUTED: dict[str, Any] = {
    "max_batch_size": 8,
    "input": [{"name": "X", "data_type": "TYPE_FP32", "dims": [-1]}],
    "output": [{"name": "Y", "data_type": "TYPE_FP32", "dims": [4]}],
}
GOOD = """max_batch_size: 16
input [ { name: "X" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "Y" data_type: TYPE_FP32 dims: [ 4 ] }, { name: "Z" data_type: TYPE_FP32 dims: [ 1 ] } ]
"""


def add(repository: Path, config: str) -> None:
    (repository / "new").mkdir()
    (repository / "new" / "config.pbtxt").write_text(config)


def test_who_takes_and_gives_as_much_may_join(tmp_path: Path) -> None:
    """More rows and more outputs than the routed model offers do no harm."""
    add(tmp_path, GOOD)
    compare(tmp_path, ["new"], ROUTED, streaming=False)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("max_batch_size: 16", "max_batch_size: 4", "fewer rows"),
        ("dims: [ -1 ]", "dims: [ 16 ]", "fewer shapes"),
        ('"Y"', '"W"', "no output in common"),
        ('"X"', '"A"', "different inputs"),
        ("TYPE_FP32", "TYPE_INT64", "TYPE_INT64"),
        ("max_batch_size", "model_transaction_policy { decoupled: true }\nmax_batch_size", "is decoupled"),
    ],
)
def test_who_does_not_is_refused(tmp_path: Path, old: str, new: str, problem: str) -> None:
    """By name, and with what to do: clients' requests would fail there."""
    add(tmp_path, GOOD.replace(old, new))
    with pytest.raises(ConfigError, match=problem):
        compare(tmp_path, ["new"], ROUTED, streaming=False)


def test_who_is_not_there_is_refused(tmp_path: Path) -> None:
    """Unless other targets lie in other repositories too: then nobody can tell."""
    (tmp_path / "old").mkdir()
    with pytest.raises(ConfigError, match="'nowhere' is not in"):
        refuse_unsuitable(tmp_path, ["nowhere"], ["old"], ROUTED, streaming=False)
    refuse_unsuitable(tmp_path, ["nowhere"], ["old", "elsewhere"], ROUTED, streaming=False)


def test_who_declares_nothing_passes(tmp_path: Path) -> None:
    """Triton completes such a model when it loads it; its answers will tell."""
    add(tmp_path, 'backend: "python"')
    compare(tmp_path, ["new"], ROUTED, streaming=False)


def test_it_is_asked_in_a_process_of_its_own(tmp_path: Path) -> None:
    """What the process finds arrives whole; a process that breaks refuses nothing, and that is said."""
    add(tmp_path, GOOD.replace("max_batch_size: 16", "max_batch_size: 4"))
    with pytest.raises(ConfigError, match="new has fewer rows in a request") as refused:
        refuse_unsuitable(tmp_path, ["new"], ["old"], ROUTED, streaming=False)
    assert "reload the model with 'triton-router models load MODEL'" in refused.value.hint
    assert "status 1" in refuse_unsuitable(tmp_path, ["new"], ["old"], {}, streaming=False)
