"""``scripts/bench mixed``: requests of mixed batch sizes and lengths over the variants of a real model.

Ours learns and chooses; the others are each variant called directly, and all of them in turn. In each round every
contender is measured once, beginning elsewhere each time, so that a ratio compares what the machine did within the
same seconds. All send the same requests.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.fleet import build, minilm_case
from triton_router.testing.load import LoadResult, closed_loop, encode
from triton_router.testing.triton_server import triton_server

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

_ROUND_ROBIN = "round robin"
_MOST_REQUESTS = 200_000
"""Of one measurement; its time limit ends it long before."""
_LENGTHS = (8, 16, 32, 64, 128)
_ROWS = (1, 1, 1, 1, 2, 2, 4, 8)
_DRAWS = 200


@dataclass(frozen=True, slots=True)
class Row:
    """One contender at one concurrency: medians over rounds. Ratios are of the same round, and below 1 where ours wins.

    Attributes:
        p50_ratio, p99_ratio: Ours divided by the contender's.
        throughput_ratio: The contender's divided by ours.
    """

    clients: int
    contender: str
    throughput: float
    p50_ms: float
    p99_ms: float
    p50_ratio: float
    p99_ratio: float
    throughput_ratio: float


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and print its table."""
    args = _parser().parse_args(argv)
    case = minilm_case(args.minilm)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="triton-router-bench-") as scratch:
        build(Path(scratch) / "models", [case], args.minilm)
        with triton_server(Path(scratch) / "models") as server:
            for clients in [int(n) for n in args.clients.split(",")]:
                rows += _rows(clients, _measure(server.http_url, [case.ours, *case.siblings], clients, args))
                print(f"{clients} clients done", file=sys.stderr, flush=True)
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        _print_markdown(rows)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench mixed", description=__doc__)
    parser.add_argument("--clients", default="1,4,8", help="comma-separated (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each contender (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one measurement (default: %(default)s)")
    parser.add_argument(
        "--minilm",
        type=Path,
        default=Path(".demo/models"),
        help="repository with the built MiniLM, as scripts/demo leaves it (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _requests() -> list[dict[str, NDArray[np.generic]]]:
    rng = np.random.default_rng(7)
    made: list[dict[str, NDArray[np.generic]]] = []
    for _ in range(_DRAWS):
        shape = int(rng.choice(_ROWS)), int(rng.choice(_LENGTHS))
        ids = rng.integers(1000, 20_000, shape)
        made.append({"input_ids": ids, "attention_mask": np.ones_like(ids)})
    return made


def _measure(url: str, models: Sequence[str], clients: int, args: argparse.Namespace) -> dict[str, list[LoadResult]]:
    requests = _requests()
    encoded = {model: [encode(url, model, inputs) for inputs in requests] for model in models}
    targets = models[1:]
    encoded[_ROUND_ROBIN] = [encode(url, targets[i % len(targets)], inputs) for i, inputs in enumerate(requests)]
    contenders = list(encoded)
    results: dict[str, list[LoadResult]] = {name: [] for name in contenders}
    for name in contenders:
        _run(url, encoded[name], clients, args.seconds / 2)  # warm up; ours learns
    for number in range(args.rounds):
        for offset in range(len(contenders)):
            name = contenders[(number + offset) % len(contenders)]
            results[name].append(_run(url, encoded[name], clients, args.seconds))
    return results


def _run(url: str, requests: Sequence[bytes], clients: int, seconds: float) -> LoadResult:
    result = closed_loop(url, requests, clients=clients, count=_MOST_REQUESTS, seconds=seconds, in_turn=True)
    if result.failed:
        raise RuntimeError(f"{result.failed} requests failed: {result.errors[0]}")
    return result


def _rows(clients: int, results: dict[str, list[LoadResult]]) -> list[Row]:
    ours = next(iter(results.values()))
    return [
        Row(
            clients=clients,
            contender=name,
            throughput=statistics.median(result.throughput for result in theirs),
            p50_ms=statistics.median(result.quantile_ms(0.5) for result in theirs),
            p99_ms=statistics.median(result.quantile_ms(0.99) for result in theirs),
            p50_ratio=_ratio(ours, theirs, lambda result: result.quantile_ms(0.5)),
            p99_ratio=_ratio(ours, theirs, lambda result: result.quantile_ms(0.99)),
            throughput_ratio=_ratio(theirs, ours, lambda result: result.throughput),
        )
        for name, theirs in results.items()
    ]


def _ratio(above: list[LoadResult], below: list[LoadResult], figure: Callable[[LoadResult], float]) -> float:
    return statistics.median(figure(a) / figure(b) for a, b in zip(above, below, strict=True))


def _print_markdown(rows: Sequence[Row]) -> None:
    print(
        "| clients | contender | /s | p50 ms | p99 ms | ours : theirs, p50 | ours : theirs, p99 | theirs : ours, /s |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row.clients} | {row.contender} | {row.throughput:.0f} | {row.p50_ms:.2f} | {row.p99_ms:.2f} "
            f"| {row.p50_ratio:.2f} | {row.p99_ratio:.2f} | {row.throughput_ratio:.2f} |"
        )


if __name__ == "__main__":
    sys.exit(main())
