"""The event loop: a fake clock, the devices, and one contender (or several that do not know of each other)."""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from triton_router.routing.types import Outcome, Verdict
from triton_router.simulation.fleet import build_fleet
from triton_router.simulation.routers import routers_of
from triton_router.simulation.scenario import ClosedLoop
from triton_router.simulation.traffic import drawn_luck, requests_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from triton_router.routing.types import RoutingDecision
    from triton_router.simulation.contenders import Choice
    from triton_router.simulation.fleet import Fleet, SimulatedTarget
    from triton_router.simulation.scenario import Scenario
    from triton_router.simulation.traffic import Request

FAILS_AFTER_S = 0.001
"""A failing target says so quickly, and without using its device: what makes it look fast."""
MOST_COMPARED = 64
"""Targets up to which each choice is compared with the best there was."""


class Served(NamedTuple):
    """One request that was answered, one of its attempts that was not the last, or one mirrored copy.

    Attributes:
        request: Its number; that of the request it copies, or tries again.
        router: Which of the routers chose.
        target: Index of the target in the fleet.
        latency_ms: From the request's first decision to the answer.
        alone_ms: What it would have taken with nothing else in flight: how long it used its device.
        expected_ms: True expected latency at the time of the choice, the queue included; 0 where not compared.
        best_ms: The same of the target where it was lowest.
        peak: Requests in flight at the busiest target over the mean of all when it came; 0 where not compared.
        predicted_ms: What the engine predicted; 0 for nothing.
        arrived, ended: In seconds.
        retried: Whether it failed and the request was tried again elsewhere: its client does not hear of it.
    """

    request: int
    router: int
    target: int
    latency_ms: float
    alone_ms: float
    expected_ms: float
    best_ms: float
    peak: float
    predicted_ms: float
    arrived: float
    ended: float
    failed: bool
    mirrored: bool
    retried: bool = False


@dataclass(slots=True)
class Run:
    """What came of one contender in one scenario.

    Attributes:
        decision_s: Processor time that choosing took in all; differs from run to run.
        left_in_flight: Choices that the contenders still count as unfinished; 0 if all is well.
    """

    policy: str
    served: list[Served] = field(default_factory=list["Served"])
    decision_s: float = 0.0
    left_in_flight: int = 0


@dataclass(slots=True, eq=False)
class _Job:
    request: Request
    router: int
    choice: Choice
    began: float
    alone_ms: float
    expected_ms: float
    best_ms: float
    peak: float
    failed: bool
    mirrored: bool
    earlier: tuple[_Job, ...] = ()


class Simulation:
    """One scenario with its traffic drawn; `run` it with any contender, as often as you like.

    Args:
        scenario: What to simulate.
        seed: The same seed gives the same traffic, the same chance and the same choices.
        requests: How many; as many as the scenario says by default.
        observe: Is told of each of an engine's decisions and its outcome.
    """

    def __init__(
        self,
        scenario: Scenario,
        seed: int = 1,
        requests: int | None = None,
        observe: Callable[[RoutingDecision, Outcome, float], None] | None = None,
    ) -> None:
        self.scenario = scenario
        self.seed = seed
        self.fleet = build_fleet(scenario, self._rng("fleet"))
        self.requests = requests_of(scenario, requests or scenario.requests, self._rng("traffic"))
        self.observe = observe

    def run(self, policy: str) -> Run:
        """Simulate one contender from the beginning to its last answer."""
        return _Loop(self, policy, self._rng(policy)).run()

    def _rng(self, purpose: str) -> Random:
        return Random(f"{self.seed}:{purpose}")  # noqa: S311 - reproducible draws, not secrets


