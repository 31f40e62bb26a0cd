"""``triton-router status``: what it prints of what it was told."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from triton_router.cli.main import main
from triton_router.serving.status_socket import StatusSocket

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's"),
    pytest.mark.alone,  # sockets are named after the parent process, which tests run side by side have in common
]

EVIL = "evil\x1b[2J\u202e\x9b\x7f"


HEALTH = {
    "left-out": {"resting": True, "stage": "out", "why": "model is not loaded"},
    "tried": {"resting": False, "stage": "trial", "why": "after consecutive failures"},
    "back": {"resting": False, "stage": "returning", "why": ""},
}


def _target(name: str, chosen: int) -> dict[str, Any]:
    latency = {"count": 3, "p50_ms": 2.5, "p99_ms": 3.25, "predicted": 2, "mean_relative_error": 0.1}
    return {
        "target": {"name": name, "model": "m", "version": 1, "backend": "gpu", "variant": "pt2"},
        "in_flight": 4,
        "chosen": chosen,
        "succeeded": 1,
        "failed": 7,
        "refused": 0,
        "cancelled": 0,
        "mirrored": 5 if name == "c" else 0,
        "resting": name == "b",
        "confidence": 0.5,
        "latency": {**latency, "predicted_total_ms": 4.0, "measured_total_ms": 5.0},
        "consecutive_failures": {"b": 3, "c": 4}.get(name, 0),
        **HEALTH.get(name, {}),
    }


@pytest.fixture
def serving() -> Iterator[None]:
    """A routed model whose names act on a terminal."""
    status = {"model": EVIL, "policy": EVIL, "targets": [_target(EVIL, 3), _target("b", 1), _target("c", 0)]}
    served = StatusSocket(lambda: status)
    served.start()
    yield
    served.close()


@pytest.mark.usefixtures("serving")
def test_the_table_shows_traffic_and_latencies(capsys: pytest.CaptureFixture[str]) -> None:
    """Shares of the requests, copies beside them, quantiles, means, and no `ok` for what only fails."""
    assert main(["status", EVIL]) == 0
    *_, first, second, third = capsys.readouterr().out.splitlines()
    assert first.split()[1:] == ["3", "75.0%", "0", "2.50", "-", "3.25", "2.00", "2.50", "4", "7", "-", "ok"]
    assert second.split() == ["b", "1", "25.0%", "0", "2.50", "-", "3.25", "2.00", "2.50", "4", "7", "-", "resting"]
    assert third.split()[:5] == ["c", "0", "0.0%", "5", "2.50"]
    assert third.split()[-8:] == ["4", "7", "-", "failing", "(4", "in", "a", "row)"]


def test_the_table_says_why_a_target_is_out(capsys: pytest.CaptureFixture[str]) -> None:
    """What a check found or what it did, in words; on trial and returning are told apart."""
    status = {"model": "health", "policy": "latency", "targets": [_target(name, 1) for name in HEALTH]}
    served = StatusSocket(lambda: status)
    served.start()
    try:
        assert main(["status", "health"]) == 0
    finally:
        served.close()
    *_, first, second, third = capsys.readouterr().out.splitlines()
    assert first.endswith("resting (model is not loaded)")
    assert second.endswith("on trial (after consecutive failures)")
    assert third.endswith("returning")


@pytest.mark.usefixtures("serving")
def test_names_cannot_act_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither as a table nor as JSON, in which the name is still whole."""
    assert main(["status", EVIL]) == 0
    printed = capsys.readouterr().out
    assert printed.replace("\n", "").isprintable()
    assert printed.count(r"evil\x1b[2J") == 3
    assert main(["status", EVIL, "--json"]) == 0
    printed = capsys.readouterr().out
    assert printed.replace("\n", "").isprintable()
    (status,) = json.loads(printed)
    assert status["model"] == EVIL


@pytest.mark.usefixtures("serving")
def test_another_model_is_not_found(capsys: pytest.CaptureFixture[str]) -> None:
    """With what to do."""
    assert main(["status", "no such model"]) == 1
    assert "no routed model called 'no such model'" in capsys.readouterr().err


