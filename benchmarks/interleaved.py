"""Contenders under the same load, one after another in each round: how benchmarks measure, and are told how long."""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from triton_router.testing.load import closed_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from _typeshed import DataclassInstance

    from triton_router.testing.load import LoadResult

    Requests = Sequence[bytes]
    Figure = Callable[[LoadResult], float]

Row = TypeVar("Row", bound="DataclassInstance")

_HOW = (
    "Every figure is a median over rounds. In each round every contender is measured once, beginning elsewhere each "
    "time, so that a ratio compares what the machine did within the same seconds."
)
_MOST_REQUESTS = 200_000
"""Of one measurement; its time limit ends it long before."""


def parser(name: str, description: str | None, *, clients: str, rounds: int, seconds: float) -> argparse.ArgumentParser:
    """Return the parser of ``scripts/bench NAME``, with the arguments that `measure` and `show` need.

    Args:
        name: Of the benchmark.
        description: Its help.
        clients: Default concurrencies, comma-separated.
        rounds: Default measurements of each contender.
        seconds: Default length of one.
    """
    made = argparse.ArgumentParser(prog=f"scripts/bench {name}", description=description, epilog=_HOW)
    made.add_argument("--clients", type=_numbers, default=clients, help="comma-separated (default: %(default)s)")
    made.add_argument(
        "--rounds", type=int, default=rounds, help="measurements of each contender (default: %(default)s)"
    )
    made.add_argument("--seconds", type=float, default=seconds, help="length of one measurement (default: %(default)s)")
    made.add_argument("--json", action="store_true", help="print JSON")
    return made


def add_minilm(to: argparse.ArgumentParser) -> None:
    """Let a benchmark of the real model be told where it is."""
    to.add_argument(
        "--minilm",
        type=Path,
        default=Path(".demo/models"),
        help="repository with the built MiniLM, as scripts/demo leaves it (default: %(default)s)",
    )


def measure(
    url: str,
    contenders: Mapping[str, Requests],
    clients: int,
    args: argparse.Namespace,
    *,
    in_turn: bool = False,
) -> dict[str, list[LoadResult]]:
    """Return what was measured of each contender, in each round.

    Args:
        url: The server's.
        contenders: Requests to draw from, by name of the contender.
        clients: At once.
        args: Rounds, and the length of one measurement.
        in_turn: As `closed_loop` takes it.
    """
    names = list(contenders)
    results: dict[str, list[LoadResult]] = {name: [] for name in names}
    for number in range(args.rounds):
        for offset in range(len(names)):
            name = names[(number + offset) % len(names)]
            results[name].append(run(url, contenders[name], clients, args.seconds, in_turn=in_turn))
    return results


def run(url: str, requests: Requests, clients: int, seconds: float, *, in_turn: bool = False) -> LoadResult:
    """Return one measurement. Raises `RuntimeError` if a request fails: a figure of failures is none."""
    result = closed_loop(url, requests, clients=clients, count=_MOST_REQUESTS, seconds=seconds, in_turn=in_turn)
    if result.failed:
        raise RuntimeError(f"{result.failed} requests failed: {result.errors[0]}")
    return result


def throughput(result: LoadResult) -> float:
    """Return answers per second."""
    return result.throughput


def p50(result: LoadResult) -> float:
    """Return the median latency, in milliseconds."""
    return result.quantile_ms(0.5)


def p99(result: LoadResult) -> float:
    """Return the latency that one request in a hundred exceeds, in milliseconds."""
    return result.quantile_ms(0.99)


def median(results: Sequence[LoadResult], figure: Figure) -> float:
    """Return a figure of one contender."""
    return statistics.median(map(figure, results))


def ratio(above: Sequence[LoadResult], below: Sequence[LoadResult], figure: Figure) -> float:
    """Return a figure of one contender divided by another's in the same round."""
    return statistics.median(figure(a) / figure(b) for a, b in zip(above, below, strict=True))


def show(rows: Sequence[Row], markdown: Callable[[Sequence[Row]], None], args: argparse.Namespace) -> None:
    """Print rows: as JSON if that is wanted, else by ``markdown``."""
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        markdown(rows)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]
