"""Whatever happens, at random and at once: one answer per request, one outcome per attempt, nothing left over."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.unit.serving.compared_targets import EVERY, Noting
from tests.unit.serving.failing_targets import PATIENCE_S, Rig, error
from triton_router.config.parity_of import comparing_of
from triton_router.config.resilience_settings import HedgeConfig, QueueConfig
from triton_router.config.router_config import RouterConfig
from triton_router.routing.resilience import Resilience
from triton_router.serving.call_lane import CallLane
from triton_router.testing.fake_stub import FakeRequest, FakeTensor, InferenceResponse

if TYPE_CHECKING:
    from collections.abc import Iterator

CLIENTS = 6
REQUESTS = 120
WRONG = "[request id: 1] unexpected shape for input 'X' for model 'm'. Expected [-1], got [2,2]"
NOT_READY = "Model 't0' is not ready."


@dataclass(frozen=True)
class Mood:
    """How one run is set up."""

    name: str
    streaming: bool = False
    merges: bool = False
    workers: int = 8
    limit: int = 1000
    hedges: bool = False
    overdue_ms: float = 8.0
    cap: int = 0
    inline: bool = False
    compared: bool = False


MOODS = (
    Mood("plain"),
    Mood("hedged", hedges=True, workers=24),
    Mood("merged", merges=True),
    Mood("merged and hedged", merges=True, hedges=True, workers=3),
    Mood("streams", streaming=True, workers=16),
    Mood("few workers", workers=2, limit=5),
    Mood("capped", cap=1, workers=16),
    Mood("capped and merged", cap=2, merges=True, workers=4, limit=4),
    Mood("inline", inline=True),
    Mood("compared", compared=True),
    Mood("compared, merged and hedged", compared=True, merges=True, hedges=True),
    Mood("compared inline", compared=True, inline=True),
)


def serving(rng: random.Random, *, streaming: bool) -> Any:
    """Return targets that answer, fail, dawdle, hang for a while, forget outputs and refuse, as it comes."""

    def answer(arguments: dict[str, Any]) -> InferenceResponse:
        mood = rng.random()
        time.sleep(0.03 if mood < 0.05 else 0.002 * rng.random())
        if mood < 0.12:
            return error(rng.choice(["boom", NOT_READY]))
        if mood < 0.15:
            raise RuntimeError("exec failed")
        if mood < 0.17:
            return error(WRONG)
        if mood < 0.19:
            return InferenceResponse([])
        return InferenceResponse([FakeTensor.of("Y", arguments["inputs"][0].as_numpy() * 2)])

    def stream(arguments: dict[str, Any]) -> Iterator[InferenceResponse]:
        for _ in range(rng.randint(1, 4)):
            yield answer(arguments)

    return lambda _, arguments: stream(arguments) if streaming else answer(arguments)


def random_request(rng: random.Random, n: int) -> FakeRequest:
    request = FakeRequest(tensors=(FakeTensor.of("X", np.full((1, 16), n, np.float32)),))
    kind = rng.random()
    if kind < 0.25:
        request.timeout_us = rng.randint(1, 20_000)
    elif kind < 0.35:
        request.params = {"router_max_latency_ms": rng.randint(1, 20), "router_priority": rng.randint(-3, 3)}
    elif kind < 0.5:
        request.params = {"x-priority": rng.randint(-3, 3)}
    elif kind < 0.6:
        request.correlation = rng.randint(1, 5)
        request.sequence_flags = rng.randint(0, 3)
    if rng.random() < 0.1:
        threading.Timer(rng.random() * 0.02, lambda: setattr(request, "cancelled", True)).start()
    return request


def rig_of(mood: Mood, seed: int) -> Rig:
    caps = {f"t{i}": mood.cap for i in range(3)} if mood.cap else {}
    lanes = {f"t{i}": CallLane(limit=1, max_rows=8) for i in range(3)} if mood.merges else {}
    return Rig(
        serving(random.Random(seed), streaming=mood.streaming),
        targets=3,
        resilience=Resilience(
            retry_burst=100,
            overdue_ms=mood.overdue_ms,
            hedge_share=0.5 if mood.hedges else 0.0,
            hedge_probability=0.5,
            caps=caps,
        ),
        lanes=lanes,
        workers=mood.workers,
        streaming=mood.streaming,
        inline=mood.inline,
        queue=QueueConfig(limit=mood.limit),
        hedge=HedgeConfig(share=0.5 if mood.hedges else 0.0),
    )


def compare(rig: Rig) -> Noting:
    """Have every answer compared that can be, with those of a reference that fails like all others."""
    targets = [{"name": f"t{i}", "model": f"t{i}", "variant": "int8" if i else "onnx"} for i in range(3)]
    config = RouterConfig.model_validate({"targets": targets, "parity": EVERY, "shadow": {"target": "t2", **EVERY}})
    rig.dispatcher.comparisons.go_by(comparing_of(config), config)
    judge = Noting()
    rig.dispatcher.comparisons._judge = rig.dispatcher.comparisons._asking._judge = judge
    return judge


@pytest.mark.parametrize("mood", MOODS, ids=lambda mood: mood.name)
def test_exactly_once(mood: Mood, capfd: pytest.CaptureFixture[str]) -> None:
    """Each request gets its own answer or an error, once; each decision one outcome; all slots come back."""
    rig = rig_of(mood, seed=len(mood.name))
    judge = compare(rig) if mood.compared else None
    lock = threading.Lock()

    def client(seed: int) -> tuple[int, int]:
        rng = random.Random(seed)
        good = bad = 0
        # Where targets take one request each, there is rarely room at another one when a retry wants it.
        for n in range(0, REQUESTS * (5 if mood.cap else 1), 3):
            requests = [random_request(rng, seed * 1000 + n + i) for i in range(rng.randint(1, 3))]
            with lock:  # execute() is called by one thread at a time
                returned = rig.dispatcher.execute(requests)
            for request in requests:
                if returned is None:
                    assert request.done.wait(PATIENCE_S), "a request was never answered"
                    assert [flags for _, flags in request.answers].count(1) == 1
                responses = returned or [response for response, _ in request.answers]
                expected = 2.0 * float(request.tensors[0].as_numpy()[0, 0])
                is_bad = any(response is not None and response.has_error() for response in responses)
                good, bad = good + (not is_bad), bad + is_bad
                for response in responses:
                    for tensor in response.output_tensors() if response else ():
                        assert tensor.as_numpy()[0, 0] == expected, "somebody else's answer"
                assert not request.complaints
        return good, bad

    with ThreadPoolExecutor(CLIENTS) as clients:
        results = list(clients.map(client, range(CLIENTS)))
    counts = rig.closed()
    assert judge is None or judge.notes
    assert min(sum(kind) for kind in zip(*results, strict=True)) > CLIENTS, "good answers and errors"
    assert counts.get("retries", 0) > 0
    assert mood.hedges <= counts.get("hedges", 0)
    assert "Traceback" not in capfd.readouterr().err
