"""``scripts/bench routing``: what one decision and one outcome cost, in process, beside two peers.

The peers choose among as many deployments in the same run: LiteLLM's router by its learned latencies, and a
Vowpal Wabbit contextual bandit, both already warm. They are installed by ``scripts/bench`` alone.
"""

from __future__ import annotations

import os
import random
import time
import tracemalloc
from contextlib import ExitStack
from itertools import cycle
from typing import TYPE_CHECKING, Any

import pytest

from triton_router.profiling.profile import TargetProfile
from triton_router.routing.engine import RoutingEngine
from triton_router.routing.policies import POLICIES, policy_named
from triton_router.routing.rules import RoutingRules
from triton_router.routing.types import Backend, Outcome, RoutingContext, Target, Verdict
from triton_router.sharing.instances import Instances

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_benchmark.fixture import BenchmarkFixture

TARGETS = [2, 4, 16, 64]
BACKENDS = list(Backend)
BOUND_BYTES = 50 * 1024


def shapes() -> Iterator[tuple[int, float]]:
    """Batch sizes and works of mixed traffic."""
    rng = random.Random(4)
    return cycle([(rows, float(rows * rng.choice([16, 32, 64, 128]))) for rows in rng.choices([1, 2, 4, 8], k=997)])


def latency_ms(index: int, work: float) -> float:
    return 1.0 + index + work / 200.0


def engine(targets: int, policy: str = "latency", learned: int = 2000) -> RoutingEngine:
    """Return an engine that has learned, with a few requests in flight."""
    made = RoutingEngine(
        [
            (
                Target(f"t{i}", f"m{i}", backend=BACKENDS[i % len(BACKENDS)], price_per_hour=1.0 + i),
                TargetProfile([(16, latency_ms(i, 16)), (512, latency_ms(i, 512))]),
            )
            for i in range(targets)
        ],
        policy_named(policy),
        rules=RoutingRules(explore=0.01),
        rng=random.Random(1).random,
    )
    traffic = shapes()
    for step in range(learned):
        rows, work = next(traffic)
        decision = made.decide(RoutingContext(rows, work), step * 1e-3)
        latency = latency_ms(int(decision.target.name[1:]), work) * random.Random(step).lognormvariate(0, 0.1)
        made.finish(decision, Outcome(Verdict.SUCCESS, latency), step * 1e-3)
    for rows, work in (next(traffic) for _ in range(6)):
        made.decide(RoutingContext(rows, work), 0.0)
    return made


@pytest.mark.parametrize("outcome", [Verdict.CANCELLED, Verdict.SUCCESS], ids=["", "while learning"])
@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.benchmark(group="one decision")
def test_decision(benchmark: BenchmarkFixture, targets: int, outcome: Verdict) -> None:
    """One decision under load, its request's context included; outcomes and learning lie outside the timed part.

    What is learned in between costs a decision too: predictions are made anew, and caches are cold.
    """
    subject, traffic = engine(targets), shapes()
    last: list[Any] = []

    def settle() -> tuple[tuple[int, float], dict[str, Any]]:
        if last:
            subject.finish(last.pop(), Outcome(outcome, 3.0), 0.0)
        return next(traffic), {}

    benchmark.pedantic(
        lambda rows, work: last.append(subject.decide(RoutingContext(rows, work), 0.0)), setup=settle, rounds=4000
    )


@pytest.mark.parametrize("policy", sorted(POLICIES))
@pytest.mark.benchmark(group="one decision and its outcome, 4 targets, by policy")
def test_policy(benchmark: BenchmarkFixture, policy: str) -> None:
    """One decision and its outcome, learning included as often as it happens under load."""
    subject, traffic = engine(4, policy), shapes()
    clock = iter(range(1 << 60))

    def one() -> None:
        now = next(clock) * 1e-3
        decision = subject.decide(RoutingContext(*next(traffic)), now)
        subject.finish(decision, Outcome(Verdict.SUCCESS, 3.0), now)

    benchmark(one)


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.benchmark(group="one decision and its outcome")
def test_decision_and_outcome(benchmark: BenchmarkFixture, targets: int) -> None:
    """The same by the number of targets."""
    subject, traffic = engine(targets), shapes()
    clock = iter(range(1 << 60))

    def one() -> None:
        now = next(clock) * 1e-3
        decision = subject.decide(RoutingContext(*next(traffic)), now)
        subject.finish(decision, Outcome(Verdict.SUCCESS, 3.0), now)

    benchmark(one)


