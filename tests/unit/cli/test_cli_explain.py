"""``triton-router explain``: what would be chosen, from settings and snapshots, by the engine that serves."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from triton_router.cli.main import main
from triton_router.config.router_config import TargetConfig
from triton_router.experiments.rollout import Rollout
from triton_router.experiments.rollout_plan import RolloutPlan
from triton_router.profiling.profile import TargetProfile
from triton_router.repository.manifest import MANIFEST_FILE
from triton_router.telemetry.snapshot_file import Snapshot, TargetState, identity_of, write_snapshot
from triton_router.telemetry.trial_files import TrialFiles, TrialState

if TYPE_CHECKING:
    from pathlib import Path

TARGETS: list[dict[str, Any]] = [
    {"name": "small", "model": "m-small", "backend": "cpu", "variant": "onnx-int8", "power_w": 40.0}
    | {"price_per_hour": 0.36, "measured_latency": [{"work": 16, "latency_ms": 4.0}]},
    {"name": "large", "model": "m-large", "backend": "gpu", "measured_latency": [{"work": 16, "latency_ms": 2.0}]},
]

CONFIG = """
backend: "onnxruntime"
max_batch_size: 8
input { name: "X" data_type: TYPE_FP32 dims: [ 16 ] }
output { name: "Y" data_type: TYPE_FP32 dims: [ 4 ] }
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A routed model over two targets."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state-home"))
    place = tmp_path / "models"
    (place / "routed").mkdir(parents=True)
    (place / "routed" / "router.yaml").write_text(yaml.safe_dump({"targets": TARGETS, "policy": "latency"}))
    (place / "m-small").mkdir()
    (place / "m-small" / "config.pbtxt").write_text(CONFIG)
    (place / "m-large").mkdir()
    return place


def snapshot(
    path: Path, *, small: float, large: float, origin: str = "x", model: str = "routed", answers: int = 30
) -> Path:
    """Write what was learned when the targets took so long for one row, in milliseconds."""
    states: dict[str, TargetState] = {}
    for settings, latency in zip(TARGETS, (small, large), strict=True):
        profile = TargetProfile()
        for _ in range(answers):
            profile.record_latency(latency, 16.0, profile.predict_latency(16.0), alone=True)
        identity = identity_of(TargetConfig.model_validate(settings))
        states[settings["name"]] = TargetState(identity=identity, profile=profile.state())
    write_snapshot(
        path,
        Snapshot(model=model, instance="host", machine="any", origins=(origin,), written_at=1.0, targets=states),
    )
    return path


def explain(capsys: pytest.CaptureFixture[str], repository: Path, *words: str) -> dict[str, Any]:
    """Return what ``--json`` prints."""
    main(["explain", "routed", "--repository", str(repository), "--json", *words])
    return json.loads(capsys.readouterr().out)


def test_without_a_snapshot_it_rests_on_the_build(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says so, and a row's size comes from the target's config.pbtxt."""
    told = explain(capsys, repository, "--batch", "4")
    assert told["chosen"] == "large"
    assert "build time alone" in told["basis"]
    assert (told["rows"], told["work"], told["notes"]) == (4, 64.0, [])
    small, large = told["targets"]
    assert large["expected_latency_ms"] < small["expected_latency_ms"]
    assert large["probability"] > 0.9
    assert large["energy_j"] == {"value": 0.0, "source": "unknown"}
    assert small["energy_j"]["source"] == "estimated"
    cost = 0.36 * small["expected_latency_ms"] / 3_600_000
    assert small["price_per_request"] == {"value": pytest.approx(cost), "source": "estimated"}


def test_a_snapshot_wins_over_the_build(repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was learned is what the router would go by."""
    file = snapshot(tmp_path / "a.json", small=1.0, large=9.0)
    told = explain(capsys, repository, "--snapshot", str(file))
    assert (told["chosen"], told["fallbacks"]) == ("small", ["large"])
    assert "60 answers" in told["basis"]
    assert told["targets"][1]["expected_latency_ms"] == pytest.approx(9.0, rel=0.1)


def test_snapshots_of_two_instances_add_up(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their evidence counts together; the same evidence twice counts once, and that is said."""
    first = str(snapshot(tmp_path / "a.json", small=1.0, large=9.0, origin="a"))
    second = str(snapshot(tmp_path / "b.json", small=1.0, large=9.0, origin="b"))
    assert "120 answers" in explain(capsys, repository, "--snapshot", first, "--snapshot", second)["basis"]
    twice = explain(capsys, repository, "--snapshot", first, "--snapshot", first)
    assert "60 answers" in twice["basis"]
    assert "already" in twice["notes"][0]


def test_a_requests_wishes_count(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Goal, backends and latency bound: as the same request would find it."""
    assert explain(capsys, repository, "--goal", "power")["policy"] == "power"
    told = explain(capsys, repository, "--backends", "cpu")
    assert told["chosen"] == "small"
    assert told["targets"][1]["rejected"] == "backend not allowed by the request"
    assert explain(capsys, repository, "--max-latency-ms", "0.5")["reason"] == "late"
    told = explain(capsys, repository, "--backends", "neural_engine")
    assert told["chosen"] is None


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--batch", "9"], "takes 8 at most"),
        (["--shape", "9,16"], "takes 8 at most"),
        (["--shape", "8,16", "--batch", "2"], "contradict"),
        (["--key", "k" * 129], "128 characters"),
    ],
)
def test_what_a_server_would_refuse_is_not_explained(
    repository: Path, capsys: pytest.CaptureFixture[str], words: list[str], complaint: str
) -> None:
    """A request of more rows than the model takes, of two sizes at once, or with too long a key finds nobody."""
    assert main(["explain", "routed", "--repository", str(repository), *words]) == 1
    assert complaint in capsys.readouterr().err


