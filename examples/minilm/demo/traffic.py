"""Real sentences in mixed batch sizes, from concurrent clients of both protocols."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from examples.minilm.demo.clients import Client
from examples.minilm.demo.sentences import SENTENCES
from triton_router.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from examples.minilm.demo.console import Console
    from examples.minilm.demo.server import Server

PROTOCOLS = ("grpc", "http", "grpc", "http")
"""One client each, all at once."""

BATCHES = (1, 1, 1, 1, 2, 2, 2, 4, 4, 8, 16, 32)
"""Sizes to draw from: many small requests, a few large ones."""

_WIDTH = 384


@dataclass(slots=True)
class Traffic:
    """What the clients saw.

    Attributes:
        requests: Answered requests by protocol.
        sentences: Sentences in them.
        seconds: Time of the whole.
    """

    requests: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PROTOCOLS, 0))
    sentences: int = 0
    seconds: float = 0.0

    @property
    def total(self) -> int:
        """All answered requests."""
        return sum(self.requests.values())


def send(server: Server, console: Console, *, seconds: float, count: int) -> Traffic:
    """Send requests until there were ``count`` or ``seconds`` have passed.

    Raises:
        UnavailableError: A request failed, or an answer had the wrong shape or length.
    """
    traffic = Traffic()
    stop = threading.Event()
    lock = threading.Lock()
    started = time.monotonic()

    def client(number: int) -> None:
        rng = random.Random(number)  # noqa: S311 - a reproducible draw, not a secret
        protocol = PROTOCOLS[number]
        with Client(protocol, server.grpc if protocol == "grpc" else server.http) as connection:
            while not stop.is_set() and time.monotonic() - started < seconds and traffic.total < count:
                sentences = rng.sample(SENTENCES, rng.choice(BATCHES))
                _require_embeddings(connection.embed(sentences), len(sentences))
                with lock:
                    traffic.requests[protocol] += 1
                    traffic.sentences += len(sentences)

    with ThreadPoolExecutor(len(PROTOCOLS), thread_name_prefix="client") as pool:
        try:
            running = [pool.submit(client, number) for number in range(len(PROTOCOLS))]
            while wait(running, timeout=0.5).not_done:
                passed = time.monotonic() - started
                console.progress(
                    f"{passed:3.0f} of {seconds:.0f} s: {traffic.total} requests, {traffic.sentences} sentences"
                )
        finally:
            stop.set()
    traffic.seconds = time.monotonic() - started
    for one in running:
        one.result()
    return traffic


def table(status: dict[str, Any]) -> tuple[Sequence[str], list[Sequence[object]]]:
    """Return headers and one row per target from the routed model's status."""
    chosen = sum(target["chosen"] for target in status["targets"]) or 1
    headers = ("target", "requests", "share", "p50 ms", "p99 ms", "predicted ms", "measured ms")
    rows: list[Sequence[object]] = []
    for target in status["targets"]:
        latency = target["latency"]
        predicted = latency["predicted"]
        means = [
            f"{latency[key] / predicted:.2f}" if predicted else "-"
            for key in ("predicted_total_ms", "measured_total_ms")
        ]
        quantiles = [f"{latency[key]:.2f}" if target["chosen"] else "-" for key in ("p50_ms", "p99_ms")]
        rows.append(
            (target["target"]["name"], target["chosen"], f"{target['chosen'] / chosen:.1%}", *quantiles, *means)
        )
    return headers, rows


def _require_embeddings(answer: Any, sentences: int) -> None:
    if answer.shape != (sentences, _WIDTH):
        raise UnavailableError(
            f"the answer to {sentences} sentences has the shape {answer.shape}, not {(sentences, _WIDTH)}"
        )
    if not np.allclose(np.linalg.norm(answer, axis=1), 1.0, atol=1e-3):
        raise UnavailableError("an embedding's length is not one")
