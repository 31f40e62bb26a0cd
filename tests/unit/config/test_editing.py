"""An edit of router.yaml is valid, whole and nobody else's loss, or it does not happen."""

from __future__ import annotations

import os
import stat
import threading
from typing import TYPE_CHECKING

import pytest
import yaml

from triton_router.config import editing, rollout_edits
from triton_router.config.editing import edit_router_file, edited_router_file, replace_text
from triton_router.errors import ConfigError, InvalidInputError, NotFoundError, UnavailableError, UnsupportedError

if TYPE_CHECKING:
    from pathlib import Path

    from triton_router.config.splicing import Splice

TEXT = "# mine\ntargets:\n  - {name: a, model: a}\n  - {name: b, model: b}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A valid router.yaml."""
    place = tmp_path / "router.yaml"
    place.write_text(TEXT)
    return place


def mirror(share: float) -> editing.Change:
    return lambda splice: splice.set(("mirror",), share)


def test_an_edit_is_in_place_with_permissions_and_comments_kept(path: Path) -> None:
    """The file's mode stays, nothing lies beside it, and what it was and is is returned."""
    path.chmod(0o640)
    assert edit_router_file(path, mirror(0.1)) == (TEXT, TEXT + "mirror: 0.1\n")
    assert path.read_text() == TEXT + "mirror: 0.1\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_stays(path: Path) -> None:
    """Root edits a user's file, and it is still the user's."""
    os.chown(path, 12345, 23456)
    edit_router_file(path, mirror(0.1))
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 23456)


def test_what_would_not_be_valid_is_not_written(path: Path) -> None:
    """The message names the file as it would be, and the key."""
    with pytest.raises(ConfigError, match=r"router.yaml as it would be:5: mirror: Input should be less than"):
        edit_router_file(path, mirror(7))
    assert path.read_text() == TEXT


def test_a_preview_writes_nothing(path: Path) -> None:
    """What would become of the file is returned, and the file is as it was."""
    assert edited_router_file(path, mirror(0.1)) == TEXT + "mirror: 0.1\n"
    assert path.read_text() == TEXT