@pytest.mark.parametrize("sharing", ["not shared", "alone", "with a peer", "with a peer, a request each 4 ms"])
@pytest.mark.benchmark(group="one decision beside other instances, 4 targets")
def test_sharing(benchmark: BenchmarkFixture, sharing: str, tmp_path: Path) -> None:
    """One decision, and its outcome untimed, while a peer's load has changed whenever it is looked at."""
    subject, peer, traffic = engine(4), engine(4), shapes()
    step = 4e-3 if "4 ms" in sharing else 1e-4
    clock = iter(range(1 << 60))
    last: list[Any] = []
    with ExitStack() as joined:
        for sharer in (subject, peer)[: 0 if sharing == "not shared" else 1 + ("peer" in sharing)]:
            instances = Instances(tmp_path / "shared" / "m.v1", 1, print)
            instances.join()
            instances.start(sharer, lambda: None)
            joined.callback(instances.close)
        time.sleep(0.3)  # until they see each other

        def settle() -> tuple[tuple[int, float, float], dict[str, Any]]:
            now = time.monotonic() + next(clock) * step
            if last:
                subject.finish(last.pop(), Outcome(Verdict.CANCELLED, 3.0), now)
            peer.finish(peer.decide(RoutingContext(1, 16.0), now), Outcome(Verdict.CANCELLED, 3.0), now)
            return (*next(traffic), now), {}

        benchmark.pedantic(
            lambda rows, work, now: last.append(subject.decide(RoutingContext(rows, work), now)),
            setup=settle,
            rounds=4000,
        )


@pytest.mark.benchmark(group="one outcome that is fitted at once")
def test_learning(benchmark: BenchmarkFixture) -> None:
    """Slow traffic: the clock moves far enough each time that nothing waits to be learned."""
    subject, traffic = engine(4), shapes()
    clock = iter(range(1 << 60))

    def one() -> None:
        now = float(next(clock))
        subject.finish(subject.decide(RoutingContext(*next(traffic)), now), Outcome(Verdict.SUCCESS, 3.0), now)

    benchmark(one)


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.benchmark(group="one decision")
def test_litellm(benchmark: BenchmarkFixture, targets: int) -> None:
    """LiteLLM's router, by latency, picks among as many deployments of one model."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # its price list comes from the network otherwise
    litellm = pytest.importorskip("litellm", reason="scripts/bench routing installs the peers")
    deployments = [
        {
            "model_name": "m",
            "litellm_params": {"model": f"openai/x{i}", "api_key": "none", "api_base": "http://127.0.0.1:9"},
        }
        for i in range(targets)
    ]
    router = litellm.Router(model_list=deployments, routing_strategy="latency-based-routing")
    messages = [{"role": "user", "content": "hi"}]
    benchmark(lambda: router.get_available_deployment("m", messages=messages))


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.benchmark(group="one decision")
def test_vowpal_wabbit(benchmark: BenchmarkFixture, targets: int) -> None:
    """A contextual bandit over rows, work and each target's load predicts the probabilities to choose by."""
    vw = pytest.importorskip("vowpalwabbit", reason="scripts/bench routing installs the peers")
    bandit = vw.Workspace("--cb_explore_adf --epsilon 0.01 --quiet")
    traffic = shapes()

    def lines(rows: int, work: float, label: str = "", chosen: int = 0) -> list[str]:
        shared = f"shared |r rows:{rows} work:{work / 1000}"
        return [shared, *(f"{label if i == chosen else ''}|t id={i} load:{i % 3}" for i in range(targets))]

    for step in range(500):
        rows, work = next(traffic)
        bandit.learn(lines(rows, work, f"0:{latency_ms(step % targets, work)}:{1 / targets} ", step % targets))
    benchmark(lambda: bandit.predict(lines(*next(traffic))))


@pytest.mark.parametrize("targets", [4])
def test_memory_of_one_model(targets: int) -> None:
    """Engine, profiles and history of one model with four targets and 5,000 outcomes stay within 50 KB."""
    engine(targets)  # what is made once per process
    tracemalloc.start()
    subject = engine(targets, learned=5000)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert subject.snapshot(0.0)
    print(f"\nmemory of one model, {targets} targets: {taken / 1024:.1f} KB")
    assert taken <= BOUND_BYTES
