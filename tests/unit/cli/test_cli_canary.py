"""``triton-router canary``: what it writes into router.yaml and config.pbtxt, and what it refuses."""

from __future__ import annotations

import getpass
import json
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from triton_router.cli import live
from triton_router.cli.canary import duration
from triton_router.cli.main import main
from triton_router.config.router_config import load_router_config
from triton_router.config.routing_of import plan_of
from triton_router.config.watched_file import fingerprint
from triton_router.experiments.rollout import Rollout
from triton_router.routing.types import Verdict
from triton_router.serving.status_socket import StatusSocket
from triton_router.telemetry.audit_log import AuditLog
from triton_router.telemetry.trial_files import TrialFiles, TrialState, audit_log_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TEXT = """\
# our embeddings
targets:
  - {name: onnx, model: m-onnx, variant: onnx, batch_independent: true}   # the reference
  - {name: int8, model: m-int8, variant: onnx-int8}
policy: latency
"""
CONFIG = 'backend: "python"  # ours\n'


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A routed model with two targets; of the first one's model there are two versions."""
    root = tmp_path / "models"
    for place in ("m-onnx/1", "m-onnx/2", "m-int8/1", "m/1"):
        (root / place).mkdir(parents=True)
    for model in ("m-onnx", "m-int8"):
        (root / model / "config.pbtxt").write_text(CONFIG + "version_policy { specific { versions: [ 1 ] } }\n")
    (root / "m" / "router.yaml").write_text(TEXT)
    return root


class Canary:
    """Runs the command for the routed model ``m`` and keeps what it printed."""

    def __init__(self, repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path = repository / "m" / "router.yaml"
        self.state = repository.parent / "state"
        self.err = ""
        self._capsys = capsys

    def __call__(self, action: str, *args: str, code: int = 0) -> str:
        where = ["--repository", str(self.path.parents[1]), "--state", str(self.state)]
        found = main(["canary", action, "m", *args, *where])
        captured = self._capsys.readouterr()
        self.err = captured.err
        assert found == code, captured
        return captured.out

    @property
    def settings(self) -> dict[str, Any]:
        return yaml.safe_load(self.path.read_text())

    @property
    def rollout(self) -> dict[str, Any]:
        return self.settings["rollout"]

    def observe(self, *, failures: int, answers: int) -> Rollout:
        """Leave behind what an instance has seen of the canary, beside as many good answers of stable."""
        config = load_router_config(self.path)
        assert config.rollout is not None
        rollout = Rollout(plan_of(config.rollout))
        log = AuditLog(audit_log_of(self.state, "m"), "m", "here")
        assert log.write(config.rollout.id, rollout.step(time.time()))
        for number in range(answers):
            rollout.canary.note(Verdict.TARGET_ERROR if number < failures else Verdict.SUCCESS, 2.0, 0.0)
            rollout.stable.note(Verdict.SUCCESS, 2.0, 0.0)
        log.write(config.rollout.id, rollout.step(time.time()))
        log.close()
        files = TrialFiles(self.state, "m", "here")
        files.claim()
        files.save(TrialState(model="m", written_at=time.time(), rollouts={config.rollout.id: rollout.state()}))
        files.close()
        return rollout


@pytest.fixture
def canary(repository: Path, capsys: pytest.CaptureFixture[str]) -> Canary:
    return Canary(repository, capsys)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10m", 600), ("30s", 30), ("1h", 3600), ("1.5h", 5400), ("2d", 172_800), ("45", 45), ("0", 0)],
)
def test_durations(text: str, seconds: float) -> None:
    """As people write them."""
    assert duration(text) == seconds


@pytest.mark.parametrize(
    "args",
    [
        ("--hold", "10 parsecs"),
        ("--hold", "2y"),
        ("--hold", "-5s"),
        ("--hold", "nan"),
        ("--steps", "1,x"),
        ("--weight", "101"),
        ("--weight", "10", "--steps", "1,5"),
        ("--version", "2"),
        ("--max-mismatch", "-1"),
    ],
)
def test_wrong_usage(canary: Canary, args: tuple[str, ...]) -> None:
    """Is refused by the parser, and nothing is touched."""
    with pytest.raises(SystemExit, match="2"):
        canary("start", "--target", "int8", *args)
    assert canary.path.read_text() == TEXT