def test_the_models_own_word_on_rows_counts(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the routed model's config.pbtxt declares stands before what its targets take."""
    (repository / "routed" / "config.pbtxt").write_text('backend: "router"\nmax_batch_size: 4\n')
    assert main(["explain", "routed", "--repository", str(repository), "--batch", "5"]) == 1
    assert "takes 4 at most" in capsys.readouterr().err
    assert explain(capsys, repository, "--batch", "4")["rows"] == 4


def test_the_table_says_the_same(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Chosen target, scorer with its weight, and unknown where nothing is known."""
    assert main(["explain", "routed", "--repository", str(repository)]) == 0
    model, rests, chosen, then, header, small, large = capsys.readouterr().out.splitlines()
    assert then == "then      small"
    assert model == "routed  1 rows, 16 elements, policy latency"
    assert rests.endswith("build time alone")
    assert chosen == "chosen    large (by policy)"
    assert "LATENCY X1.00" in header
    assert small.split()[:2] == ["small", "cpu"]
    assert "unknown" in large


def test_a_refused_request_is_a_failure(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, with each target's reason on stdout."""
    assert main(["explain", "routed", "--repository", str(repository), "--backends", "mps"]) == 1
    assert capsys.readouterr().out.count("backend not allowed") == 2


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--backends", "tpu"], "--backends cannot be 'tpu'"),
        (["--snapshot", "nowhere.json"], "there is no snapshot nowhere.json"),
    ],
)
def test_what_is_wrong_is_refused(
    repository: Path, capsys: pytest.CaptureFixture[str], words: list[str], error: str
) -> None:
    """With the option's own name, and a hint."""
    assert main(["explain", "routed", "--repository", str(repository), *words]) == 1
    told = capsys.readouterr().err
    assert error in told
    assert "hint:" in told


@pytest.mark.parametrize("words", [["--shape", "8,x"], ["--shape", ""], ["--batch", "0"], ["--goal", "speed"]])
def test_what_cannot_be_parsed_is_wrong_usage(repository: Path, words: list[str]) -> None:
    """Exit code 2, as everywhere."""
    with pytest.raises(SystemExit, match="2"):
        main(["explain", "routed", "--repository", str(repository), *words])


