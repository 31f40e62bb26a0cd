"""The parity guard and a shadow on the real server: who answers wrongly goes, and clients are served all the while."""

from __future__ import annotations

import time
import urllib.request
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pytest
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http

from triton_router.testing.served_triton import served_triton
from triton_router.testing.switched_fleet import SwitchedFleet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from triton_router.testing.served_triton import ServedTriton

pytestmark = pytest.mark.triton

PATIENCE_S = 90.0
FAST = [{"work": 4, "latency_ms": 1.0}]
SLOW = [{"work": 4, "latency_ms": 3.0}]
MERGED = {"batch_independent": True, "instances": 1}
TARGETS = (
    {"name": "exact", "model": "exact", "variant": "onnx", "measured_latency": SLOW, **MERGED},
    {"name": "int8", "model": "int8", "variant": "onnx-int8", "measured_latency": FAST, **MERGED},
    {"name": "next", "model": "next", "variant": "onnx"},
)
SETTINGS: dict[str, Any] = {
    "parity": {
        "share": 1.0,
        "budget": 1.0,
        "max_mismatch": 0.05,
        "false_alarms": 0.01,
        "keep_inputs": True,
        "tolerance": {"relative": 0.01},
    },
    "shadow": {"target": "next", "share": 1.0, "budget": 1.0},
    "explore": 0.0,
    "mirror": 0.0,
}


class Place:
    """The server, its switches, and clients that never rest."""

    def __init__(self, fleet: SwitchedFleet, server: ServedTriton) -> None:
        self.fleet = fleet
        self.server = server
        self.answered = 0
        self.wrong = 0
        self.failures: list[str] = []
        self._done = Event()
        self._rounds = [0] * 4
        clients = 2 * (over_http, over_grpc)
        self._threads = [Thread(target=self._ask, args=(number, client)) for number, client in enumerate(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int, triton: Any) -> None:
        rng = np.random.default_rng(5)
        url = self.server.http_url if triton is over_http else self.server.grpc_url
        tensor = triton.InferInput("X", [1, 4], "FP64")
        with triton.InferenceServerClient(url) as client:
            while not self._done.is_set():
                x = rng.uniform(-1, 1, (1, 4))
                tensor.set_data_from_numpy(x)
                try:
                    answer = client.infer("m", [tensor]).as_numpy("Y")
                except Exception as error:  # noqa: BLE001 - whatever it is, it is a failure that a client saw
                    self.failures.append(str(error))
                else:
                    self.answered += 1
                    self.wrong += not np.allclose(answer, 2 * x + 1, rtol=1e-3, atol=1e-3)
                self._rounds[number] += 1

    def status(self) -> dict[str, Any]:
        """Return what the routed model says of itself."""
        return self.server.status("m")

    def compared(self, target: str) -> dict[str, Any]:
        """Return what comparisons have found of a target."""
        return self.status()["parity"]["targets"].get(target, {"agreed": 0, "differed": 0, "quarantined": False})

    def serves(self, target: str) -> bool:
        """Whether clients' requests go to a target now."""

        def chosen() -> int:
            return next(one["chosen"] for one in self.status()["targets"] if one["target"]["name"] == target)

        before = chosen()
        until(lambda: self.more_answers(20), "clients are answered")
        return chosen() > before

    def more_answers(self, count: int) -> bool:
        """Wait for so many answers."""
        end = self.answered + count
        until(lambda: self.answered >= end, "clients are answered")
        return True

    def await_what_is_under_way(self) -> None:
        """Wait until each client has had the answer that it waits for now, however late that one comes."""
        before = list(self._rounds)
        until(lambda: all(now > then for now, then in zip(self._rounds, before, strict=True)), "each is answered")

    def log(self) -> str:
        """Return what the server has logged. A target's state gets there at a look once a second, not at once."""
        return self.server.log_file.read_text(errors="replace")

    def metric(self, name: str) -> float:
        """Return one of the server's metrics; 0 if it is not there."""
        with urllib.request.urlopen(self.server.metrics_url, timeout=10) as page:
            lines = page.read().decode().splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)), 0.0)


def until(met: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not met():
        assert time.monotonic() < end, what
        time.sleep(0.02)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("parity")
    fleet = SwitchedFleet(directory)
    for target in TARGETS:
        # The variant is the faster by so much that it serves, also where a busy machine makes both slower.
        fleet.add_target(str(target["name"]), service_ms=8.0 if target["name"] == "exact" else 1.0)
    fleet.switch("int8", "noise:0.0001")
    fleet.switch("next", "wrong:1")
    fleet.add_routed("m", TARGETS, **SETTINGS)
    with (
        served_triton(fleet.repository, directory / "log", state=directory / "state") as server,
        Place(fleet, server) as place,
    ):
        yield place


def test_noise_below_the_tolerance_is_no_divergence(place: Place) -> None:
    """The variant serves, is compared a few dozen times, and stays."""
    until(lambda: place.compared("int8")["agreed"] >= 30, "the variant is compared")
    assert place.compared("int8")["differed"] == 0
    merged = 'triton_router_merged_calls_total{model="m",target="int8"}'
    until(lambda: place.metric(merged) > 0, "merged calls are compared too")
    assert not place.compared("int8")["quarantined"]
    until(lambda: place.serves("int8"), "the variant serves")


def test_a_shadow_gets_copies_and_nothing_else(place: Place) -> None:
    """All of its answers are wrong and found to be; no client got one of them."""
    until(lambda: place.compared("next")["differed"] >= 10, "the shadow is compared")
    shadow = next(one for one in place.status()["targets"] if one["target"]["name"] == "next")
    assert (shadow["chosen"], shadow["succeeded"]) == (0, 0)
    assert shadow["mirrored"] >= 10
    assert shadow["latency"]["count"] >= 10, "what a copy takes is learned"
    assert place.compared("next")["agreed"] == 0
    assert place.wrong == 0


def test_a_variant_that_is_wrong_for_some_inputs_is_quarantined_and_returns(place: Place) -> None:
    """Clients are answered all the while, rightly once it is out; a restart remembers it; repaired, it serves again."""
    before = place.answered
    place.fleet.switch("int8", "above:1.5")
    until(lambda: place.compared("int8")["quarantined"], "the variant is quarantined")
    print(f"quarantined after {place.answered - before} requests, {place.wrong} of them answered wrongly")
    place.await_what_is_under_way()
    wrong = place.wrong
    assert wrong, "nothing was wrong, so that nothing was found"
    assert not place.serves("int8")
    place.more_answers(50)
    assert place.wrong == wrong

    until(lambda: place.metric('triton_router_quarantined{model="m",target="int8"}') == 1.0, "the metric says so")
    differs = 'triton_router_comparisons_total{model="m",result="differs",target="int8"}'
    until(lambda: place.metric(differs) > 0, "a metric counts what differed")
    for line in (
        "target 'int8' answers differently from 'exact' and is quarantined",
        "X float64[1, 4]",
        "target 'int8' gets no requests: its answers differ from those of 'exact'",
    ):
        until(lambda line=line: line in place.log(), f"the log says {line!r}")
    kept = place.compared("int8")["last"]
    assert kept["inputs"]["X"]["shape"] == [1, 4]

    place.server.load_model("m")
    until(lambda: place.compared("int8")["quarantined"], "a restart remembers it")
    assert not place.serves("int8")
    assert place.wrong == wrong

    place.fleet.switch("int8", "noise:0.0001")
    until(lambda: not place.compared("int8")["quarantined"], "the variant is repaired")
    until(lambda: place.serves("int8"), "it serves again")
    assert place.wrong == wrong
    assert place.failures == []
