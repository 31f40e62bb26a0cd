"""Routed models that lead back to themselves are found before a request goes round for ever."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from triton_router.config.cycles import find_cycle, refuse_cycle, router_cycle
from triton_router.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def route(repository: Path, name: str, *targets: str) -> None:
    """Write a routed model."""
    (repository / name).mkdir(exist_ok=True)
    lines = [f"  - {{name: t{index}, model: {target}}}" for index, target in enumerate(targets)]
    (repository / name / "router.yaml").write_text("\n".join(["targets:", *lines, ""]))


@pytest.mark.parametrize(
    ("needs", "expected"),
    [
        ({}, []),
        ({"a": ["a"]}, ["a", "a"]),
        ({"a": ["x", "b"], "b": ["a"]}, ["a", "b", "a"]),
        ({"a": ["b"], "b": ["c"], "c": ["b"]}, ["a", "b", "c", "b"]),
        ({"a": ["b", "c"], "b": ["d"], "c": ["d"]}, []),
        ({"b": ["b"]}, []),
    ],
    ids=["alone", "itself", "two", "further down", "diamond", "elsewhere"],
)
def test_the_path_ends_with_the_model_it_comes_back_to(needs: dict[str, list[str]], expected: list[str]) -> None:
    """Only what can be reached counts, and a model reached twice by different ways is no cycle."""
    assert find_cycle("a", lambda name: needs.get(name, [])) == expected


def test_long_chains_and_wide_lattices_are_walked_in_time() -> None:
    """Neither recursion nor the number of ways limits the walk: every model is visited once."""
    assert find_cycle("0", lambda name: [str(int(name) + 1)] if int(name) < 5000 else []) == []
    layers = {f"{layer}{side}": [f"{layer + 1}a", f"{layer + 1}b"] for layer in range(60) for side in "ab"}
    assert find_cycle("0a", lambda name: layers.get(name, [])) == []


def test_routed_models_are_followed_on_disk(tmp_path: Path) -> None:
    """Two routers that name each other; a missing, a broken and an ordinary sibling say nothing."""
    route(tmp_path, "loopa", "absent", "broken", "plain", "loopb")
    route(tmp_path, "loopb", "loopa")
    (tmp_path / "plain").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "router.yaml").write_text("targets: 7")
    assert router_cycle(tmp_path, "loopa") == ["loopa", "loopb", "loopa"]
    assert router_cycle(tmp_path, "plain") == router_cycle(tmp_path, "absent") == []


def test_a_cycle_is_refused_with_its_path() -> None:
    """The error shows the way round."""
    refuse_cycle([])
    with pytest.raises(ConfigError, match="never end: loopa -> loopb -> loopa") as caught:
        refuse_cycle(["loopa", "loopb", "loopa"])
    assert "router.yaml" in caught.value.hint


def test_the_router_process_can_afford_it() -> None:
    """Following router.yaml files loads no protobuf and no client."""
    code = (
        "import sys, triton_router.config.cycles; print(sorted({'google', 'tritonclient', 'grpc'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
