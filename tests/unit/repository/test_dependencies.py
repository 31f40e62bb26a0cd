"""Which models need which, read from the files of a repository."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from triton_router.errors import InvalidInputError, NotFoundError
from triton_router.repository.dependencies import cycle_from, describe, survey, targets_to_load, targets_to_unload

if TYPE_CHECKING:
    from pathlib import Path


def _plain(repository: Path, name: str, *versions: str) -> None:
    for version in versions or ("1",):
        (repository / name / version).mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text('backend: "python"\n')


def _routed(repository: Path, name: str, *targets: str) -> None:
    _plain(repository, name)
    lines = [f"  - {{name: t{index}, model: {target}}}" for index, target in enumerate(targets)]
    (repository / name / "router.yaml").write_text("\n".join(["targets:", *lines, ""]))


def _ensemble(repository: Path, name: str, *steps: str) -> None:
    _plain(repository, name)
    body = " ".join(f'step {{ model_name: "{step}" model_version: -1 }}' for step in steps)
    (repository / name / "config.pbtxt").write_text(f'platform: "ensemble" ensemble_scheduling {{ {body} }}\n')


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two routers that share a target, and an ensemble around one of them."""
    for name in ("pre", "only-a", "shared", "only-b"):
        _plain(tmp_path, name)
    _routed(tmp_path, "a", "only-a", "shared")
    _routed(tmp_path, "b", "shared", "only-b")
    _ensemble(tmp_path, "pipe", "pre", "a")
    return tmp_path


def test_targets_are_loaded_before_their_router(repository: Path) -> None:
    """A routed model needs its targets first, in the order of router.yaml."""
    assert targets_to_load(repository, "a") == ["only-a", "shared"]


def test_an_ensemble_needs_the_targets_of_its_routed_steps(repository: Path) -> None:
    """Triton loads the steps itself, so that only the targets behind them are listed."""
    assert targets_to_load(repository, "pipe") == ["only-a", "shared"]


def test_a_router_behind_a_router_comes_after_its_own_targets(repository: Path) -> None:
    """Targets that are routed models, or ensembles with routed steps, are loaded from the inside out."""
    _routed(repository, "outer", "pipe", "b")
    assert targets_to_load(repository, "outer") == ["only-a", "shared", "pipe", "only-b", "b"]


def test_routers_that_name_each_other_end(repository: Path) -> None:
    """A cycle in router.yaml files does not hang the walk."""
    _routed(repository, "x", "y")
    _routed(repository, "y", "x")
    assert targets_to_load(repository, "x") == ["y"]


def test_a_cycle_is_found_through_targets_and_steps(repository: Path) -> None:
    """A router behind an ensemble behind that router; a broken and a missing sibling do not hide it."""
    (repository / "pre" / "config.pbtxt").write_text("nonsense: {")
    _routed(repository, "round", "absent", "pre", "circle")
    _ensemble(repository, "circle", "pre", "round")
    assert cycle_from(repository, "circle") == ["circle", "round", "circle"]
    assert cycle_from(repository, "b") == cycle_from(repository, "absent") == []


def test_a_missing_target_is_named_with_what_there_is(repository: Path) -> None:
    """The error names the target that is not in the repository."""
    _routed(repository, "broken", "absent")
    with pytest.raises(NotFoundError, match="'absent' is not in the repository"):
        targets_to_load(repository, "broken")


@pytest.mark.parametrize(
    ("loaded", "expected"),
    [
        (["a", "b", "only-a", "shared", "only-b"], ["only-a"]),
        (["a", "only-a", "shared"], ["only-a", "shared"]),
        (["a", "pipe", "only-a", "shared"], ["only-a", "shared"]),
    ],
    ids=["shared with a loaded router", "alone", "an ensemble around it"],
)
def test_only_targets_that_nobody_else_needs_are_unloaded(
    repository: Path, loaded: list[str], expected: list[str]
) -> None:
    """A target stays as long as another loaded model calls it."""
    assert targets_to_unload(survey(repository), "a", loaded) == expected


def test_unloading_an_ensemble_reaches_the_targets_of_its_steps(repository: Path) -> None:
    """A routed step goes with its ensemble unless something else is loaded that needs it."""
    assert targets_to_unload(survey(repository), "pipe", ["pipe", "a", "only-a", "shared"]) == ["only-a", "shared"]


def test_versions_are_numbered_directories(tmp_path: Path) -> None:
    """Triton ignores names that are no whole number or begin with zero; so does this."""
    _plain(tmp_path, "m", "1", "10", "2", "artifacts", "01", "-1")
    assert describe(tmp_path, "m").versions == (1, 2, 10)


def test_an_unreadable_model_does_not_hide_the_others(repository: Path) -> None:
    """A survey carries the problem of a broken model and still lists the rest."""
    (repository / "pre" / "config.pbtxt").write_text("nonsense: {")
    found = survey(repository)
    assert "not a valid Triton model configuration" in found["pre"].problem
    assert found["a"].targets == ("only-a", "shared")


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/1", "a\\1"])
def test_a_name_cannot_leave_the_repository(repository: Path, name: str) -> None:
    """Only the name of one directory is a model name."""
    with pytest.raises(InvalidInputError, match="is not a model name"):
        describe(repository, name)