class _Loop:
    def __init__(self, simulation: Simulation, policy: str, rng: Random) -> None:
        self._fleet: Fleet = simulation.fleet
        self._scenario = simulation.scenario
        self._requests = simulation.requests
        self._observe = simulation.observe
        self._rng = rng
        self._devices = simulation.fleet.fresh_devices()
        self._due = [float("inf")] * len(self._devices)
        self._events: list[tuple[float, int, int, int]] = []
        self._jobs: dict[int, _Job] = {}
        self._in_flight = [0] * len(simulation.fleet.targets)
        self._sequence = 0
        self._next = 0
        self._run = Run(policy)
        self._contenders = routers_of(simulation, policy, rng, self.expected_ms)

    def run(self) -> Run:
        arrivals = self._scenario.arrivals
        if isinstance(arrivals, ClosedLoop):
            self._think_s: float | None = arrivals.think_ms / 1e3
            for _ in range(min(arrivals.clients, len(self._requests))):
                self._push(0.0, _ARRIVAL, self._take_next())
        else:
            self._think_s = None
            self._push(self._requests[0].arrives, _ARRIVAL, self._take_next())
        while self._events:
            now, _, kind, subject = heappop(self._events)
            if kind == _ARRIVAL:
                self._arrive(self._requests[subject], now)
            elif kind == _FAILURE:
                self._end(subject, now)
            elif self._due[subject] == now:
                self._end(self._devices[subject].end(), now)
                self._watch(subject)
        self._run.left_in_flight = sum(contender.in_flight for contender in self._contenders)
        return self._run

    def expected_ms(self, target: SimulatedTarget, request: Request, now: float) -> float:
        """Return the true expected latency of a request that comes now, what is in flight included."""
        service_s = target.mean_ms(request, now) / 1e3
        return (
            self._devices[target.device_index].expected_end(service_s, now, target.index, target.spec.instances) - now
        ) * 1e3

    def _arrive(self, request: Request, now: float) -> None:
        if self._think_s is None and self._next < len(self._requests):
            self._push(self._requests[self._next].arrives, _ARRIVAL, self._take_next())
        router = int(self._rng.random() * len(self._contenders)) if len(self._contenders) > 1 else 0
        begin = perf_counter()
        choice = self._contenders[router].choose(request, now)
        self._run.decision_s += perf_counter() - begin
        compared = self._compared(request, choice.target, now)
        self._begin(_Job(request, router, choice, now, 0.0, *compared, failed=False, mirrored=False), now)

    def _compared(self, request: Request, chosen: int, now: float) -> tuple[float, float, float]:
        targets = self._fleet.targets
        if len(targets) > MOST_COMPARED:
            return 0.0, 0.0, 0.0
        expected = [self.expected_ms(target, request, now) for target in targets]
        able = [value for value, target in zip(expected, targets, strict=True) if not target.failure_rate(now)]
        in_flight = sum(self._in_flight)
        peak = max(self._in_flight) * len(targets) / in_flight if in_flight else 0.0
        return expected[chosen], min(able, default=min(expected)), peak

    def _begin(self, job: _Job, now: float) -> None:
        target = self._fleet.targets[job.choice.target]
        # What chance had in store for the request was spent on its first attempt.
        luck = drawn_luck(self._rng) if job.mirrored or job.earlier else job.request.luck
        self._sequence += 1
        number = self._sequence
        self._jobs[number] = job
        self._in_flight[target.index] += 1
        if luck.failure < target.failure_rate(now):
            job.failed = True
            self._push(now + FAILS_AFTER_S, _FAILURE, number)
            return
        job.alone_ms = target.service_ms(job.request, luck, now)
        self._devices[target.device_index].submit(number, job.alone_ms / 1e3, now, target.index, target.spec.instances)
        self._watch(target.device_index)

    def _end(self, number: int, now: float) -> None:
        job = self._jobs.pop(number)
        self._in_flight[job.choice.target] -= 1
        latency_ms = (now - job.began) * 1e3
        outcome = Outcome(Verdict.TARGET_ERROR if job.failed else Verdict.SUCCESS, latency_ms)
        contender = self._contenders[job.router]
        contender.finish(job.choice, outcome, now)
        retried = job.failed and self._try_again(job, now)
        decision = job.choice.decision
        if self._observe is not None and decision is not None:
            self._observe(decision, outcome, now)
        self._run.served.append(
            Served(
                job.request.number,
                job.router,
                job.choice.target,
                (now - (job.earlier[0] if job.earlier else job).began) * 1e3,
                job.alone_ms,
                job.expected_ms,
                job.best_ms,
                job.peak,
                decision.expected_latency_ms if decision is not None else 0.0,
                job.began,
                now,
                job.failed,
                job.mirrored,
                retried,
            )
        )
        if job.mirrored or retried:
            return
        copy = None if job.failed else contender.mirror(job.choice)
        if copy is not None:
            self._begin(_Job(job.request, job.router, copy, now, 0.0, 0.0, 0.0, 0.0, failed=False, mirrored=True), now)
        if self._think_s is not None and self._next < len(self._requests):
            self._push(now + self._think_s, _ARRIVAL, self._take_next())

    def _try_again(self, job: _Job, now: float) -> bool:
        """Begin another attempt at a request that failed, if its contender wants one."""
        if job.mirrored or job.choice.decision is None:
            return False
        attempts = (*job.earlier, job)
        choice = self._contenders[job.router].again([one.choice for one in attempts], now)
        if choice is None:
            return False
        compared = self._compared(job.request, choice.target, now)
        self._begin(
            _Job(job.request, job.router, choice, now, 0.0, *compared, failed=False, mirrored=False, earlier=attempts),
            now,
        )
        return True

    def _watch(self, device: int) -> None:
        """Look again when the device's next job ends; an earlier appointment for another time is void."""
        due = self._devices[device].next_end()
        if due != self._due[device] and due != float("inf"):
            self._push(due, _COMPLETION, device)
        self._due[device] = due

    def _push(self, at: float, kind: int, subject: int) -> None:
        self._sequence += 1
        heappush(self._events, (at, self._sequence, kind, subject))

    def _take_next(self) -> int:
        self._next += 1
        return self._next - 1


_ARRIVAL, _COMPLETION, _FAILURE = range(3)
