"""A dispatcher over a fake stub, with a reference, a variant and a shadow that answer as a test says."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from triton_router.config.configured_engine import configured_engine
from triton_router.config.parity_of import comparing_of
from triton_router.config.router_config import RouterConfig
from triton_router.serving.assembly import assembled, way_of
from triton_router.testing.fake_stub import FakeRequest, FakeStub, FakeTensor, InferenceResponse, TritonError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from triton_router.config.parity_of import Pair
    from triton_router.parity.difference import Difference

TARGETS = (
    {"name": "fp32", "model": "fp32", "variant": "onnx"},
    {"name": "int8", "model": "int8", "variant": "onnx-int8"},
    {"name": "next", "model": "next", "variant": "onnx"},
)
EVERY = {"share": 1.0, "budget": 1.0}


def answer(values: NDArray[Any]) -> InferenceResponse:
    """Return an answer of one output."""
    return InferenceResponse([FakeTensor.of("Y", values)])


class Noting:
    """A judge that notes what it is told."""

    def __init__(self) -> None:
        self.notes: list[tuple[Pair, str]] = []
        self.failures: list[Pair] = []
        self.inputs: list[Mapping[str, Any]] = []
        self.canary = False

    def judges(self, target: str) -> bool:
        return self.canary

    def note(self, pair: Pair, found: Difference, problem: str, inputs: Mapping[str, Any]) -> None:
        self.notes.append((pair, problem))
        self.inputs.append(inputs)

    def note_failed(self, pair: Pair) -> None:
        self.failures.append(pair)


class Rig:
    """Serves requests of a routed model and waits for what follows them.

    Args:
        settings: Of ``router.yaml``.

    Attributes:
        wrong: Targets that answer something else.
        failing: Targets that answer with an error.
        refusing: Targets that say the request is at fault.
        refusing_ids: Targets that do so where it has an id.
        params: Parameters of the requests.
        calls: How often each target was asked.
        preferred: The target that serves.
        gate: Targets wait for it before they answer.
    """

    def __init__(self, **settings: Any) -> None:
        self.judge = Noting()
        self.wrong: set[str] = set()
        self.failing: set[str] = set()
        self.refusing: set[str] = set()
        self.refusing_ids: set[str] = set()
        self.params: dict[str, Any] = {}
        self.calls: Counter[str] = Counter()
        self.gate = threading.Event()
        self.gate.set()
        self.hanging: set[str] = set()
        self.config = RouterConfig.model_validate(
            {"targets": TARGETS, "explore": 0, "mirror": 0, "parity": EVERY, **settings}
        )
        self.engine = configured_engine(self.config, "m", {}, rng=random.Random(1).random)
        stub: Any = FakeStub(self._serve)
        way = way_of(self.config, {"max_batch_size": 8})
        self.told: list[str] = []
        self.dispatcher = assembled(stub, self.engine, self.engine.finish, way, warn=self.told.append, judge=self.judge)
        self.follow(self.config)

    def follow(self, config: RouterConfig) -> None:
        """Compare by other settings."""
        self.dispatcher.comparisons.go_by(comparing_of(config), config)

    def _serve(self, arguments: dict[str, Any]) -> Any:
        name = arguments["model_name"]
        self.calls[name] += 1
        if name in self.hanging:
            assert self.gate.wait(60)
        if name in self.failing:
            return InferenceResponse([], TritonError("boom"))
        if name in self.refusing or (name in self.refusing_ids and arguments.get("request_id")):
            return InferenceResponse([], TritonError("no", TritonError.INVALID_ARG))
        tensor = arguments["inputs"][0]
        values = np.ones((1, 4), np.float32) if tensor.array is None else tensor.as_numpy()
        return answer(values * (-1 if name in self.wrong else 2))

    def only(self, *names: str) -> None:
        """Have live requests go to these targets alone."""
        for target in self.config.targets:
            problem = "" if target.name in names else "kept out by the test"
            self.engine.mark(target.name, problem, time.monotonic(), 60.0, takes_copies=True)

    def serve(self, requests: int = 1, tensor: FakeTensor | None = None) -> list[FakeRequest]:
        """Serve requests one after the other, and wait until all that follows has been done; whatever that costs."""
        comparisons = self.dispatcher.comparisons
        for lane in (comparisons._guard, comparisons._shadow):
            lane.sampling.spend(-1e6)
        served = [
            FakeRequest((tensor or FakeTensor.of("X", np.ones((1, 4), np.float32)),), self.params)
            for _ in range(requests)
        ]
        for request in served:
            response = self.dispatcher.execute([request])
            if response is not None:
                request.send(response[0], 1)
            assert request.done.wait(60)
            self.settle()
        assert not [complaint for request in served for complaint in request.complaints]
        return served

    def settle(self) -> None:
        """Wait until nothing is in flight."""
        end = time.monotonic() + 60
        while any(target.in_flight for target in self.engine.snapshot(time.monotonic())) or self.is_comparing():
            assert time.monotonic() < end
            time.sleep(0.001)

    def is_comparing(self) -> bool:
        comparisons = self.dispatcher.comparisons
        lanes = (comparisons._guard, comparisons._shadow)
        held = [exchange for lane in lanes if (exchange := lane._held_by()) and not exchange.is_answered]
        return bool(held) or any(lane._is_copying for lane in lanes)
