"""What each variant costs: the same requests to every target directly and to the routed model, in turns.

One client sends tokenised sentences, so nothing but the model and the routing differs. Each round sends the whole
stream to every model; the order of the models rotates, so that a busy moment of the machine hits each in turn.
"""

from __future__ import annotations

import random
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from examples.minilm.demo.clients import Array, Client, text
from examples.minilm.demo.repository import MODEL, TARGETS, TOKENIZER
from examples.minilm.demo.sentences import SENTENCES
from examples.minilm.demo.traffic import BATCHES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from examples.minilm.demo.console import Console

ROUTED = "routed"

_FEWEST_ROUNDS = 3
"""What a median needs, however slow the machine is."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one way of answering took.

    Attributes:
        way: A target called directly, or the routed model.
        rounds: Latencies of each round's requests, in milliseconds.
    """

    way: str
    rounds: Sequence[Sequence[float]]

    @property
    def mean_ms(self) -> float:
        """Mean over all requests."""
        return statistics.fmean(self._all())

    def quantile_ms(self, q: float) -> float:
        """Return the latency that a share ``q`` of the requests did not exceed."""
        ordered = sorted(self._all())
        return ordered[min(int(q * len(ordered)), len(ordered) - 1)]

    def ratio_to(self, other: Cost) -> float:
        """Return the median over the rounds of the ratio of the two means."""
        pairs = zip(self.rounds, other.rounds, strict=True)
        return statistics.median(statistics.fmean(mine) / statistics.fmean(theirs) for mine, theirs in pairs)

    def _all(self) -> list[float]:
        return [latency for latencies in self.rounds for latency in latencies]


def measure(client: Client, console: Console, *, rounds: int, requests: int, seconds: float) -> list[Cost]:
    """Measure every target and the routed model.

    Args:
        client: The one client.
        console: For progress.
        rounds: Most rounds.
        requests: Requests of one round to each.
        seconds: No round begins after this, but for the first three.
    """
    stream = _stream(client, requests)
    models = {ROUTED: MODEL, **{target: f"{MODEL}-{target}" for target in TARGETS}}
    ways = list(models)
    started = time.monotonic()
    for way in ways:  # the first requests of a shape are slower: memory is taken then
        _pass(client, models[way], stream)
    taken: dict[str, list[list[float]]] = {way: [] for way in ways}
    for number in range(rounds):
        if number >= _FEWEST_ROUNDS and time.monotonic() - started > seconds:
            break
        for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
            console.progress(f"round {number + 1} of at most {rounds}: {way}")
            taken[way].append(_pass(client, models[way], stream))
    return [Cost(way, taken[way]) for way in ways]


def best_fixed(costs: Sequence[Cost]) -> Cost:
    """Return the target that would have been the best to choose for all requests."""
    return min((cost for cost in costs if cost.way != ROUTED), key=lambda cost: cost.mean_ms)


def table(costs: Sequence[Cost]) -> tuple[Sequence[str], list[Sequence[object]]]:
    """Return headers and one row per way, the best first."""
    best = best_fixed(costs)
    headers = ("choice", "requests", "mean ms", "p50 ms", "p99 ms", "against best fixed")
    rows: list[Sequence[object]] = []
    for cost in sorted(costs, key=lambda cost: cost.ratio_to(best)):
        latencies = [f"{value:.2f}" for value in (cost.mean_ms, cost.quantile_ms(0.5), cost.quantile_ms(0.99))]
        ratio = f"{cost.ratio_to(best):.2f}x" + (" (the best fixed choice)" if cost is best else "")
        rows.append((cost.way, sum(map(len, cost.rounds)), *latencies, ratio))
    return headers, rows


def _stream(client: Client, requests: int) -> list[dict[str, Array]]:
    rng = random.Random(requests)  # noqa: S311 - the same stream each time, not a secret
    sizes = [BATCHES[number % len(BATCHES)] for number in range(requests)]
    rng.shuffle(sizes)
    return [client.fetch(TOKENIZER, text(rng.sample(SENTENCES, size))) for size in sizes]


def _pass(client: Client, model: str, stream: Sequence[dict[str, Array]]) -> list[float]:
    latencies: list[float] = []
    for inputs in stream:
        started = time.perf_counter()
        client.fetch(model, inputs)
        latencies.append((time.perf_counter() - started) * 1e3)
    return latencies
