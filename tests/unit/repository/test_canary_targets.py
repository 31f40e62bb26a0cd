"""What a canary of another version takes, and whom it would move by accident."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from triton_router.config.loading import load_yaml
from triton_router.config.router_config import load_router_config
from triton_router.errors import InvalidInputError
from triton_router.repository.canary_targets import CanaryPlan, plan_canary, refuse_moving_others
from triton_router.repository.versions import require_no_rollout

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

MEASURED = "measured_latency: [{work: 1, latency_ms: 5.0}]"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for model in ("a", "b"):
        for version in (1, 2, 3):
            (tmp_path / model / str(version)).mkdir(parents=True)
        (tmp_path / model / "config.pbtxt").write_text("")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "router.yaml").write_text(
        f"targets:\n  - {{name: a-v1, model: a, version: 1, batch_independent: true, {MEASURED}, device: x}}\n"
        "  - {name: b, model: b}\n  - {name: again, model: b}\n"
    )
    return tmp_path


def planned(
    repository: Path, version: int, only: Collection[str] = (), ready: dict[str, tuple[int, ...]] | None = None
) -> CanaryPlan:
    path = repository / "m" / "router.yaml"
    served = {"a": (1,), "b": (2,)} if ready is None else ready
    settings: list[dict[str, Any]] = load_yaml(path).data["targets"]
    config = load_router_config(path)
    return plan_canary(repository, config, settings, version, only=only, ready=lambda model: served.get(model, ()))


def test_a_canary_is_like_its_target_but_for_what_was_measured(repository: Path) -> None:
    """Latencies of one version say nothing of another; what a person declared of the model is taken over, and said."""
    plan = planned(repository, 2, only=["a-v1"])
    assert plan.added == [{"name": "a-v2", "model": "a", "version": 2, "device": "x", "batch_independent": True}]
    assert plan.served == {"a": (1, 2)}
    assert plan.pins == {}
    assert plan.moved
    assert [note.partition(":")[0] for note in plan.notes] == [
        "b gets no canary",
        "again gets no canary",
        "a-v2 is taken to be batch_independent as a-v1 is declared to be",
    ]


def test_what_was_checked_of_a_version_is_taken_from_its_manifest(repository: Path) -> None:
    """As ``triton-router add`` leaves it: this version's rows depend on each other, and it is that fast."""
    checks = {"batch": "dependent", "latency": [{"work": 8, "latency_ms": 1.23456}]}
    manifest = {"schema": 1, "versions": {"1": {}, "2": {"checks": checks}}}
    (repository / "a" / "manifest.json").write_text(json.dumps(manifest))
    plan = planned(repository, 2, only=["a-v1"])
    assert plan.added[0]["measured_latency"] == [{"work": 8, "latency_ms": 1.235}]
    assert "batch_independent" not in plan.added[0]
    assert not any("batch_independent" in note for note in plan.notes)


def test_every_target_of_the_model_is_pinned(repository: Path) -> None:
    """Not only the one that gets a canary: the other would be given the new version too."""
    plan = planned(repository, 3, only=["b"])
    assert plan.pins == {"b": 2, "again": 2}
    assert plan.served == {"b": (2, 3)}
    assert plan.moved


def test_an_older_version_moves_nobody(repository: Path) -> None:
    """Who names no version goes on with the highest one."""
    plan = planned(repository, 1, only=["b"])
    assert not plan.moved
    assert plan.served == {"b": (1, 2)}


def test_all_targets_whose_model_has_the_version(repository: Path) -> None:
    """Without a choice."""
    (repository / "b" / "3").rmdir()
    assert [target["name"] for target in planned(repository, 3).added] == ["a-v3"]


def test_a_model_that_is_not_loaded_is_judged_by_its_files(repository: Path) -> None:
    """Its version policy says what would be served."""
    (repository / "b" / "config.pbtxt").write_text("version_policy { specific { versions: [ 1 ] } }")
    assert planned(repository, 2, only=["b"], ready={}).pins == {"b": 1, "again": 1}


def test_what_serves_already_is_no_canary(repository: Path) -> None:
    """Whether it stands in the file or is what Triton takes by itself."""
    with pytest.raises(InvalidInputError, match=r"version 2 of 'b' is what target 'b' serves already"):
        planned(repository, 2, only=["b"])
    with pytest.raises(InvalidInputError, match="target 'a-v1' calls version 1 of 'a' already"):
        planned(repository, 1, only=["a-v1"])


@pytest.mark.parametrize(
    ("file", "text", "is_moved"),
    [
        ("router.yaml", "targets: [{name: x, model: a}]", True),
        ("router.yaml", "targets: [{name: x, model: a, version: 1}]", False),
        ("router.yaml", "targets: [{name: x, model: b}]", False),
        ("router.yaml", "not valid", False),
        ("config.pbtxt", 'ensemble_scheduling { step { model_name: "a" model_version: -1 } }', True),
        ("config.pbtxt", 'ensemble_scheduling { step { model_name: "a" model_version: 1 } }', False),
    ],
)
def test_nobody_else_is_moved_unasked(repository: Path, file: str, text: str, is_moved: bool) -> None:
    """Another routed model or an ensemble that names no version would get the new one at once: refused by name."""
    (repository / "other").mkdir()
    (repository / "other" / file).write_text(text)
    plan = planned(repository, 2, only=["a-v1"])
    if not is_moved:
        refuse_moving_others(repository, "m", plan)
        return
    with pytest.raises(InvalidInputError, match="'other' calls 'a' without naming a version"):
        refuse_moving_others(repository, "m", plan)
    refuse_moving_others(repository, "m", plan._replace(moved=False))


def test_nothing_is_added_while_two_versions_share_the_requests(repository: Path) -> None:
    """An addition writes all targets anew: it would take the canary out from under its rollout."""
    path = repository / "m" / "router.yaml"
    require_no_rollout(repository / "m")
    require_no_rollout(repository / "new")
    path.write_text(path.read_text() + "rollout: {id: r, canary: [b]}\n")
    with pytest.raises(InvalidInputError, match=r"has a rollout.*canary finish m"):
        require_no_rollout(repository / "m")