def test_a_target_that_is_there_becomes_the_canary(canary: Canary) -> None:
    """Only the section is added; who began it is the user, and it has an id of its own."""
    canary("start", "--target", "int8", "--steps", "1,5,25,50,100", "--hold", "10m")
    assert canary.path.read_text().startswith(TEXT)
    rollout = canary.rollout
    assert rollout.pop("id").startswith("int8-")
    assert rollout == {"canary": ["int8"], "steps": [1, 5, 25, 50, 100], "hold_s": 600, "by": getpass.getuser()}
    assert "no router of this file could be asked here" in canary.err


def test_the_gate_is_written_as_asked(canary: Canary) -> None:
    """Percent and shares are the same; what was not said is left to its default."""
    options = ("--max-latency-increase", "20%", "--max-error-factor", "2", "--min-requests", "500")
    canary("start", "--target", "int8", *options, "--false-alarms", "0.01", "--no-rollback", "--by", "release bot")
    assert canary.rollout["gate"] == {
        "min_requests": 500,
        "max_error_factor": 2.0,
        "max_latency_increase": 0.2,
        "false_alarms": 0.01,
        "rollback": False,
    }
    assert canary.rollout["by"] == "release bot"


def test_parity_off_compares_no_answers(canary: Canary) -> None:
    """As a canary that is meant to answer differently needs it; a tolerance beside it is refused."""
    canary("start", "--target", "int8", "--parity", "off", "--max-mismatch", "5%", code=1)
    canary("start", "--target", "int8", "--parity", "off")
    assert canary.rollout["gate"] == {"max_mismatch": 1}


@pytest.mark.parametrize("word", ["--dry-run", "--print"])
def test_a_dry_run_prints_the_file_and_writes_nothing(canary: Canary, word: str) -> None:
    """On stdout, for a pipe."""
    printed = canary("start", "--target", "int8", "--id", "r1", "--by", "me", word)
    assert printed.startswith(TEXT)
    assert yaml.safe_load(printed)["rollout"]["id"] == "r1"
    assert canary.path.read_text() == TEXT


def test_what_is_not_valid_is_not_written(canary: Canary) -> None:
    """Steps that fall, a target that is not there, all targets."""
    for args in (("--target", "int8", "--steps", "50,5"), ("--target", "x"), ("--target", "int8", "--target", "onnx")):
        canary("start", *args, code=1)
        assert "as it would be" in canary.err
    assert canary.path.read_text() == TEXT


def test_a_configmap_is_not_edited_but_printed(canary: Canary) -> None:
    """The file that is to be applied stands on stdout; what to do with it, on stderr; nothing has changed."""
    data = canary.path.rename(canary.path.with_name("..data.yaml"))
    canary.path.symlink_to(data.name)
    for args in (("--target", "int8"), ("--version", "2", "--offline")):
        printed = canary("start", *args, code=1)
        assert yaml.safe_load(printed)["rollout"]["canary"]
        assert "cannot be edited in place: it is a link" in canary.err
        assert "apply it where the file comes from" in canary.err
    assert data.read_text() == TEXT
    assert "[ 1 ]" in (canary.path.parents[1] / "m-onnx" / "config.pbtxt").read_text()


