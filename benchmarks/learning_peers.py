"""What chooses among the variants in the replay: this project's engine, and the peers it is measured against."""

from __future__ import annotations

import random
from math import log
from typing import TYPE_CHECKING, NamedTuple, Protocol

from triton_router.config.router_config import RouterConfig
from triton_router.profiling.profile import TargetProfile
from triton_router.routing.engine import RoutingEngine
from triton_router.routing.policies import policy_named
from triton_router.routing.rules import RoutingRules
from triton_router.routing.types import Outcome, RoutingContext, RoutingDecision, Target, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MIRROR: float = RouterConfig.model_fields["mirror"].default
EXPLORE = 0.01
"""Share of requests with which every learner may try a target that is not its favourite."""


class Request(NamedTuple):
    """What a router knows of a request."""

    batch: int
    length: int
    work: float


class Copy(NamedTuple):
    """A copy: the index of the variant that gets it, and who hears how long it took, as `Router.learn` does."""

    index: int
    learn: Callable[[float, float], None]


class Router(Protocol):
    """Chooses a variant, then hears how long it took. ``now`` is in seconds."""

    def choose(self, request: Request, now: float) -> int:
        """Return the index of the variant."""
        ...

    def learn(self, latency_ms: float, now: float) -> None:
        """Hear how long the last choice took."""
        ...

    def copy(self) -> Copy | None:
        """Return the copy of the request just answered that is to be sent, for which no client waits; mostly None."""
        ...


class _Peer:
    """What sends no copies."""

    def copy(self) -> None:
        """Return None."""


class Ours:
    """The routing engine, policy ``latency``; nothing is measured beforehand.

    Args:
        variants: Names of the targets.
        seed: Of its random numbers.
        mirror: Time spent on copies, as a share of the time spent serving.
    """

    def __init__(self, variants: Sequence[str], seed: int, mirror: float = 0.0) -> None:
        self._index = {name: index for index, name in enumerate(variants)}
        self._engine = RoutingEngine(
            [(Target(name, name), TargetProfile()) for name in variants],
            policy_named("latency"),
            rules=RoutingRules(explore=EXPLORE, mirror=mirror),
            rng=random.Random(seed).random,
        )
        self._decision: RoutingDecision | None = None

    def choose(self, request: Request, now: float) -> int:
        """Return the index of the chosen variant."""
        context = RoutingContext(batch_size=request.batch, work=request.work)
        self._decision = self._engine.decide(context, now)
        return self._index[self._decision.target.name]

    def learn(self, latency_ms: float, now: float) -> None:
        """Hear how long it took."""
        assert self._decision is not None
        self._engine.finish(self._decision, Outcome(Verdict.SUCCESS, latency_ms), now)

    def copy(self) -> Copy | None:
        """Return the copy that is due."""
        assert self._decision is not None
        copied = self._engine.mirror(self._decision)
        if copied is None:
            return None
        return Copy(
            self._index[copied.target.name],
            lambda latency_ms, now: self._engine.finish(copied, Outcome(Verdict.SUCCESS, latency_ms), now),
        )


class RoundRobin(_Peer):
    """One after the other."""

    def __init__(self, variants: Sequence[str], seed: int) -> None:
        self._count = len(variants)
        self._next = seed

    def choose(self, request: Request, now: float) -> int:  # noqa: ARG002
        """Return the index of the chosen variant."""
        self._next += 1
        return self._next % self._count

    def learn(self, latency_ms: float, now: float) -> None:
        """Learn nothing."""


class LeastLatency(_Peer):
    """The lowest exponentially weighted mean latency, with a little exploration (NGINX Plus, Finagle, LiteLLM)."""

    _RATE = 0.1

    def __init__(self, variants: Sequence[str], seed: int) -> None:
        self._means = [0.0] * len(variants)
        self._rng = random.Random(seed)
        self._last = 0

    def choose(self, request: Request, now: float) -> int:  # noqa: ARG002
        """Return the index of the chosen variant."""
        count = len(self._means)
        explore = self._rng.random() < EXPLORE
        self._last = self._rng.randrange(count) if explore else min(range(count), key=self._means.__getitem__)
        return self._last

    def learn(self, latency_ms: float, now: float) -> None:  # noqa: ARG002
        """Hear how long it took."""
        mean = self._means[self._last]
        self._means[self._last] = mean + self._RATE * (latency_ms - mean) if mean else latency_ms


class Bandit(_Peer):
    """Vowpal Wabbit's contextual bandit with action features; the cost is the logarithm of the latency."""

    def __init__(self, variants: Sequence[str], seed: int) -> None:
        import vowpalwabbit

        self._vw = vowpalwabbit.Workspace(f"--cb_explore_adf --epsilon {EXPLORE} --quiet -q sa --random_seed {seed}")
        self._variants = variants
        self._rng = random.Random(seed)
        self._chosen = (0, 1.0, "")

    def choose(self, request: Request, now: float) -> int:  # noqa: ARG002
        """Return the index of the chosen variant."""
        shared = (
            f"shared |s b{request.batch} l{request.length} s{request.batch}x{request.length} work:{log(request.work)}"
        )
        shares = self._vw.predict(self._example(shared))
        index = self._rng.choices(range(len(shares)), shares)[0]
        self._chosen = index, shares[index], shared
        return index

    def learn(self, latency_ms: float, now: float) -> None:  # noqa: ARG002
        """Hear how long it took."""
        index, share, shared = self._chosen
        lines = self._example(shared)
        lines[1 + index] = f"0:{log(latency_ms)}:{share} {lines[1 + index]}"
        self._vw.learn(lines)

    def _example(self, shared: str) -> list[str]:
        return [shared, *(f"|a {name}" for name in self._variants)]


PEERS: dict[str, Callable[[Sequence[str], int], Router]] = {
    "ours": lambda variants, seed: Ours(variants, seed, MIRROR),
    "ours, without copies": Ours,
    "bandit (VW)": Bandit,
    "least latency": LeastLatency,
    "round robin": RoundRobin,
}
