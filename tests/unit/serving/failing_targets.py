"""A dispatcher over a fake stub whose targets fail, hang and come back as a test says."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, Any

from triton_router.profiling.profile import TargetProfile
from triton_router.routing.engine import RoutingEngine
from triton_router.routing.policies import policy_named
from triton_router.routing.resilience import Resilience
from triton_router.routing.rules import RoutingRules
from triton_router.routing.types import Backend, Target
from triton_router.serving.assembly import Way, assembled
from triton_router.testing.fake_stub import FakeRequest, FakeStub, FakeTensor, InferenceResponse, TritonError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from triton_router.routing.types import Outcome, RoutingDecision

GOOD = InferenceResponse([FakeTensor("Y")])
PATIENCE_S = 60.0


def error(message: str = "boom", code: int = TritonError.INTERNAL) -> InferenceResponse:
    return InferenceResponse([], TritonError(message, code))


class Rig:
    """A dispatcher over targets t0, t1, ..., which are asked in this order.

    Attributes:
        calls: Names of the targets in the order in which they were called.
        outcomes: Every decision with its outcome, in their order.
    """

    def __init__(
        self,
        serve: Callable[[str, dict[str, Any]], Any],
        *,
        targets: int = 2,
        resilience: Resilience | None = None,
        alone_ms: float = 0.5,
        backends: Sequence[Backend] = (),
        **way: Any,
    ) -> None:
        self.calls: list[str] = []
        self.outcomes: list[tuple[RoutingDecision, Outcome]] = []

        def called(arguments: dict[str, Any]) -> Any:
            name = arguments["model_name"]
            self.calls.append(name)
            return serve(name, arguments)

        stub: Any = FakeStub(called)
        self.engine = RoutingEngine(
            # The first is the fastest and is taken first; the others follow.
            [
                (Target(f"t{i}", f"t{i}", backend=backend), TargetProfile([(16, alone_ms * (i + 1))]))
                for i, backend in enumerate(backends or [Backend.CPU] * targets)
            ],
            policy_named("latency"),
            rules=RoutingRules(explore=0.0, mirror=0.0, resilience=resilience or Resilience(retry_burst=1000)),
            rng=random.Random(8).random,
        )
        self.dispatcher = assembled(
            stub, self.engine, self._finish, Way(**{"workers": 8, "targets": targets, **way}), warn=print
        )

    def _finish(self, decision: RoutingDecision, outcome: Outcome, now: float) -> None:
        self.outcomes.append((decision, outcome))
        self.engine.finish(decision, outcome, now)

    def execute(self, *requests: FakeRequest) -> None:
        assert self.dispatcher.execute(requests) is None

    def answered(self, *requests: FakeRequest) -> list[Any]:
        """Execute the requests and return the last response of each."""
        self.execute(*requests)
        return [answer_of(request) for request in requests]

    def closed(self) -> dict[str, int]:
        """See everything to its end; check that nothing is left over, and return the counts."""
        self.dispatcher.close()
        counts = self.dispatcher.resilience_counts()
        assert [counts.pop(name) for name in ("under_way", "waiting", "abandoned")] == [0, 0, 0]
        assert [target.in_flight for target in self.engine.snapshot(time.monotonic())] == [0] * self.targets
        decisions = [id(decision) for decision, _ in self.outcomes]
        assert len(set(decisions)) == len(decisions), "a decision was finished twice"
        return {name: count for name, count in counts.items() if count}

    @property
    def targets(self) -> int:
        return len(self.engine.snapshot(time.monotonic()))

    def verdicts(self) -> list[tuple[str, str, str]]:
        """Return each outcome as target, reason of the decision, verdict."""
        return [(d.target.name, d.reason, outcome.verdict.value) for d, outcome in self.outcomes]


def answer_of(request: FakeRequest) -> Any:
    """Return the last response of a request, once it has one, and only one."""
    assert request.done.wait(PATIENCE_S), "a request was never answered"
    assert [flags for _, flags in request.answers].count(1) == 1
    assert not request.complaints
    return request.answers[-1][0]


def message_of(response: Any) -> str:
    return response.error().message()


def until(condition: Callable[[], bool]) -> None:
    """Wait for something to become true."""
    give_up_at = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up_at, "it never came true"
        time.sleep(0.001)


class Gate:
    """Calls wait here until it is opened; it opens by itself in the end, so that no test hangs."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def __call__(self, answer: Any) -> Any:
        """Return an answer once the gate is open."""
        self.wait()
        return answer

    def open(self) -> None:
        self._event.set()

    def close(self) -> None:
        self._event.clear()

    def wait(self) -> None:
        assert self._event.wait(PATIENCE_S)
