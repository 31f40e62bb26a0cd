"""``scripts/bench routing``: what one decision and one outcome cost, in process, by number of targets."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest

from triton_router.profiling.profile import TargetProfile
from triton_router.routing.engine import RoutingEngine
from triton_router.routing.policies import policy_named
from triton_router.routing.rules import RoutingRules
from triton_router.routing.types import Outcome, RoutingContext, Target, Verdict

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture


def engine(targets: int) -> RoutingEngine:
    return RoutingEngine(
        [(Target(f"t{i}", f"m{i}"), TargetProfile([(1, 1.0 + i), (64, 2.0 + i)])) for i in range(targets)],
        policy_named("latency"),
        rules=RoutingRules(explore=0.01),
        rng=random.random,
    )


@pytest.mark.parametrize("targets", [1, 2, 4, 16, 64])
def test_decide_and_finish(benchmark: BenchmarkFixture, targets: int) -> None:
    """One decision and its outcome, learning included as often as it happens in production."""
    subject = engine(targets)
    context = RoutingContext(batch_size=4, work=64.0)

    def one() -> None:
        now = time.monotonic()
        decision = subject.decide(context, now)
        subject.finish(decision, Outcome(Verdict.SUCCESS, 3.0), now)

    benchmark(one)


@pytest.mark.parametrize("targets", [4])
def test_learn(benchmark: BenchmarkFixture, targets: int) -> None:
    """One outcome that is fitted: the clock moves far enough each time."""
    subject = engine(targets)
    context = RoutingContext(batch_size=4, work=64.0)
    clock = iter(range(10**9))

    def one() -> None:
        now = float(next(clock))
        decision = subject.decide(context, now)
        subject.finish(decision, Outcome(Verdict.SUCCESS, 3.0), now)

    benchmark(one)
