"""``triton-router experiments``: which there are, what they have shown, and their end."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from triton_router.cli.main import main
from triton_router.config.router_config import load_router_config
from triton_router.config.routing_of import splits_of
from triton_router.experiments.ab_results import Experiment
from triton_router.experiments.split import Arm
from triton_router.routing.types import Verdict
from triton_router.serving.status_socket import StatusSocket
from triton_router.telemetry.trial_files import TrialFiles, TrialState

if TYPE_CHECKING:
    from pathlib import Path

TARGETS = "targets:\n  - {name: a, model: a}\n"
TEXT = f"""{TARGETS}ab_tests:
  - experiment_id: policies   # since May
    control_policy: latency
    treatment_policy: least-request
    treatment_percentage: 0.5
  - {{experiment_id: later, control_policy: latency, treatment_policy: random, treatment_percentage: 0.1}}
  - {{experiment_id: else, models: ["x*"], control_policy: random, treatment_policy: latency, treatment_percentage: 0}}
"""


class Experiments:
    """Runs the command for the routed model ``m`` and keeps what it printed."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path = root / "models" / "m" / "router.yaml"
        self.state = root / "state"
        self.err = ""
        self._capsys = capsys
        self.path.parent.mkdir(parents=True)
        self.path.write_text(TEXT)

    def __call__(self, action: str, *args: str, code: int = 0) -> str:
        where = ["--repository", str(self.path.parents[1]), "--state", str(self.state)]
        found = main(["experiments", action, "m", *args, *where])
        captured = self._capsys.readouterr()
        self.err = captured.err
        assert found == code, captured
        return captured.out

    def seen(self, *, answers: int) -> Experiment:
        """Return what an instance has seen, with a treatment that takes three times as long."""
        split = splits_of(load_router_config(self.path))[0]
        experiment = Experiment(split)
        experiment.tick(time.time())
        for number in range(answers):
            spread = 0.01 * (number % 7)
            experiment.witness_of(Arm.CONTROL).note(Verdict.SUCCESS, 2.0 + spread, spread)
            experiment.witness_of(Arm.TREATMENT).note(Verdict.SUCCESS, 6.0 + spread, 1.1 + spread)
        return experiment

    def leave(self, *instances: Experiment) -> None:
        """Leave behind what so many instances have seen."""
        held: list[TrialFiles] = []
        for experiment in instances:
            held.append(TrialFiles(self.state, "m", "here"))
            held[-1].claim()
            state = {"policies": experiment.state()}
            held[-1].save(TrialState(model="m", written_at=time.time(), experiments=state))
        for files in held:
            files.close()


@pytest.fixture
def experiments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Experiments:
    return Experiments(tmp_path, capsys)


def test_the_list_says_which_takes_place(experiments: Experiments) -> None:
    """Of several that cover a model the first does; those of other models are told apart."""
    table = experiments("list")
    states = {line.split()[0]: " ".join(line.split()[1:]) for line in table.splitlines()}
    assert states["policies"] == "running 0.5 request latency least-request"
    assert states["later"].startswith("behind policies")
    assert states["else"].startswith("for other models")
    found = json.loads(experiments("list", "--json"))
    assert (found[0]["experiment_id"], found[0]["state"]) == ("policies", "running")
    experiments.path.write_text(TEXT + "router_config: {enable_ab_testing: false}\n")
    assert "off (enable_ab_testing)" in experiments("list")
    experiments.path.write_text(TARGETS)
    assert experiments("list") == ""
    assert "has no experiments" in experiments.err


def test_results_from_files_add_up(experiments: Experiments) -> None:
    """Two instances have each seen 300 of both arms: 600 of both, and a verdict."""
    experiments.leave(experiments.seen(answers=300), experiments.seen(answers=300))
    table = experiments("results")
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines()}
    assert rows["control"][:3] == ["latency", "600", "0"]
    assert rows["treatment"][:3] == ["least-request", "600", "0"]
    assert "verdict: treatment is" in table
    assert "slower" in table
    found: dict[str, Any] = json.loads(experiments("results", "--json", "--id", "policies"))
    assert found["instances"][0]["arms"]["treatment"]["answers"] == 600
    assert found["instances"][0]["sample_ratio"]["is_suspect"] is False


