"""``triton-router simulate`` and ``replay``: the same bytes for the same seed, clear errors, commands as documented."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from triton_router.cli.main import main

DOCS = Path(__file__).parents[3] / "docs"


def printed(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(argv) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(argv) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "hint: " in err
    return err


def test_the_same_seed_gives_the_same_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    """Table and JSON are the same for the same seed, and others for another."""
    command = ["simulate", "--scenario", "loaded", "--requests", "200"]
    for form in ([], ["--json"]):
        first, second, other = (
            printed(capsys, *command, *form, "--seed", seed, "--policies", "latency,ewma,oracle") for seed in "778"
        )
        assert first == second != other


def test_json_carries_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    """The JSON has one object for each policy, in the order asked for, shares summing to 1."""
    found = json.loads(printed(capsys, "simulate", "--requests", "100", "--policies", "random,oracle", "--json"))
    assert [one["policy"] for one in found["policies"]] == ["random", "oracle"]
    assert all(sum(one["shares"].values()) == pytest.approx(1.0) for one in found["policies"])
    assert found["policies"][1]["above_oracle"] == 0.0
    assert found["requests"] == 100


def test_the_list_names_scenarios_and_policies(capsys: pytest.CaptureFixture[str]) -> None:
    """--list names the built-in scenarios, and what can be compared, in both forms."""
    table = printed(capsys, "simulate", "--list")
    found = json.loads(printed(capsys, "simulate", "--list", "--json"))
    assert {"single", "herd", "cells"} <= set(found["scenarios"])
    assert all(name in table for name in (*found["scenarios"], *found["policies"]))


def test_a_logged_simulation_is_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A trace that simulate writes can be replayed, and simulated again as traffic; the replay is deterministic."""
    log = tmp_path / "trace.jsonl"
    printed(capsys, "simulate", "--policies", "random", "--requests", "600", "--log", str(log))
    command = ["replay", str(log), "--policy", "latency", "--policy", "cost", "--json"]
    found = json.loads(printed(capsys, *command))
    assert [one["policy"] for one in found["policies"]] == ["latency", "cost"]
    assert found["policies"][0]["dr"]["mean"] < 0.7 * found["policies"][0]["logged"]["mean"]
    assert json.loads(printed(capsys, *command)) == found
    table = printed(capsys, *command[:-1])
    assert "good" in table
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(
        "devices: [{name: cpu}]\ntargets: [{name: a, device: cpu, curve: {kind: affine, base_ms: 1.0}}]\n"
        f"arrivals: {{kind: trace, path: {log}}}\n"
    )
    again = printed(capsys, "simulate", "--scenario", str(fleet), "--policies", "latency", "--json")
    assert json.loads(again)["requests"] == 600


def test_poor_evidence_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the log cannot say, the verdict is poor and stderr says why."""
    log = tmp_path / "trace.jsonl"
    printed(capsys, "simulate", "--policies", "latency", "--requests", "300", "--log", str(log))
    assert main(["replay", str(log), "--policy", "random"]) == 0
    out, err = capsys.readouterr()
    assert "poor" in out
    assert "warning: random: " in err


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["simulate", "--scenario", "nowhere"], "there is no scenario 'nowhere'"),
        (["simulate", "--policies", "latency,best"], "there is no policy 'best'"),
        (["simulate", "--log", "x"], "--log writes the decisions of one policy"),
        (["simulate", "--policies", "oracle", "--requests", "9", "--log", "x"], "oracle is no engine"),
        (["simulate", "--requests", "9", "--policies", "random", "--log", "/nowhere/x"], "cannot be written"),
        (["simulate", "--plot", "plot.pdf"], "neither in .png nor in .svg"),
        (["replay", "/nowhere/x", "--policy", "latency"], "/nowhere/x does not exist"),
        (["replay", "/nowhere/x", "--policy", "best"], "there is no policy 'best'"),
    ],
)
def test_errors_say_what_to_do(argv: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is wrong with the arguments, one line says what and one what to do."""
    assert complaint in refused(capsys, *argv)


def test_without_matplotlib_a_plot_is_refused_before_anything_is_simulated(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the extra."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "triton-router[plots]" in refused(capsys, "simulate", "--requests", "9", "--plot", "x.png")


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_plot_is_drawn(suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A picture is written, and a vector one is the same for the same seed."""
    pytest.importorskip("matplotlib")
    pictures: list[bytes] = []
    for name in "ab":
        path = tmp_path / f"{name}.{suffix}"
        printed(capsys, "simulate", "--requests", "60", "--policies", "latency,oracle", "--plot", str(path))
        pictures.append(path.read_bytes())
    assert pictures[0] == pictures[1]
    assert len(pictures[0]) > 5000


@pytest.mark.parametrize("page", ["simulate.md", "replay.md"])
def test_documented_options_exist(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each option in the table of its page is one of the command, and the reverse."""
    with pytest.raises(SystemExit):
        main([page.removesuffix(".md"), "--help"])
    shown = {word.strip("[],") for word in capsys.readouterr().out.split() if word.strip("[").startswith("--")}
    table = {line.split("`")[1] for line in (DOCS / page).read_text().splitlines() if line.startswith("| `--")}
    assert table == shown - {"--help"}