def test_a_foreign_snapshot_is_refused(repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another model's says nothing of this one."""
    file = snapshot(tmp_path / "a.json", small=1.0, large=9.0, model="another")
    assert main(["explain", "routed", "--repository", str(repository), "--snapshot", str(file)]) == 1
    assert "is of model 'another', not of 'routed'" in capsys.readouterr().err


def test_looking_changes_nothing(repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A broken file in the state directory is reported and stays where it is."""
    state = tmp_path / "state"
    state.mkdir()
    written = snapshot(tmp_path / "x.json", small=1.0, large=9.0)
    from triton_router.telemetry.state_directory import StateDirectory

    broken = StateDirectory(state, "routed", "other").file
    broken.write_bytes(written.read_bytes()[:-20])
    told = explain(capsys, repository, "--state", str(state))
    assert "left out" in told["notes"][0]
    assert list(state.iterdir()) == [broken]


def test_dynamic_shapes_need_to_be_told(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without ``--shape`` the smallest measured row is assumed, and said."""
    (repository / "m-small" / "config.pbtxt").write_text(CONFIG.replace("[ 16 ]", "[ -1 ]"))
    told = explain(capsys, repository, "--batch", "2")
    assert told["work"] == 32.0
    assert "--shape" in told["notes"][0]
    told = explain(capsys, repository, "--shape", "8,128")
    assert (told["rows"], told["work"], told["notes"]) == (8, 1024.0, [])


def test_texts_need_to_be_told_as_well(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Their bytes count, whatever the shape: without ``--text-bytes`` one for each string is assumed, and said."""
    (repository / "m-small" / "config.pbtxt").write_text(
        CONFIG.replace("TYPE_FP32 dims: [ 16 ]", "TYPE_STRING dims: [ 1 ]")
    )
    told = explain(capsys, repository, "--batch", "2")
    assert told["work"] == 2.0
    assert "'X'" in told["notes"][0]
    assert "--text-bytes" in told["notes"][0]
    assert explain(capsys, repository, "--shape", "2,1")["notes"] == told["notes"]
    told = explain(capsys, repository, "--batch", "2", "--text-bytes", "640")
    assert (told["rows"], told["work"], told["notes"]) == (2, 640.0, [])


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--text-bytes", "7"], "no input of 'routed' holds strings"),
        (["--shape", "8"], "no input of 'routed' has a shape such as 8"),
        (["--shape", "8,16,3"], "X [-1, 16]"),
        (["--shape", "8,17"], "a shape such as 8,17"),
        (["--state", "/nonexistent"], "no state directory"),
    ],
)
def test_what_triton_would_refuse_is_refused(
    repository: Path, capsys: pytest.CaptureFixture[str], words: list[str], problem: str
) -> None:
    """An input of another kind or rank, and evidence that is not there."""
    assert main(["explain", "routed", "--repository", str(repository), *words]) == 1
    assert problem in capsys.readouterr().err


def test_what_is_not_there_is_said(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A target's model that the repository lacks, and that nothing was measured."""
    (repository / "m-large").rmdir()
    settings = {"targets": [{key: t[key] for key in ("name", "model", "backend")} for t in TARGETS]}
    (repository / "routed" / "router.yaml").write_text(yaml.safe_dump(settings))
    told = explain(capsys, repository)
    assert "there is no model 'm-large'" in told["notes"][0]
    assert "nor any measured_latency" in told["basis"]


def test_a_prediction_far_from_all_that_was_learned_is_called_a_guess(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sixty answers of 16 elements say little of 4,096."""
    (repository / "m-small" / "config.pbtxt").write_text(CONFIG.replace("[ 16 ]", "[ -1 ]"))
    file = snapshot(tmp_path / "a.json", small=4.0, large=2.0, answers=60)
    assert explain(capsys, repository, "--snapshot", str(file), "--shape", "1,16")["notes"] == []
    told = explain(capsys, repository, "--snapshot", str(file), "--shape", "1,4096")
    assert "hardly any request like this was answered by small, large" in told["notes"][0]


def test_an_unmeasured_target_has_its_arithmetic(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The manifest's FLOPs and this kind of device say what to expect; it is no evidence."""
    settings = {"targets": [{key: t[key] for key in ("name", "model", "backend")} for t in TARGETS]}
    (repository / "routed" / "router.yaml").write_text(yaml.safe_dump(settings))
    characteristics = {"flop_count": 10**10, "parameter_count": 10**6, "memory_footprint_bytes": 4 * 10**6}
    manifest = {"schema": 1, "versions": {"1": {"characteristics": characteristics}}}
    (repository / "routed" / MANIFEST_FILE).write_text(json.dumps(manifest))
    told = {target["target"]: target for target in explain(capsys, repository)["targets"]}
    # 10 GFLOP on 100 GFLOPS and on 10,000: 100 ms and 1 ms, as documented where nothing was calibrated.
    assert told["small"]["expected_latency_ms"] == pytest.approx(100.0, rel=0.05)
    assert told["large"]["expected_latency_ms"] == pytest.approx(1.05, rel=0.05)
    assert told["small"]["confidence"] == 0.0


def test_a_rollout_is_explained_as_it_stands(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the key's arm; and where the routers that serve have rolled it back, nobody gets the canary."""
    rollout = {"id": "v2", "canary": ["large"], "weight": 50}
    file = repository / "routed" / "router.yaml"
    file.write_text(yaml.safe_dump({"targets": TARGETS, "policy": "latency", "rollout": rollout}))
    told = [explain(capsys, repository, "--key", str(key)) for key in range(20)]
    assert {(one["chosen"], one["arms"][0]) for one in told} == {("large", "v2/canary"), ("small", "v2/stable")}
    assert told[0] == explain(capsys, repository, "--key", "0")
    state = Rollout(RolloutPlan("v2", frozenset({"large"}), weight=0.5, outcome="abort"))
    state.step(1.0)
    place = tmp_path / "state"
    with closing(TrialFiles(place, "routed", "host")) as files:
        files.claim()
        files.save(TrialState(model="routed", written_at=2.0, rollouts={"v2": state.state()}))
    told = [explain(capsys, repository, "--key", str(key), "--state", str(place)) for key in range(20)]
    assert {one["chosen"] for one in told} == {"small"}
    assert told[0]["targets"][1]["rejected"] == "rollout v2 rolled it back"