def test_its_life_by_hand(canary: Canary) -> None:
    """Each command changes what it says and who said so, and nothing else."""
    canary("start", "--target", "int8", "--by", "a")
    first = canary.rollout
    canary("set", "--weight", "10", "--by", "b")
    assert canary.rollout == {"id": first["id"], "canary": ["int8"], "hold_s": 600, "by": "b", "weight": 10}
    assert f"rollout {first['id']} of m now gets 10% of the requests" in canary.err
    canary("set", "--steps", "20,100", "--hold", "1h", "--by", "c")
    assert f"rollout {first['id']} of m now gets 20% -> 100% of the requests, 1h each" in canary.err
    assert (canary.rollout["steps"], canary.rollout["hold_s"]) == ([20, 100], 3600)
    assert "weight" not in canary.rollout
    canary("set", code=1)
    canary("pause", "--by", "d")
    assert canary.rollout["paused"] is True
    canary("resume", "--by", "e")
    assert "paused" not in canary.rollout
    canary("start", "--target", "onnx", code=1)
    assert "is running" in canary.err
    canary("finish", code=1)
    assert "promote it or abort it first" in canary.err
    canary("abort", "--by", "f")
    assert (canary.rollout["outcome"], canary.rollout["by"]) == ("abort", "f")
    assert f"canary finish m --repository {canary.path.parents[1]}' takes int8 out" in canary.err
    assert "with --keep it stays" in canary.err
    canary("resume", code=1)
    canary("finish")
    assert [target["name"] for target in canary.settings["targets"]] == ["onnx"]
    assert "triton-router models unload m-int8" in canary.err
    canary("finish", code=1)


def test_after_a_promotion_the_canary_is_what_is_left(canary: Canary) -> None:
    """Comments on what stays stay."""
    canary("start", "--target", "int8")
    canary("promote")
    done = json.loads(canary("finish", "--json"))
    assert (done["phase"], done["removed"]) == ("promoted", ["onnx"])
    assert canary.path.read_text() == (
        "# our embeddings\ntargets:\n  - {name: int8, model: m-int8, variant: onnx-int8}\npolicy: latency\n"
    )


@pytest.mark.parametrize(("outcome", "lost"), [("abort", ["int8"]), ("promote", ["onnx"])])
def test_a_shadow_does_not_lose(canary: Canary, outcome: str, lost: list[str]) -> None:
    """It gets no requests, whoever wins, and is of neither arm."""
    shadow = "  - {name: shadow, model: m-shadow}\npolicy: latency\nshadow: {target: shadow}\n"
    canary.path.write_text(TEXT.replace("policy: latency\n", shadow))
    canary("start", "--target", "int8")
    canary(outcome)
    assert json.loads(canary("finish", "--json"))["removed"] == lost


@pytest.mark.parametrize("outcome", ["abort", "promote"])
def test_a_rollout_ends_and_every_target_stays(canary: Canary, outcome: str) -> None:
    """With --keep the file is to the character what it was before the rollout, however that went."""
    canary("start", "--target", "int8")
    canary("finish", "--keep", code=1)
    assert "promote it or abort it first" in canary.err
    canary(outcome)
    assert canary("finish", "--keep", "--dry-run") == TEXT
    done = json.loads(canary("finish", "--keep", "--json"))
    assert (done["removed"], done["kept"]) == ([], ["onnx", "int8"])
    assert "unload" not in canary.err
    assert canary.path.read_text() == TEXT


def test_what_is_kept_is_not_unloaded(canary: Canary) -> None:
    """Who asks for both is told, and nothing is touched."""
    canary("start", "--target", "int8")
    canary("abort")
    before = canary.path.read_text()
    with pytest.raises(SystemExit, match="2"):
        canary("finish", "--keep", "--unload")
    assert canary.path.read_text() == before


def test_another_version_without_a_server(canary: Canary, repository: Path) -> None:
    """Its model serves both, the stable target is pinned, the canary is added, and comments stay."""
    canary("start", "--version", "2", "--offline", "--by", "me", "--id", "r1")
    stable, int8, added = canary.settings["targets"]
    assert (stable["version"], int8.get("version")) == (1, None)
    expected = {"name": "onnx-v2", "model": "m-onnx", "version": 2, "variant": "onnx", "batch_independent": True}
    assert added == expected
    assert "# the reference\n" in canary.path.read_text()
    config = (repository / "m-onnx" / "config.pbtxt").read_text()
    assert config == CONFIG + "version_policy { specific { versions: [ 1, 2 ] } }\n"
    canary("abort")
    canary("finish")
    again = f"triton-router canary finish m --unload --repository {repository}"
    assert f"other versions of m-onnx may still be loaded: '{again}' lets go of them" in canary.err
    canary("finish", "--unload", "--url", "http://127.0.0.1:9", code=1)
    assert "cannot be reached" in canary.err, "that a rollout has ended already is no obstacle"
    assert [target["name"] for target in canary.settings["targets"]] == ["onnx", "int8"]


