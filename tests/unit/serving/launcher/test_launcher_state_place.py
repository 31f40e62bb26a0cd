"""Where the learned is kept when nobody says where."""

from __future__ import annotations

import pwd
from pathlib import Path

import pytest

from triton_router.errors import InvalidInputError
from triton_router.serving.launcher.state_place import default_state_directory


def test_each_repository_has_a_place_of_its_own() -> None:
    """By its path, however that is written; two of the same name differ."""
    variables = {"XDG_STATE_HOME": "/state"}
    one = default_state_directory([Path("/a/models")], variables)
    assert one.parent == Path("/state/triton-router")
    assert one.name.startswith("models-")
    assert default_state_directory([Path("/a/../a/models/")], variables) == one
    assert default_state_directory([Path("/b/models")], variables) != one
    assert default_state_directory([Path("/a/models"), Path("/b")], variables) != one


@pytest.mark.parametrize("variables", [{}, {"XDG_STATE_HOME": ""}, {"XDG_STATE_HOME": "relative"}])
def test_without_a_valid_variable_it_is_in_the_home(variables: dict[str, str]) -> None:
    """As the XDG specification has it."""
    assert default_state_directory([Path("/a")], variables).parent == Path.home() / ".local/state/triton-router"


def test_without_any_home_it_is_said_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's user may have no home and no name."""

    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(InvalidInputError, match="no home directory"):
        default_state_directory([Path("/a")], {})


def test_names_are_made_safe() -> None:
    """Whatever the directory is called, the name is one plain component."""
    name = default_state_directory([Path("/ä b/..x;$(y)")], {"XDG_STATE_HOME": "/s"}).name
    assert all(character.isalnum() or character in "_-" for character in name)
