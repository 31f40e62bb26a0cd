"""Timings of real models under mixed shapes and loads, recorded once and kept: replays take seconds.

The recording is what a router's own process sees: when a request begins, what is in flight at its target and at the
others of the device; when it ends, how long it took and whether anything else was in flight then.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.learning_models import Family

CALLERS = (1, 2, 4)
_WARM = 3


class Timing(NamedTuple):
    """One request as it was timed; ``flying`` is what was in flight when it began: variant, batch and length."""

    variant: str
    batch: int
    length: int
    work: float
    callers: int
    flying: Sequence[tuple[str, int, int]]
    alone: bool
    latency_ms: float


def timings(scratch: Path, *, fresh: bool) -> dict[str, list[Timing]]:
    """Return the timings of every family, from the cache unless ``fresh`` or missing."""
    cache = scratch / "timings.json"
    if cache.exists() and not fresh:
        return {name: [Timing(*row) for row in rows] for name, rows in json.loads(cache.read_text()).items()}
    from benchmarks.learning_models import build

    recorded = {family.name: _record(family) for family in build(scratch)}
    cache.write_text(json.dumps(recorded))
    return recorded


def _record(family: Family) -> list[Timing]:
    rng = random.Random(0)
    cells = [(batch, length) for batch in family.batches for length in family.lengths]
    for run in family.variants.values():
        for batch, length in cells:
            for _ in range(_WARM):
                run(batch, length)
    rows: list[Timing] = []
    for callers in CALLERS:
        rounds = family.rounds if callers == 1 else family.rounds // 2
        plan = [(variant, batch, length) for variant in family.variants for batch, length in cells] * rounds
        rng.shuffle(plan)
        print(f"timing {family.name}, {callers} callers, {len(plan)} requests", file=sys.stderr)
        rows += _Bench(family, callers, plan).run()
    return rows


class _Bench:
    """Callers that take requests from one plan until it is done."""

    def __init__(self, family: Family, callers: int, plan: list[tuple[str, int, int]]) -> None:
        self._family = family
        self._callers = callers
        self._plan = plan
        self._lock = threading.Lock()
        self._in_flight: dict[int, tuple[str, int, int]] = {}
        self._rows: list[Timing] = []

    def run(self) -> list[Timing]:
        threads = [threading.Thread(target=self._call) for _ in range(self._callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self._rows

    def _call(self) -> None:
        me = threading.get_ident()
        while True:
            with self._lock:
                if not self._plan:
                    return
                variant, batch, length = self._plan.pop()
                work = float(batch * length * self._family.elements)
                flying = list(self._in_flight.values())
                self._in_flight[me] = (variant, batch, length)
            began = time.perf_counter()
            self._family.variants[variant](batch, length)
            latency_ms = (time.perf_counter() - began) * 1000.0
            with self._lock:
                del self._in_flight[me]
                alone = not flying and not self._in_flight
                self._rows.append(
                    Timing(
                        variant,
                        batch,
                        length,
                        work,
                        self._callers,
                        flying,
                        alone,
                        latency_ms,
                    )
                )
