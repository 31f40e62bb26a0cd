"""Failover, deadlines and overload on the real server, as clients over HTTP and gRPC see them."""

from __future__ import annotations

import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
import yaml
from tritonclient.utils import InferenceServerException

from triton_router.serving.status_socket import read_statuses
from triton_router.testing.triton_server import triton_server

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from triton_router.testing.triton_server import TritonServer

pytestmark = pytest.mark.triton

MODEL = Path(__file__).parent / "failing_models" / "target"
WAYS = ("ok", "error", "hang", "fewer")
HELD = ("held-late", "held-small")
"""Targets that answer nothing before the test lets them."""
PATIENCE_S = 60.0
ROUTED: dict[str, dict[str, Any]] = {
    **{
        f"past-{how}": {
            # The failing one is taken for the fastest, and asked first.
            "targets": [
                {"name": how, "model": how, "measured_latency": [{"work": 1, "latency_ms": 1}]},
                {"name": "ok", "model": "ok", "measured_latency": [{"work": 1, "latency_ms": 20}]},
            ],
            "retry": {"overdue_ms": 300},
            "explore": 0,
            "mirror": 0,
        }
        for how in ("error", "hang", "fewer")
    },
    "hopeless": {"targets": [{"name": "error", "model": "error"}]},
    "slow": {"targets": [{"name": "held", "model": "held-late"}], "queue": {"reject_late": False}},
    "small": {"targets": [{"name": "held", "model": "held-small", "max_in_flight": 1}], "queue": {"limit": 4}},
}


@pytest.fixture(scope="module")
def gates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a file of a held target's name lets it answer."""
    return tmp_path_factory.mktemp("gates")


@pytest.fixture(scope="module")
def server(gates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    directory = tmp_path_factory.mktemp("failing")
    for name, how in {**{how: how for how in WAYS}, **{name: f"held:{gates / name}" for name in HELD}}.items():
        shutil.copytree(MODEL, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
        with (directory / name / "config.pbtxt").open("a") as config:
            config.write(f'parameters {{ key: "how" value {{ string_value: "{how}" }} }}\n')
    for name, settings in ROUTED.items():
        (directory / name / "1").mkdir(parents=True)
        (directory / name / "config.pbtxt").write_text('backend: "router"\n')
        (directory / name / "router.yaml").write_text(yaml.safe_dump(settings))
    with triton_server(directory) as running:
        yield running


class Client:
    """Asks over one protocol."""

    def __init__(self, server: TritonServer, protocol: str) -> None:
        self._library: Any = over_grpc if protocol == "grpc" else over_http
        url = server.grpc_url if protocol == "grpc" else server.http_url
        self._client = self._library.InferenceServerClient(url)

    def ask(self, model: str, value: float = 1.0, **options: Any) -> dict[str, float] | str:
        """Return the outputs, or the message of the error."""
        tensor = self._library.InferInput("X", [1], "FP32")
        tensor.set_data_from_numpy(np.array([value], np.float32))
        try:
            result = self._client.infer(model, [tensor], **options)
        except InferenceServerException as error:
            return error.message()
        found = {name: result.as_numpy(name) for name in ("Y", "Z")}
        return {name: float(array[0]) for name, array in found.items() if array is not None}

    def close(self) -> None:
        self._client.close()


@pytest.fixture(params=["http", "grpc"])
def client(server: TritonServer, request: pytest.FixtureRequest) -> Iterator[Client]:
    client = Client(server, request.param)
    yield client
    client.close()


def status(server: TritonServer, model: str) -> dict[str, Any]:
    """Return what a routed model says of itself, once nothing of it is under way."""
    give_up_at = time.monotonic() + PATIENCE_S
    while True:
        (found,) = [status for status in read_statuses(server.pid) if status["model"] == model]
        resilience = found["resilience"]
        left = [target["in_flight"] for target in found["targets"]]
        if not any((*left, resilience["under_way"], resilience["waiting"], resilience["abandoned"])):
            return found
        assert time.monotonic() < give_up_at, f"something is left: {left}, {resilience}"
        time.sleep(0.05)


@pytest.mark.parametrize("how", ["error", "hang", "fewer"])
def test_no_failure_of_a_target_reaches_the_client(server: TritonServer, client: Client, how: str) -> None:
    """Errors, hangs and missing outputs of one target: each client gets its own whole answer, from the other."""
    for value in range(5):
        assert client.ask(f"past-{how}", value) == {"Y": value, "Z": 2.0 * value}
    found = status(server, f"past-{how}")
    assert found["resilience"]["retries_helped"] > 0
    assert {target["target"]["name"]: target["failed"] for target in found["targets"]}[how] > 0


def test_without_another_target_the_error_is_the_clients(client: Client) -> None:
    """Its message comes as the target said it."""
    assert client.ask("hopeless") == "out of memory"


@contextmanager
def closed(gate: Path) -> Generator[None]:
    """Hold a target back until the end."""
    gate.unlink(missing_ok=True)
    try:
        yield
    finally:
        gate.touch()


@pytest.mark.parametrize("bound", [{"timeout": 500_000}, {"parameters": {"router_max_latency_ms": 500}}])
def test_a_deadline_error_comes_in_time(
    server: TritonServer, gates: Path, client: Client, bound: dict[str, Any]
) -> None:
    """Before the target's answer, with what it was, and as UNAVAILABLE; the slot is given back later."""
    with closed(gates / "held-late"):
        message = client.ask("slow", **bound)
    assert isinstance(message, str)
    assert message.startswith("[deadline-exceeded] no answer within 500 ms: target 'held' was asked")
    assert status(server, "slow")["resilience"]["deadline_errors_target"] > 0


def test_more_than_the_queue_holds_is_refused(server: TritonServer, gates: Path, client: Client) -> None:
    """As many as it holds are answered, the others refused meanwhile, with a prefix for programs; nobody waits on."""
    clients = [Client(server, "grpc") for _ in range(16)]
    with ThreadPoolExecutor(16) as pool, closed(gates / "held-small"):
        asked = [pool.submit(one.ask, "small", 3.0) for one in clients]
        give_up_at = time.monotonic() + PATIENCE_S
        while sum(one.done() for one in asked) < 12:
            assert time.monotonic() < give_up_at, "those beyond the limit are not refused"
            time.sleep(0.02)
        refused = [one.result() for one in asked if one.done()]
    answers = [one.result() for one in asked]
    assert len(refused) == 12
    assert answers.count({"Y": 3.0, "Z": 6.0}) == 4
    assert all(re.match(r"\[overloaded\] \[retry-after-ms=\d+\] 4 requests are under way", str(one)) for one in refused)
    for one in clients:
        one.close()
    assert client.ask("small") == {"Y": 1.0, "Z": 2.0}
    assert status(server, "small")["resilience"]["refused_full"] > 0
