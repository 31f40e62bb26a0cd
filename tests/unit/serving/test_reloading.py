"""Edits of router.yaml: the good ones are followed, the others change nothing and are said once."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.serving.failing_targets import Rig
from triton_router.config.loading import parse_yaml
from triton_router.config.router_config import validate_router_config
from triton_router.config.running_changes import NEED_RELOAD, refuse_unfollowable
from triton_router.config.watched_file import fingerprint
from triton_router.errors import ConfigError
from triton_router.profiling.profile import TargetProfile
from triton_router.routing.engine import RoutingEngine
from triton_router.routing.policies import policy_named
from triton_router.routing.rules import RoutingRules
from triton_router.routing.types import Target
from triton_router.serving import assembly
from triton_router.serving.assembly import Way, assembled, way_of
from triton_router.serving.reloading import Reloading
from triton_router.testing.fake_stub import FakeRequest, FakeStub, FakeTensor, InferenceResponse

if TYPE_CHECKING:
    from pathlib import Path

    from triton_router.config.router_config import RouterConfig

ONE = "targets: [{name: a, model: a}]\n"


def config(text: str) -> RouterConfig:
    return validate_router_config(parse_yaml(ONE + text, source="router.yaml"))


def several(targets: int) -> RouterConfig:
    lines = [f"  - {{name: t{i}, model: t{i}}}" for i in range(targets)]
    text = "\n".join(["dispatch: {inline: false}", "targets:", *lines])
    return validate_router_config(parse_yaml(text, source="router.yaml"))


class Edited:
    """A watched file, and what is made of its edits."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_text("good 0")
        self.said: list[str] = []
        self.followed: list[str] = []
        self._edits = 0
        self.reloading = Reloading(path, self.said.append)
        self.reloading._follow = self._follow

    def edit(self, content: str | bytes) -> dict[str, Any]:
        """Write, have it looked at, and return the status."""
        self.path.write_bytes(content if isinstance(content, bytes) else content.encode())
        self._edits += 1
        os.utime(self.path, ns=(self._edits, self._edits))  # two edits may fall into one tick of the files' clock
        self.reloading.look()
        self.reloading.look()
        return self.reloading.status()

    def _follow(self, text: str) -> None:
        if "defect" in text:
            raise KeyError(text)
        if "good" not in text:
            raise ConfigError(f"line 1: {text}", hint="write good")
        self.followed.append(text)


@pytest.fixture
def edited(tmp_path: Path) -> Edited:
    return Edited(tmp_path / "router.yaml")


def test_a_good_edit_is_followed(edited: Edited) -> None:
    """Once, and counted."""
    assert edited.edit("good 1")["problem"] == ""
    edited.reloading.look()
    assert edited.followed == ["good 1"]
    assert edited.reloading.counts() == {
        "triton_router_settings_followed_total": 1,
        "triton_router_settings_refused_total": 0,
        "triton_router_settings_problem": False,
    }


def test_what_is_in_force_can_be_told_from_other_edits(edited: Edited) -> None:
    """By what the file said, from the beginning; an edit that is refused changes nothing of that."""
    assert edited.reloading.status()["content"] == fingerprint(b"good 0")
    assert edited.edit("good 1")["content"] == fingerprint(b"good 1")
    assert edited.edit("bad")["content"] == fingerprint(b"good 1")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("bad", "line 1: bad (hint: write good)"),
        (b"\xff good", "not UTF-8"),
        ("defect", "cannot be followed: KeyError"),
    ],
)
def test_a_wrong_edit_is_said_once_and_shown_until_a_good_one(
    edited: Edited, content: str | bytes, problem: str
) -> None:
    """Whatever is wrong with it, a defect of ours included, the watching goes on."""
    assert problem in edited.edit(content)["problem"]
    for _ in range(5):
        edited.reloading.look()
    assert len(edited.said) == 1
    assert edited.said[0].endswith("the settings of before stay in force")
    assert edited.reloading.counts()["triton_router_settings_problem"] == 1
    assert edited.edit("good 2")["problem"] == ""
    assert edited.followed == ["good 2"]
    edited.edit(content)
    assert len(edited.said) == 2, "it is news again"


def test_a_removed_file_is_shown(edited: Edited) -> None:
    """The model serves on, and the next load would fail."""
    edited.path.unlink()
    for _ in range(10):
        edited.reloading.look()
    assert "is gone" in edited.reloading.status()["problem"]
    assert edited.edit("good 3")["problem"] == ""


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("streaming", "streaming: true"),
        ("decision_log", "decision_log: {path: /tmp/x}"),
        ("state.keep", "state: {keep: false}"),
    ],
)
def test_what_needs_a_reload_is_refused(key: str, text: str) -> None:
    """By name, and with what to do; everything else can be followed."""
    with pytest.raises(ConfigError, match=key) as refused:
        refuse_unfollowable(config(""), config(text), "router.yaml")
    assert "reload the model with 'triton-router models load MODEL'" in refused.value.hint
    assert key in NEED_RELOAD
    refuse_unfollowable(config(text), config(text + "\npolicy: random\nmerge: {enabled: false}"), "router.yaml")


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_what_a_target_leaves_out_is_judged_by_the_targets_there_are(before: int, after: int) -> None:
    """One that comes by an edit supplies the outputs that another lacks; one that is left alone is as it is."""

    def serve(name: str, _: dict[str, Any]) -> InferenceResponse:
        return InferenceResponse([FakeTensor("Y")] if name == "t0" else [FakeTensor("Y"), FakeTensor("Z")])

    rig = Rig(serve, targets=before)
    rig.engine.reconfigure(
        policy_named("latency"),
        RoutingRules(explore=0.0, mirror=0.0),
        [(Target(f"t{i}", f"t{i}"), TargetProfile([(16, i + 1.0)])) for i in range(after)],
        kept={"t0"},
    )
    assembly.reconfigure(rig.dispatcher, several(before), several(after), {"max_batch_size": 0})
    for _ in range(5):
        (response,) = rig.answered(FakeRequest(outputs=frozenset({"Y", "Z"})))
        assert len(response.output_tensors()) == after
    assert bool(rig.engine.snapshot(0.0)[0].failed) == (after > 1)


def test_sequences_need_one_instance_or_a_sequence_batcher() -> None:
    """With several instances and nobody to keep them together they are refused; everything else is served."""
    settings = config("")
    two: dict[str, Any] = {"max_batch_size": 0, "instance_group": [{"count": 2}]}
    assert not way_of(settings, two).takes_sequences
    assert way_of(settings, {**two, "sequence_batching": {}}).takes_sequences
    assert way_of(settings, {**two, "instance_group": [{"count": 1}]}).takes_sequences

    stub: Any = FakeStub(lambda _: InferenceResponse())
    engine = RoutingEngine([(Target("a", "a"), TargetProfile())], policy_named("latency"), rng=lambda: 0.5)
    serving = assembled(stub, engine, engine.finish, Way(takes_sequences=False), warn=print)
    single, member = FakeRequest(), FakeRequest(correlation=7, sequence_flags=1)
    serving.execute([single, member])
    assert all(request.done.wait(60) for request in (single, member))
    serving.close()
    assert not single.answers[0][0].has_error()
    assert "several instances" in member.answers[0][0].error().message()
