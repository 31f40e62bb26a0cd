"""Rollouts on the real server: who gets the canary, and what becomes of good and bad ones, as clients see it."""

from __future__ import annotations

import os
import random
import signal
import time
import urllib.request
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
from tritonclient.utils import InferenceServerException

from triton_router.serving.status_socket import read_statuses
from triton_router.telemetry.audit_log import read_audit_log
from triton_router.telemetry.trial_files import audit_log_of
from triton_router.testing.load import closed_loop, encode
from triton_router.testing.switched_fleet import SwitchedFleet
from triton_router.testing.triton_server import triton_server

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from triton_router.testing.triton_server import TritonServer

pytestmark = pytest.mark.triton

PATIENCE_S = 120.0
MODEL = "m"
PAIR = "pair"
QUICK: dict[str, Any] = {"min_requests": 10, "max_mismatch": 1}
SURE = {**QUICK, "false_alarms": 1e-6}
"""Where nothing is wrong: of the gate's 5% of false alarms no test may fail."""
AT_ANY_SPEED = {"min_requests": 10, "max_latency_increase": 100}
"""Where something else than latency is wrong, and that is to be found."""
QUIET = {"explore": 0.0, "mirror": 0.0, "retry": {"attempts": 1}, "parity": {"share": 0.0}}


class Place:
    """A server with one routed model over the targets ``old`` and ``new``, which has one rollout after the other.

    Attributes:
        fleet: Writes its settings.
        state: The state directory.
        server: Where it is served.
    """

    def __init__(self, fleet: SwitchedFleet, state: Path, server: TritonServer) -> None:
        self.fleet = fleet
        self.state = state
        self.server = server

    def roll_out(self, name: str, targets: tuple[str, str] = ("old", "new"), **rollout: Any) -> None:
        """Write a rollout of the second target."""
        settings = {"id": name, "canary": [targets[1]], **rollout}
        self.fleet.configure(MODEL, targets, rollout=settings, **QUIET)
        until(lambda: (self.rollout() or {}).get("id") == name, "the rollout is followed")

    def status(self) -> dict[str, Any]:
        """Return what the routed model says of itself."""
        (found,) = [status for status in read_statuses(self.server.pid) if status["model"] == MODEL]
        return found

    def rollout(self) -> dict[str, Any]:
        """Return how its rollout stands."""
        return self.status()["rollout"]

    def chosen(self) -> Counter[str]:
        """Return how many requests each target was chosen for."""
        return Counter({one["target"]["name"]: one["chosen"] for one in self.status()["targets"]})

    def audit(self, rollout: str, model: str = MODEL) -> list[dict[str, Any]]:
        """Return the changes of a rollout."""
        entries = read_audit_log(audit_log_of(self.state, model))
        return [entry for entry in entries if entry["rollout"] == rollout]

    def until_audited(self, rollout: str, *events: str, model: str = MODEL) -> list[dict[str, Any]]:
        """Return the changes of a rollout once there are so many: they are written after they have happened."""
        until(lambda: len(self.audit(rollout, model)) >= len(events), f"{events} are written down")
        entries = self.audit(rollout, model)
        assert [entry["event"] for entry in entries] == list(events)
        return entries


def until(holds: Callable[[], object], what: str, *, pause_s: float = 0.05) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(pause_s)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("rollouts")
    fleet = SwitchedFleet(directory)
    for name in ("old", "new", "slow", "slower"):
        fleet.add_target(name, service_ms=10.0 if name.startswith("slow") else 0.0)
    fleet.add_routed(MODEL, ["old", "new"], **QUIET)
    fleet.add_routed(PAIR, ["old", "new"], **QUIET)
    config = fleet.repository / PAIR / "config.pbtxt"
    config.write_text(config.read_text() + "instance_group [ { kind: KIND_CPU count: 2 } ]\n")
    models = ("old", "new", "slow", "slower", MODEL, PAIR)
    with triton_server(
        fleet.repository, state=directory / "state", control_mode="explicit", load_models=models
    ) as server:
        yield Place(fleet, directory / "state", server)