def test_power_drift_and_trouble_with_the_disk_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """A measured figure is told from a declared one; what cannot be kept or measured is said below the table."""
    measured = {**_target("a", 3), "power_w": {"value": 42.0, "source": "measured"}}
    measured["latency"] = {**measured["latency"], "p90_ms": 3.0}
    declared = {**_target("d", 1), "power_w": {"value": 15.0, "source": "estimated"}}
    declared["last_drift"] = {"direction": "slower", "factor": 3.0, "observation": 90}
    state = {"directory": "/s", "inherited": [], "saved_at": 0.0, "errors": 2, "problem": "/s is full"}
    power = {"cpu": "RAPL: only root may"}
    served = StatusSocket(
        lambda: {"model": "m", "policy": "p", "targets": [measured, declared], "state": state, "power": power}
    )
    served.start()
    try:
        assert main(["status", "m"]) == 0
    finally:
        served.close()
    *_, first, second, kept, meter = capsys.readouterr().out.splitlines()
    assert first.split()[4:7] == ["2.50", "3.00", "3.25"]
    assert first.endswith("42 W   ok")
    assert second.endswith("~15 W  ok, became slower x3.00")
    assert kept == "not kept: /s is full (2 errors)"
    assert meter == "power of cpu: RAPL: only root may"


def test_rollout_and_experiment_have_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    """How they stand and what they wait for, and why they cannot be kept; whatever their names hold."""
    status = {
        "model": "m",
        "policy": "latency",
        "targets": [],
        "rollout": {"id": EVIL, "phase": "rolled_back", "share": 0.0, "waiting_for": "", "reason": "it fails"},
        "experiment": {"experiment_id": "x", "verdict": "too early"},
        "trials": {
            "directory": "/state",
            "audit_log": "/state/log",
            "writes_audit_log": True,
            "errors": 2,
            "problem": "disk full",
            "remarks": ["a file was set aside"],
        },
    }
    served = StatusSocket(lambda: status)
    served.start()
    try:
        assert main(["status"]) == 0
    finally:
        served.close()
    printed = capsys.readouterr().out
    assert ": rolled back, 0% of the requests are canary's; it fails\n" in printed
    assert "experiment x: too early\n" in printed
    assert "rollouts: disk full (2 errors)\n" in printed
    assert "rollouts: a file was set aside\n" in printed
    assert "\x1b" not in printed


def test_answers_that_differ_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Of each target how many, and why nothing is compared where nothing is; nothing where all agree."""
    figures = {"failed": 0, "largest_difference": 0.5, "smallest_cosine": 0.1, "smallest_agreement": 1.0}
    found = {**figures, "agreed": 97, "last": None, "quarantined": False, "verdict": None}
    parity = {
        "reference": "b",
        "why_off": "nobody is right",
        "problem": "verdicts on answers are not kept: disk full",
        "uncopied": 0,
        "targets": {"c": {**found, "differed": 3}, "d": {**found, "differed": 0}},
    }
    status = {"model": "m", "policy": "latency", "targets": [_target("c", 1)], "parity": parity}
    served = StatusSocket(lambda: status)
    served.start()
    try:
        assert main(["status"]) == 0
    finally:
        served.close()
    text = capsys.readouterr().out
    assert "answers of c: 3 of 100 that were compared differ" in text
    assert "answers of d" not in text
    assert "answers are not compared: nobody is right" in text
    assert "verdicts on answers are not kept: disk full" in text.splitlines()  # once, without a heading that repeats it


def test_a_decision_log_that_cannot_be_written_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """With the file, why, and how many records are missing."""
    log = {"file": "/var/log/m.jsonl", "written": 0, "dropped": 7, "problem": "cannot be written: No such directory"}
    served = StatusSocket(lambda: {"model": "m", "policy": "p", "targets": [], "decision_log": log})
    served.start()
    try:
        assert main(["status", "m"]) == 0
    finally:
        served.close()
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "decision log /var/log/m.jsonl: cannot be written: No such directory (7 records dropped)"
