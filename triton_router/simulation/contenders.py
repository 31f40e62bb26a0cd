"""What is compared: the engine under each of its policies, what others do, and an oracle.

The baselines know nothing of shapes, health or devices: `round-robin` takes turns, `ewma` takes the lowest moving
average of latency times the requests in flight (Finagle's Peak EWMA), `argmin` is the engine with a picker that always
takes the best score and so makes herds of many routers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from triton_router.routing.engine import RoutingEngine
from triton_router.routing.filters import unproven_and_busy
from triton_router.routing.policies import POLICIES, Policy, policy_named
from triton_router.routing.resilience import Resilience
from triton_router.routing.rules import RoutingRules
from triton_router.routing.scorers import least_latency
from triton_router.routing.types import Outcome, RoutingContext, RoutingDecision, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from triton_router.routing.protocols import Candidate
    from triton_router.simulation.fleet import SimulatedTarget
    from triton_router.simulation.scenario import EngineRules
    from triton_router.simulation.traffic import Request

ORACLE = "oracle"
BASELINES = ("round-robin", "ewma", "argmin")
CONTENDERS = (*POLICIES, *BASELINES, ORACLE)
"""Everything that can be compared, by name."""

_NEWEST = 0.3
"""Weight of the newest latency in a moving average."""


class Choice(NamedTuple):
    """A target, by its index in the fleet, and what the contender made of it, if it is an engine."""

    target: int
    decision: RoutingDecision | None = None


class Contender(Protocol):
    """Chooses targets. Each choice is finished exactly once."""

    def choose(self, request: Request, now: float) -> Choice:
        """Choose for a request."""
        ...

    def finish(self, choice: Choice, outcome: Outcome, now: float) -> None:
        """Hear how a choice ended."""
        ...

    def again(self, choices: Sequence[Choice], now: float) -> Choice | None:
        """Choose another target for a request that failed at these, if it is to be tried again."""
        ...

    def mirror(self, choice: Choice) -> Choice | None:
        """Choose a target for a copy of a request that was answered, if it is wanted."""
        ...

    @property
    def in_flight(self) -> int:
        """Choices that are not finished, as the contender counts them."""
        ...


class EngineContender:
    """The unchanged engine.

    Args:
        targets: The fleet, or the part of it that the engine knows.
        policy: The policy in force.
        rules: The rules in force.
        rng: Uniform numbers in [0, 1).
        log_propensities: Whether decisions carry their probability.
    """

    def __init__(
        self,
        targets: Sequence[SimulatedTarget],
        policy: Policy,
        rules: EngineRules,
        rng: Callable[[], float],
        *,
        log_propensities: bool = False,
    ) -> None:
        self._index = {target.target.name: target.index for target in targets}
        self.engine = RoutingEngine(
            [(target.target, target.profile()) for target in targets],
            policy,
            rng=rng,
            rules=RoutingRules(
                explore=rules.explore, mirror=rules.mirror, resilience=Resilience(attempts=rules.attempts)
            ),
            log_propensities=log_propensities,
        )

    def choose(self, request: Request, now: float) -> Choice:
        """See `Contender`."""
        context = RoutingContext(request.rows, request.work, max_latency_ms=request.max_latency_ms)
        return self._choice(self.engine.decide(context, now))

    def finish(self, choice: Choice, outcome: Outcome, now: float) -> None:
        """See `Contender`."""
        if choice.decision is not None:
            self.engine.finish(choice.decision, outcome, now)

    def again(self, choices: Sequence[Choice], now: float) -> Choice | None:
        """See `Contender`."""
        decision = self.engine.again([choice.decision for choice in choices if choice.decision is not None], now)
        return None if decision is None else self._choice(decision)

    def mirror(self, choice: Choice) -> Choice | None:
        """See `Contender`."""
        decision = self.engine.mirror(choice.decision) if choice.decision is not None else None
        return None if decision is None else self._choice(decision)

    @property
    def in_flight(self) -> int:
        """See `Contender`."""
        return sum(target.in_flight for target in self.engine.snapshot(0.0))

    def _choice(self, decision: RoutingDecision) -> Choice:
        return Choice(self._index[decision.target.name], decision)


class _Counting:
    """What contenders without an engine share: they count what is in flight and mirror nothing."""

    def __init__(self, targets: Sequence[SimulatedTarget]) -> None:
        self.targets = targets
        self.load = [0] * len(targets)

    @property
    def in_flight(self) -> int:
        """See `Contender`."""
        return sum(self.load)

    def again(self, choices: Sequence[Choice], now: float) -> Choice | None:
        """See `Contender`."""

    def mirror(self, choice: Choice) -> Choice | None:
        """See `Contender`."""
        del choice
        return None

    def finish(self, choice: Choice, outcome: Outcome, now: float) -> None:
        """See `Contender`."""
        del outcome, now
        self.load[choice.target] -= 1

    def reserve(self, target: int) -> Choice:
        """Count one more at a target."""
        self.load[target] += 1
        return Choice(target)


class RoundRobin(_Counting):
    """Takes turns."""

    def __init__(self, targets: Sequence[SimulatedTarget]) -> None:
        super().__init__(targets)
        self._next = 0

    def choose(self, request: Request, now: float) -> Choice:
        """See `Contender`."""
        del request, now
        target = self._next
        self._next = (target + 1) % len(self.targets)
        return self.reserve(target)


class PeakEwma(_Counting):
    """Takes the lowest moving average of latency times (1 + requests in flight); one percent goes anywhere."""

    def __init__(self, targets: Sequence[SimulatedTarget], rng: Callable[[], float]) -> None:
        super().__init__(targets)
        self._mean_ms = [0.0] * len(targets)
        self._rng = rng

    def choose(self, request: Request, now: float) -> Choice:
        """See `Contender`."""
        del request, now
        indexes = range(len(self.targets))
        if self._rng() < 0.01:
            return self.reserve(int(self._rng() * len(self.targets)))
        return self.reserve(min(indexes, key=lambda i: (self._mean_ms[i] * (1 + self.load[i]), self.load[i])))

    def finish(self, choice: Choice, outcome: Outcome, now: float) -> None:
        """See `Contender`."""
        super().finish(choice, outcome, now)
        mean = self._mean_ms[choice.target]
        new = outcome.latency_ms if outcome.verdict is Verdict.SUCCESS else max(1000.0, 2.0 * mean)
        self._mean_ms[choice.target] = mean + _NEWEST * (new - mean) if mean else new


class Oracle(_Counting):
    """Knows each target's true mean latency, failures and queue, and takes what will answer this request first.

    It knows no future: neither who comes next nor what chance will make of an answer.

    Args:
        targets: The fleet.
        expected_ms: Returns the true expected latency of a request at a target, the queue included.
    """

    def __init__(
        self, targets: Sequence[SimulatedTarget], expected_ms: Callable[[SimulatedTarget, Request, float], float]
    ) -> None:
        super().__init__(targets)
        self._expected_ms = expected_ms

    def choose(self, request: Request, now: float) -> Choice:
        """See `Contender`."""
        best = min(self.targets, key=lambda target: (target.failure_rate(now), self._expected_ms(target, request, now)))
        return self.reserve(best.index)


class AlwaysBest:
    """Picks the best score and, of several, the first: what makes many routers act as one."""

    def pick(self, candidates: Sequence[Candidate], rng: Callable[[], float]) -> int:
        """See `Picker`."""
        del rng
        return max(range(len(candidates)), key=lambda index: (candidates[index].score, -index))

    def probabilities(self, candidates: Sequence[Candidate]) -> list[float]:
        """See `Picker`."""
        best = self.pick(candidates, lambda: 0.0)
        return [float(index == best) for index in range(len(candidates))]


def engine_policy(name: str) -> Policy:
    """Return a policy by its name, `argmin` included. Raises `ConfigError`."""
    if name == "argmin":
        return Policy("argmin", (unproven_and_busy,), ((least_latency, 1.0),), AlwaysBest())
    return policy_named(name)
