"""Merging on the real server: answers equal direct ones bit for bit, errors stay with their owners."""

from __future__ import annotations

import shutil
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import yaml
from tritonclient.utils import InferenceServerException

from triton_router.serving.status_socket import read_statuses
from triton_router.testing.triton_server import triton_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from triton_router.testing.triton_server import TritonServer

pytestmark = pytest.mark.triton

MODELS = Path(__file__).parent / "merging_models"
CLIENTS = 32
PATIENCE_S = 60.0
SIBLINGS = {"plain": "", "batched": "dynamic_batching { }\n", "two": "", "lying": "", "slow": ""}
"""Siblings, each behind a routed model that merges, and what is added to its config.pbtxt."""


def write_repository(directory: Path) -> Path:
    for name, more in SIBLINGS.items():
        shutil.copytree(
            MODELS / ("lying" if name == "lying" else "rowwise"),
            directory / name,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        config = (directory / name / "config.pbtxt").read_text() + more
        if name == "two":
            config = config.replace("count: 1", "count: 2")
        (directory / name / "config.pbtxt").write_text(config)
        if name == "slow":
            code = directory / name / "1" / "model.py"
            code.write_text(code.read_text().replace("time.sleep(0.003)", "time.sleep(0.05)"))
        routed = directory / f"routed-{name}"
        (routed / "1").mkdir(parents=True)
        (routed / "config.pbtxt").write_text('backend: "router"\n')
        settings = {
            "targets": [{"name": "only", "model": name, "batch_independent": True}],
            "merge": {"calls_in_flight": 2 if name == "two" else 1},
        }
        (routed / "router.yaml").write_text(yaml.safe_dump(settings))
    return directory


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    with triton_server(write_repository(tmp_path_factory.mktemp("merging"))) as running:
        yield running


@dataclass(frozen=True)
class Kind:
    """A kind of request: its tensors and how it is asked."""

    tensors: dict[str, np.ndarray] = field(default_factory=dict[str, Any])
    outputs: tuple[str, ...] = ()
    parameters: dict[str, Any] = field(default_factory=dict[str, Any])
    bf16: int = 0

    def inputs(self) -> list[triton.InferInput]:
        types = {"float32": "FP32", "int64": "INT64", "object": "BYTES"}
        found: list[triton.InferInput] = []
        for name, array in self.tensors.items():
            tensor = triton.InferInput(name, list(array.shape), types[array.dtype.name])
            tensor.set_data_from_numpy(array)
            found.append(tensor)
        if self.bf16:
            tensor = triton.InferInput("B", [self.bf16, 4], "BF16")
            tensor._raw_content = b"\x80\x3f" * 4 * self.bf16
            found.append(tensor)
        return found

    def ask(self, client: triton.InferenceServerClient, model: str, request_id: str = "") -> tuple[Any, ...]:
        """Return the whole answer: outputs with datatype, shape and bytes, or the error."""
        outputs = [triton.InferRequestedOutput(name) for name in self.outputs] or None
        try:
            result = client.infer(
                model, self.inputs(), outputs=outputs, parameters=self.parameters or None, request_id=request_id
            )
        except InferenceServerException as error:
            return (str(error.status()), error.message())
        response = result.get_response()
        assert response.id == request_id
        pairs = zip(response.outputs, response.raw_output_contents, strict=True)
        return tuple((tensor.name, tensor.datatype, tuple(tensor.shape), raw) for tensor, raw in pairs)


def kinds(count: int, seed: int = 0) -> list[Kind]:
    """Return requests of every sort: sizes, shapes, parameters, optional inputs, strings, BF16; some wrong."""
    rng = np.random.default_rng(seed)
    found: list[Kind] = []
    for n in range(count):
        rows = int(rng.choice([1, 1, 1, 2, 3]))
        tensors: dict[str, Any] = {"X": rng.random((rows, int(rng.choice([2, 2, 2, 5]))), np.float32)}
        sort = n % 12
        if sort == 3:
            tensors["N"] = rng.integers(0, 9, (rows, 1))
        if sort in (4, 5):
            tensors["S"] = np.array([[f"{n} {row}".encode(), b""] for row in range(rows)], np.object_)
        if sort == 6:
            tensors["X"][0, 0] = -1.0 - n
        if sort == 7:
            found.append(Kind(bf16=rows))
            continue
        parameters = {"times": n % 3} if sort in (8, 9) else {}
        found.append(Kind(tensors, ("Y",) if sort in (1, 2) else (), parameters))
    return found


def all_at_once(server: TritonServer, model: str, asked: list[Kind], rounds: int) -> list[list[tuple[Any, ...]]]:
    """Have 32 clients ask, and return the answers by round."""
    clients = [triton.InferenceServerClient(server.grpc_url) for _ in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as pool:

        def one(index: int) -> list[tuple[int, tuple[Any, ...]]]:
            mine = range(index, len(asked) * rounds, CLIENTS)
            return [(n, asked[n % len(asked)].ask(clients[index], model, f"id-{n}")) for n in mine]

        answers = dict(pair for pairs in pool.map(one, range(CLIENTS)) for pair in pairs)
    for client in clients:
        client.close()
    return [[answers[r * len(asked) + n] for n in range(len(asked))] for r in range(rounds)]


def statistics(server: TritonServer, model: str) -> tuple[int, int]:
    """Return how many rows a model has got and in how many executions."""
    client = triton.InferenceServerClient(server.grpc_url)
    found = client.get_inference_statistics(model).model_stats[0]
    client.close()
    return found.inference_count, found.execution_count


def counts(server: TritonServer, model: str) -> dict[str, int]:
    """Return the router's own counts once nothing is in flight."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        (status,) = [status for status in read_statuses(server.pid) if status["model"] == model]
        (target,) = status["targets"]
        if not target["in_flight"]:
            return {name: target[name] for name in ("succeeded", "failed", "refused", "cancelled")}
        assert time.monotonic() < deadline, "requests are still counted as in flight"
        time.sleep(0.02)


def merged(server: TritonServer) -> tuple[float, float]:
    """Return the merged calls of the routed model in front of "slow", and their requests, by Triton's metrics."""
    with urllib.request.urlopen(server.metrics_url) as response:
        lines = response.read().decode().splitlines()
    mine = {line.partition("{")[0]: float(line.rsplit(" ", 1)[1]) for line in lines if 'model="routed-slow"' in line}
    calls, requests = (mine.get(f"triton_router_merged_{what}_total", 0.0) for what in ("calls", "requests"))
    return calls, requests


def until(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


@pytest.mark.parametrize("sibling", ["plain", "batched", "two"])
def test_every_answer_is_the_direct_one(server: TritonServer, sibling: str) -> None:
    """Whatever 32 clients send at once, each gets, bit for bit, what the target itself answers to it."""
    asked = kinds(96)
    client = triton.InferenceServerClient(server.grpc_url)
    expected = [kind.ask(client, sibling) for kind in asked]
    client.close()
    rounds = 4
    for answers in all_at_once(server, f"routed-{sibling}", asked, rounds):
        for kind, answer, wanted in zip(asked, answers, expected, strict=True):
            assert answer == wanted, kind
    wrong = sum(len(answer) == 2 and isinstance(answer[0], str) for answer in expected)
    assert wrong == 8
    assert counts(server, f"routed-{sibling}") == {
        "succeeded": (96 - wrong) * rounds,
        "failed": wrong * rounds,
        "refused": 0,
        "cancelled": 0,
    }


def test_waiting_requests_share_executions(server: TritonServer) -> None:
    """Thirty-two clients of one row each: the target without a batcher is executed far less often than asked.

    It takes so long for a call that clients wait for it, however slow the machine and they are.
    """
    asked = [Kind({"X": np.full((1, 2), n, np.float32)}) for n in range(64)]
    rows_before, runs_before = statistics(server, "slow")
    all_at_once(server, "routed-slow", asked, 8)
    counts(server, "routed-slow")
    rows, runs = statistics(server, "slow")
    assert rows - rows_before == 512
    assert runs - runs_before < 512 / 3

    def says_so() -> bool:
        calls, requests = merged(server)
        return requests > 3 * calls > 0

    until(says_so, "the metrics say so too")


def test_rows_that_depend_on_each_other_end_merging(server: TritonServer) -> None:
    """A target wrongly declared batch-independent is found out by its first merged answer, and the log says so."""
    asked = [Kind({"X": np.full((1, 3), n, np.float32)}) for n in range(32)]
    for answers in all_at_once(server, "routed-lying", asked, 6):
        for n, answer in enumerate(answers):
            assert answer == (("Y", "FP32", (1, 1), np.float32(3 * n).tobytes()),)
    until(lambda: "its requests are no longer merged" in server.log, "the log says so")
    assert server.log.count("its requests are no longer merged") == 1
    assert counts(server, "routed-lying")["succeeded"] == 192