def test_no_edit_among_many_at_once_is_lost(path: Path) -> None:
    """Eight editors of eight keys: all eight changes are there."""
    keys = {"explore": 0.01, "mirror": 0.0, "max_latency_ms": 9.0, "streaming": True}
    keys |= {"policy": "random", "retry": {"attempts": 1}, "hedge": {"share": 0.0}, "state": {"keep": False}}
    failures: list[BaseException] = []

    def edit(key: str, value: object) -> None:
        try:
            edit_router_file(path, lambda splice: splice.set((key,), value))
        except BaseException as error:  # noqa: BLE001 - told by the test
            failures.append(error)

    threads = [threading.Thread(target=edit, args=pair) for pair in keys.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert {key: yaml.safe_load(path.read_text())[key] for key in keys} == keys


def test_the_change_of_an_editor_that_takes_no_lock_is_kept(path: Path) -> None:
    """Somebody saves the file while an edit is prepared: the edit is made anew, of what they saved."""
    rounds = 0

    def change(splice: Splice) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 1:
            path.write_text(TEXT + "explore: 0.01\n")
        splice.set(("mirror",), 0.2)

    edit_router_file(path, change)
    assert rounds == 2
    assert path.read_text() == TEXT + "explore: 0.01\nmirror: 0.2\n"


def test_an_edit_gives_up_where_somebody_edits_all_the_time(path: Path) -> None:
    """Their last content stays, and the error says that nothing was written."""
    rounds = 0

    def change(splice: Splice) -> None:
        nonlocal rounds
        rounds += 1
        path.write_text(f"{TEXT}explore: 0.00{rounds}\n")
        splice.set(("mirror",), 0.2)

    with pytest.raises(UnavailableError, match="nothing was written"):
        edit_router_file(path, change)
    assert path.read_text() == f"{TEXT}explore: 0.00{rounds}\n"


def test_a_held_lock_is_waited_for_and_then_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another editor that hangs blocks nobody for ever."""
    monkeypatch.setattr(editing, "_PATIENCE_S", 0.2)
    with editing._turn(path.parent), pytest.raises(UnavailableError, match="another triton-router edits"):
        edit_router_file(path, mirror(0.1))
    edit_router_file(path, mirror(0.1))


def test_a_link_is_refused(path: Path) -> None:
    """As Kubernetes mounts a ConfigMap: neither the link nor what it leads to is replaced."""
    data = path.rename(path.with_name("..data.yaml"))
    path.symlink_to(data.name)
    with pytest.raises(UnsupportedError, match=r"link to \.\.data\.yaml, as in a Kubernetes ConfigMap"):
        edit_router_file(path, mirror(0.1))
    assert path.is_symlink()
    assert data.read_text() == TEXT


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Is named."""
    with pytest.raises(NotFoundError, match=r"router\.yaml does not exist"):
        edit_router_file(tmp_path / "router.yaml", mirror(0.1))


def test_a_text_is_replaced_only_where_it_is_the_expected_one(path: Path) -> None:
    """What undoes an edit undoes nobody else's."""
    replace_text(path, TEXT, "x")
    with pytest.raises(UnavailableError, match="changed by somebody else"):
        replace_text(path, TEXT, "y")
    assert path.read_text() == "x"


ROLLOUT = {"id": "r1", "canary": ["a-v2"], "steps": [10, 100], "by": "me"}
CANARY = {"name": "a-v2", "model": "a", "version": 2}


def begun(path: Path) -> None:
    def change(splice: Splice) -> None:
        rollout_edits.pin(splice, {"a": 1})
        rollout_edits.begin(splice, ROLLOUT, [CANARY])

    edit_router_file(path, change)


def test_a_rollout_begins_in_one_edit(path: Path) -> None:
    """The stable target is pinned, the canary is added, and the section says what was asked for."""
    begun(path)
    found = yaml.safe_load(path.read_text())
    assert [(t["name"], t.get("version")) for t in found["targets"]] == [("a", 1), ("b", None), ("a-v2", 2)]
    assert found["rollout"] == ROLLOUT
    assert path.read_text().startswith("# mine\n")


def test_weight_and_steps_replace_each_other(path: Path) -> None:
    """They may not stand together at any moment."""
    begun(path)
    edit_router_file(path, lambda s: rollout_edits.amend(s, {"weight": 10.0, "steps": None, "by": "you"}))
    assert yaml.safe_load(path.read_text())["rollout"] == {"id": "r1", "canary": ["a-v2"], "by": "you", "weight": 10.0}
    edit_router_file(path, lambda s: rollout_edits.amend(s, {"steps": [5, 50], "weight": None}))
    assert yaml.safe_load(path.read_text())["rollout"]["steps"] == [5, 50]


def test_targets_that_lost_go(path: Path) -> None:
    """With the rollout, and out of the settings of the parity guard; the others stay."""
    text = (
        path.read_text() + "  - {name: s, model: s}\nshadow: {target: s}\nparity: {reference: a, targets: [b, a-v2]}\n"
    )
    path.write_text(text)
    begun(path)
    gone: list[rollout_edits.Removed] = []
    edit_router_file(path, lambda s: gone.append(rollout_edits.finish(s, ["a", "b"])))
    found = yaml.safe_load(path.read_text())
    assert [target["name"] for target in found["targets"]] == ["s", "a-v2"]
    assert found["parity"] == {"targets": ["a-v2"]}
    assert "rollout" not in found
    assert [target["name"] for target in gone[-1].targets] == ["a", "b"]
    assert gone[-1].reference


def test_after_a_rollback_the_canary_goes(path: Path) -> None:
    """What is left is the file of before, but for the version that the stable target is pinned to."""
    begun(path)
    edit_router_file(path, lambda s: rollout_edits.finish(s, ["a-v2"]) and None)
    assert path.read_text() == TEXT.replace("{name: a, model: a}", "{name: a, model: a, version: 1}")
    edit_router_file(path, lambda s: rollout_edits.unpin(s, {"a": 1}))
    assert path.read_text() == TEXT


def test_without_a_rollout_there_is_nothing_to_change(path: Path) -> None:
    """Neither to amend nor to finish."""
    for change in (
        lambda s: rollout_edits.amend(s, {"paused": True}),
        lambda s: rollout_edits.finish(s, []),
    ):
        with pytest.raises(NotFoundError, match="there is no rollout"):
            edit_router_file(path, change)


def test_an_experiment_is_taken_out(path: Path) -> None:
    """One of two alone; the last with its section; one that is not there names those that are."""
    test = "{control_policy: latency, treatment_policy: random, treatment_percentage: 0.5, experiment_id: "
    path.write_text(f"{TEXT}ab_tests:\n  - {test}one}}  # the first\n  - {test}two}}\n")
    with pytest.raises(InvalidInputError, match=r"no experiment 'three'.*it has: one, two"):
        edit_router_file(path, lambda s: rollout_edits.stop_experiment(s, "three"))
    edit_router_file(path, lambda s: rollout_edits.stop_experiment(s, "one"))
    assert [t["experiment_id"] for t in yaml.safe_load(path.read_text())["ab_tests"]] == ["two"]
    edit_router_file(path, lambda s: rollout_edits.stop_experiment(s, "two"))
    assert path.read_text() == TEXT