def test_a_version_that_cannot_be_started_changes_nothing(canary: Canary, repository: Path) -> None:
    """One that is not there, one that serves already, a server that is not there."""
    before = canary.path.read_text()
    for args, says in (
        (("--version", "3", "--offline"), "no target's model has a version 3: m-onnx has 1, 2; m-int8 has 1"),
        (("--version", "1", "--offline"), "is what target 'onnx' serves already"),
        (("--version", "2", "--of", "nobody", "--offline"), "there is no target 'nobody'"),
        (("--version", "2", "--of", "int8", "--offline"), "no target's model has a version 2: m-int8 has 1"),
        (("--version", "2", "--url", "http://127.0.0.1:9"), "cannot be reached"),
    ):
        canary("start", *args, code=1)
        assert says in canary.err
    assert canary.path.read_text() == before
    assert "[ 1 ]" in (repository / "m-onnx" / "config.pbtxt").read_text()


def test_a_status_of_what_nobody_has_seen(canary: Canary) -> None:
    """Says so; without a rollout it says how to begin one."""
    canary("status", code=1)
    assert "triton-router canary start" in canary.err
    canary("start", "--target", "int8")
    assert "running as router.yaml has it" in canary("status")
    assert "nothing was observed" in canary.err


def test_a_status_from_the_state_directory(canary: Canary) -> None:
    """A router that has ended has left arms, tests and the audit log; a rolled back canary is finished by that."""
    canary("start", "--target", "int8", "--weight", "50", "--id", "r1")
    assert canary.observe(failures=150, answers=300).phase == "rolled_back"
    table = canary("status")
    assert "rolled_back: 0% of the requests" in table
    assert "takes int8 out of router.yaml" in canary.err
    assert [line.split()[:3] for line in table.splitlines() if line.startswith(("canary", "stable"))] == [
        ["canary", "300", "150"],
        ["stable", "300", "0"],
    ]
    assert "from the state directory" in table
    events = [line.split()[2:4] for line in table.splitlines() if line[:2] == "20"]
    assert [event for _, event in events] == ["begin", "rollback"]
    found = json.loads(canary("status", "--json"))
    assert found["phase"] == found["instances"][0]["phase"] == "rolled_back"
    assert [entry["event"] for entry in found["audit"]] == ["begin", "rollback"]

    canary("set", "--weight", "10", code=1)
    canary("start", "--target", "onnx", code=1)
    assert "canary finish m" in canary.err
    canary("start", "--target", "int8", "--id", "r2")
    assert canary.rollout["id"] == "r2", "it may try again"
    canary("finish", code=1)
    canary.observe(failures=150, answers=300)
    canary("finish")
    assert [target["name"] for target in canary.settings["targets"]] == ["onnx"]


class Says(dict[str, Any]):
    """What a router says, which counts how often it was asked."""

    asked = 0

    def told(self) -> dict[str, Any]:
        self.asked += 1
        return self


@pytest.fixture
def serving(canary: Canary) -> Iterator[Says]:
    """A router that serves the file, and says what the test has it say."""
    status = Says({"model": "m", "policy": "latency", "targets": []})
    status["settings"] = {"file": str(canary.path), "followed_at": 0.0, "followed": 0, "refused": 0, "problem": ""}
    served = StatusSocket(status.told)
    served.start()
    yield status
    served.close()


def once_asked_about_an_edit(canary: Canary, serving: Says, change: Callable[[], None]) -> threading.Thread:
    """Have the router change its mind when the file has been edited, and it has been asked about that and answered."""
    text = canary.path.read_bytes()

    def wait() -> None:
        end = time.monotonic() + 60
        while canary.path.read_bytes() == text and time.monotonic() < end:
            time.sleep(0.01)
        asked = serving.asked
        while serving.asked < asked + 2 and time.monotonic() < end:
            time.sleep(0.01)
        change()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")