def test_results_of_a_router_that_serves(experiments: Experiments) -> None:
    """Go before files."""
    experiments.leave(experiments.seen(answers=10))
    status: dict[str, Any] = {"model": "m", "policy": "latency", "targets": []}
    status["settings"] = {"file": str(experiments.path), "followed_at": 0.0, "followed": 0, "refused": 0, "problem": ""}
    status["experiment"] = experiments.seen(answers=77).report(time.time())
    served = StatusSocket(lambda: status)
    served.start()
    try:
        found = json.loads(experiments("results", "--json"))
    finally:
        served.close()
    assert found["instances"][0]["source"].startswith("live, server")
    assert found["instances"][0]["arms"]["control"]["answers"] == 77


def test_results_that_nobody_knows(experiments: Experiments) -> None:
    """Are an error that says where they would come from; so is an experiment that is not there."""
    experiments("results", code=1)
    assert "a router has to serve it here" in experiments.err
    experiments("results", "--id", "none", code=1)
    assert "router.yaml has: policies, later, else" in experiments.err


def test_results_of_a_model_without_experiments(experiments: Experiments) -> None:
    """It is said that there are none, not that one of none is to be chosen."""
    experiments.path.write_text(TARGETS)
    for action in ("results", "stop"):
        experiments(action, code=1)
        assert "error: m has no experiments: 'ab_tests' in its router.yaml is empty" in experiments.err
        assert "--id" not in experiments.err


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_picture(experiments: Experiments, tmp_path: Path, suffix: str) -> None:
    """Of the same figures; the same figures give the same file."""
    pytest.importorskip("matplotlib")
    experiments.leave(experiments.seen(answers=50))
    one, other = tmp_path / f"one.{suffix}", tmp_path / f"other.{suffix}"
    experiments("results", "--plot", str(one))
    experiments("results", "--plot", str(other))
    assert one.read_bytes() == other.read_bytes()
    assert one.read_bytes()[:5] in {b"\x89PNG\r", b"<?xml"}
    experiments("results", "--plot", str(tmp_path / "one.pdf"), code=1)


def test_an_experiment_is_stopped(experiments: Experiments) -> None:
    """Where there are several, by its id; the others, and their comments, stay."""
    experiments("stop", code=1)
    assert "say which experiment with --id" in experiments.err
    printed = experiments("stop", "--id", "later", "--dry-run")
    assert experiments.path.read_text() == TEXT
    assert [test["experiment_id"] for test in yaml.safe_load(printed)["ab_tests"]] == ["policies", "else"]
    experiments("stop", "--id", "later")
    assert experiments.path.read_text() == printed
    assert "# since May" in printed
    experiments("stop", "--id", "else")
    assert json.loads(experiments("stop", "--json"))["stopped"] == "policies"
    assert experiments.path.read_text() == TARGETS


def test_what_is_stopped_is_shown_a_last_time(experiments: Experiments) -> None:
    """Afterwards nothing shows it: a dry run warns, and the stop itself prints what it has shown."""
    experiments.leave(experiments.seen(answers=300))
    experiments("stop", "--id", "policies", "--dry-run")
    assert "save them first: triton-router experiments results m --id policies --json" in experiments.err
    before = experiments.path.read_text()
    table = experiments("stop", "--id", "policies")
    assert "verdict: treatment is" in table
    assert "results are not shown any more" in experiments.err
    experiments.path.write_text(before)
    found = json.loads(experiments("stop", "--id", "policies", "--json"))
    assert found["instances"][0]["arms"]["treatment"]["answers"] == 300