@contextmanager
def clients(place: Place, count: int = 8, model: str = MODEL) -> Generator[Seen]:
    """Have clients ask until the end, each by a key of its own for each request."""
    seen = Seen()
    done = Event()

    def work(number: int) -> None:
        rng = random.Random(number)
        tensor = over_grpc.InferInput("X", [1, 4], "FP64")
        with over_grpc.InferenceServerClient(place.server.grpc_url) as client:
            while not done.is_set():
                key = str(rng.randrange(10**6))
                value = rng.random()
                tensor.set_data_from_numpy(np.full((1, 4), value))
                try:
                    answer = client.infer(model, [tensor], parameters={"router_key": key}).as_numpy("Y")
                except InferenceServerException:
                    seen.failed.append(key)
                else:
                    assert answer is not None
                    (seen.right if np.allclose(answer, 2 * value + 1) else seen.wrong).append(key)

    threads = [Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        done.set()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive(), "a client hangs"


class Seen:
    """What clients got: the key of each request."""

    def __init__(self) -> None:
        self.right: list[str] = []
        self.wrong: list[str] = []
        self.failed: list[str] = []


def test_ninety_to_ten_by_hand(place: Place) -> None:
    """Of 5,000 requests, half over HTTP and half over gRPC, a tenth is the canary's, within 4 standard deviations."""
    place.roll_out("ninety-ten", weight=10, gate=SURE)
    before = place.chosen()
    request = encode(place.server.http_url, MODEL, {"X": np.ones((1, 4))})
    result = closed_loop(place.server.http_url, [request], clients=8, count=2500, seconds=60.0)
    assert (len(result.latencies_ms), result.failed) == (2500, 0)
    ask_over_grpc(place, 2500)
    served = place.chosen() - before
    assert sum(served.values()) == 5000
    print(f"\n90/10 by hand: {served['new']} of 5000 requests were the canary's")
    assert abs(served["new"] - 500) <= 4 * (5000 * 0.1 * 0.9) ** 0.5


def ask_over_grpc(place: Place, count: int) -> None:
    """Send so many requests, 20 at a time."""
    tensor = over_grpc.InferInput("X", [1, 4], "FP64")
    tensor.set_data_from_numpy(np.ones((1, 4)))
    answers: list[object] = []
    with over_grpc.InferenceServerClient(place.server.grpc_url) as client:
        for asked in range(20, count + 20, 20):
            for _ in range(20):
                client.async_infer(MODEL, [tensor], lambda result, error: answers.append(result is None or error))
            until(lambda asked=asked: len(answers) == asked, "every request is answered", pause_s=0.001)
    assert set(answers) == {None}


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_callers_stay_with_their_arm(place: Place, protocol: str) -> None:
    """By its key, in a parameter or a header, a caller gets one arm always; without one a request does by its id."""
    place.roll_out("sticky", weight=50, gate=SURE)
    library: Any = over_grpc if protocol == "grpc" else over_http
    tensor = library.InferInput("X", [1, 4], "FP64")
    tensor.set_data_from_numpy(np.ones((1, 4)))
    used: Counter[str] = Counter()
    with library.InferenceServerClient(getattr(place.server, f"{protocol}_url")) as client:
        for number in range(12):
            before = place.chosen()
            for _ in range(4):
                client.infer(MODEL, [tensor], parameters={"router_key": f"caller {number}"})
                client.infer(MODEL, [tensor], headers={"x-router-key": f"caller {number}"})
                client.infer(MODEL, [tensor], request_id=f"caller {number}")
            ((target, count),) = (place.chosen() - before).items()
            assert count == 12
            used[target] += 1
    assert len(used) == 2


def test_sequences_stay_where_they_began(place: Place) -> None:
    """One that began before the canary got everything goes on with stable; the next one is the canary's."""
    place.roll_out("sequences", weight=0)
    tensor = over_http.InferInput("X", [1, 4], "FP64")
    tensor.set_data_from_numpy(np.ones((1, 4)))
    with over_http.InferenceServerClient(place.server.http_url) as client:
        client.infer(MODEL, [tensor], sequence_id=7, sequence_start=True)
        place.roll_out("sequences", weight=100)
        until(lambda: place.rollout()["share"] == 1.0, "the canary gets everything")
        before = place.chosen()
        client.infer(MODEL, [tensor], sequence_id=7)
        client.infer(MODEL, [tensor], sequence_id=8, sequence_start=True, sequence_end=True)
        client.infer(MODEL, [tensor], sequence_id=7, sequence_end=True)
    assert (place.chosen() - before) == {"old": 2, "new": 1}


@pytest.mark.parametrize(
    ("test", "targets", "line"),
    # One client alone, where latencies matter: what waits at a target with one instance is slow for another reason.
    [("errors", ("old", "new"), "errors:0.3"), ("latency", ("slow", "slower"), "sleep:0.0035")],
)
def test_a_bad_canary_is_rolled_back(place: Place, test: str, targets: tuple[str, str], line: str) -> None:
    """One that fails, or takes a third longer, is found out by its answers and gets nothing any more."""
    canary = targets[1]
    place.roll_out(f"{test}-before", targets, weight=0)
    place.fleet.switch(canary, line)
    with clients(place, 8 if test == "errors" else 1) as seen:
        until(lambda: len(seen.right) > 20, "stable is known")
        begun, before = time.monotonic(), place.chosen()
        gate = QUICK if test == "latency" else {**AT_ANY_SPEED, "max_mismatch": 1}
        place.roll_out(test, targets, steps=[50, 100], hold_s=3600, gate=gate)
        until(lambda: place.rollout()["phase"] == "rolled_back", "it is rolled back")
        took, report = time.monotonic() - begun, place.rollout()
        got = (place.chosen() - before)[canary]
        until(lambda: is_left_alone(place, canary), "it gets nothing any more")
    place.fleet.switch(canary)
    assert report["share"] == 0
    assert [one["alarm"] for one in report["tests"] if one["name"] == test] == [True]
    entries = place.until_audited(test, "begin", "rollback")
    assert [entry["by"] for entry in entries] == ["configuration", "gate"]
    assert entries[1]["figures"]["tests"] == report["tests"]
    touched = len(set(seen.failed)) if test == "errors" else got
    print(f"\n{test}: rolled back after {got} of the canary's requests in {took:.1f} s; {touched} clients touched")


def is_left_alone(place: Place, target: str) -> bool:
    """Whether a target gets no request while others get fifty."""
    before = place.chosen()
    until(lambda: place.chosen().total() > before.total() + 50, "clients are served")
    return place.chosen()[target] == before[target]


def test_wrong_outputs_are_rolled_back(place: Place) -> None:
    """A canary whose answers differ from stable's, though fast and without errors, is found by comparing them."""
    place.roll_out("wrong-before", weight=0)
    place.fleet.switch("new", "wrong:0.5")
    rollout = {"id": "wrong", "canary": ["new"], "weight": 20, "gate": AT_ANY_SPEED}
    parity = {"share": 1.0, "budget": 1.0, "quarantine": False}
    before = place.chosen()
    place.fleet.configure(MODEL, ["old", "new"], rollout=rollout, **{**QUIET, "parity": parity})
    with clients(place, 2) as seen:
        until(lambda: place.rollout()["id"] == "wrong" and place.rollout()["phase"] == "rolled_back", "a rollback")
        report = place.rollout()
        got = (place.chosen() - before)["new"]
    place.fleet.switch("new")
    assert [one["alarm"] for one in report["tests"] if one["name"] == "mismatches"] == [True]
    print(
        f"\nwrong outputs: rolled back after {got} of the canary's requests, {report['compared']} compared; "
        f"{len(set(seen.wrong))} clients touched"
    )


def test_a_canary_that_refuses_what_stable_answers_is_rolled_back(place: Place) -> None:
    """Though it gets everything and calls its clients' requests invalid, which is no failure of anybody's."""
    rollout = {"id": "refusing", "canary": ["new"], "weight": 100, "gate": AT_ANY_SPEED}
    parity = {"share": 1.0, "budget": 1.0, "quarantine": False}
    place.fleet.configure(MODEL, ["old", "new"], rollout=rollout, **{**QUIET, "parity": parity})
    with clients(place, 2) as seen:
        until(lambda: (place.rollout() or {}).get("id") == "refusing", "the rollout is followed")
        until(lambda: place.rollout()["compared"] > 10, "it is compared")
        # In words that have this code on servers as well that carry none.
        place.fleet.switch("new", "error:INVALID_ARG:unexpected shape for input 'X' for model 'new'")
        until(lambda: place.rollout()["phase"] == "rolled_back", "a rollback")
        report = place.rollout()
    place.fleet.switch("new")
    assert [one["name"] for one in report["tests"] if one["alarm"]] == ["mismatches"]
    assert report["arms"]["canary"]["failures"] == 0
    print(
        f"\nrefusals: rolled back with {report['arms']['canary']['refused']} refused, {len(set(seen.failed))} clients"
    )


def test_a_good_canary_is_promoted(place: Place) -> None:
    """Step by step to all requests; every step is in the audit log, and no client sees anything of it."""
    with clients(place) as seen:
        place.roll_out("good", steps=[10, 50, 100], hold_s=0.5, gate=SURE, by="ada")
        until(lambda: place.rollout()["phase"] == "promoted", "it is promoted")
        until(lambda: is_left_alone(place, "old"), "all requests are the canary's")
        until(lambda: 'triton_router_rollout_share{model="m"} 1\n' in metrics(place), "a metric says so")
    assert not seen.failed
    assert not seen.wrong
    entries = place.until_audited("good", "begin", "step", "step", "promote")
    changes = [(entry["by"], entry["after"]) for entry in entries]
    assert changes == [("ada", 0.1), ("gate", 0.5), ("gate", 0.98), ("gate", 1.0)]


def test_two_instances_are_one_rollout(place: Place) -> None:
    """Each judges what both have seen, both roll back, and the audit log has it once."""
    place.fleet.switch("new", "errors:0.3")
    rollout = {"id": "both", "canary": ["new"], "weight": 25, "gate": {**AT_ANY_SPEED, "max_mismatch": 1}}
    place.fleet.configure(PAIR, ["old", "new"], rollout=rollout, **QUIET)

    def reports() -> list[dict[str, Any]]:
        return [one["rollout"] or {} for one in read_statuses(place.server.pid) if one["model"] == PAIR]

    with clients(place, model=PAIR):
        until(lambda: [one.get("phase") for one in reports()] == ["rolled_back"] * 2, "both roll back")
    place.fleet.switch("new")
    place.until_audited("both", "begin", "rollback", model=PAIR)


def metrics(place: Place) -> str:
    """Return what Prometheus would read."""
    with urllib.request.urlopen(place.server.metrics_url) as response:
        return response.read().decode()


def test_a_rollout_goes_on_after_a_kill(place: Place) -> None:
    """The router's process is killed in mid-rollout, and the next one goes on where it was."""
    steps = {"steps": [20, 60], "hold_s": 0.5, "gate": SURE}
    with clients(place, 2):
        place.roll_out("killed", **steps)
        until(lambda: place.rollout()["share"] == 0.6, "the last step was taken")
        until(lambda: place.rollout()["answers_in_step"] > 50, "it was seen in that step")
        followed = place.status()["settings"]["followed"]
        place.roll_out("killed", **steps, paused=True)
        # That counts once it has been followed to its end, what was seen until then being on the disk.
        until(lambda: place.status()["settings"]["followed"] > followed, "it is paused, and what was seen is written")
        before = place.rollout()
        assert before["phase"] == "paused"
    os.kill(stub_of(place), signal.SIGKILL)
    with over_http.InferenceServerClient(place.server.http_url) as client:  # as the watchdog of 'serve' does
        client.unload_model(MODEL)
        client.load_model(MODEL)
    after = place.rollout()
    assert (after["share"], after["phase"], after["since"]) == (0.6, "paused", before["since"])
    assert after["answers_in_step"] >= 50
    place.until_audited("killed", "begin", "step", "pause")


def stub_of(place: Place) -> int:
    """Return the process that serves the routed model."""
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == place.server.pid and any(f"/{MODEL}/1".encode() in argument for argument in arguments):
                return int(entry.name)
    raise AssertionError("the routed model has no process")