def test_a_live_status_goes_before_files(canary: Canary, serving: dict[str, Any]) -> None:
    """What the router reports is shown, and what it decided counts."""
    serving["settings"]["followed_at"] = time.time() + 1000  # follows at once
    canary("start", "--target", "int8", "--id", "r1")
    assert "the router that serves it has taken it up" in canary.err
    rollout = Rollout(plan_of(load_router_config(canary.path).rollout))  # type: ignore[arg-type] - it is there
    rollout.step(time.time())
    serving["rollout"] = rollout.report(time.time())
    table = canary("status")
    assert "running, step 1 of 5: 1% of the requests" in table
    assert "waits for: " in table
    assert "live, server" in table
    serving["rollout"] = {**serving["rollout"], "id": "another"}
    assert "as router.yaml has it" in canary("status"), "of the rollout in the file nothing is known"


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")
def test_a_status_says_what_a_step_of_all_holds_back(canary: Canary, serving: dict[str, Any]) -> None:
    """98 percent, which are all once the step has been stood."""
    serving["settings"]["followed_at"] = time.time() + 1000
    canary("start", "--target", "int8", "--steps", "100")
    rollout = Rollout(plan_of(load_router_config(canary.path).rollout))  # type: ignore[arg-type] - it is there
    rollout.step(time.time())
    serving["rollout"] = rollout.report(time.time())
    assert "running, step 1 of 1: 98% (100% once it has stood this step) of the requests" in canary("status")


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")
def test_an_edit_that_the_router_refuses_is_an_error(canary: Canary, serving: Says) -> None:
    """The file may be valid, and the model that serves still be unable to follow it; what it said before is over.

    A rollout that was refused must not begin by itself later: the file is put back.
    """
    settings = serving["settings"]
    settings |= {"problem": "an earlier edit", "refused": 1}

    def look() -> None:
        settings.update({"problem": "target 'int8' has fewer rows", "refused": 2})

    looking = once_asked_about_an_edit(canary, serving, look)
    canary("start", "--target", "int8", code=1)
    assert "the router does not follow it: target 'int8' has fewer rows" in canary.err
    assert "undone: everything is as it was before" in canary.err
    looking.join()
    assert canary.path.read_text() == TEXT


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")
@pytest.mark.parametrize(("action", "written"), [("abort", "outcome: abort"), ("pause", "paused: true")])
def test_an_end_that_the_router_refuses_stays_wanted(canary: Canary, serving: Says, action: str, written: str) -> None:
    """To stop a canary is what the file goes on to say, and the command says that it does."""
    serving["settings"]["followed_at"] = time.time() + 1000
    canary("start", "--target", "int8", "--weight", "10")
    serving["settings"]["followed_at"] = 0.0

    def look() -> None:
        serving["settings"].update({"problem": "the decision log cannot be moved", "refused": 1})

    looking = once_asked_about_an_edit(canary, serving, look)
    canary(action, code=1)
    assert "is edited all the same: that holds as soon as the router follows it" in canary.err
    looking.join()
    assert written in canary.path.read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")
def test_another_editors_edit_is_not_taken_for_this_one(canary: Canary, serving: Says) -> None:
    """That something was followed meanwhile says nothing: what is in force has to be what the file says."""
    settings = serving["settings"]
    settings |= {"followed_at": time.time() + 1000, "content": fingerprint(b"what somebody else wrote")}

    def look() -> None:
        settings["content"] = fingerprint(canary.path.read_bytes())

    looking = once_asked_about_an_edit(canary, serving, look)
    canary("start", "--target", "int8")
    assert settings["content"] == fingerprint(canary.path.read_bytes()), "it was not waited for"
    assert "has taken it up" in canary.err
    looking.join()


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")
def test_an_edit_that_somebody_goes_on_from_is_followed_with_theirs(canary: Canary, serving: dict[str, Any]) -> None:
    """A router that looks a few times a second may never see the first of two, or have seen the first alone."""
    serving["settings"] |= {"content": fingerprint(canary.path.read_bytes())}
    assert live.await_followed(canary.path, lambda _: True, text="the first of two", since=time.time())
    canary.path.write_text("the second of two")
    serving["settings"] |= {"content": fingerprint(b"the first of two")}
    assert live.await_followed(canary.path, lambda _: True, text="the first of two", since=time.time())
