"""``scripts/bench mixed``: requests of mixed batch sizes and lengths over the variants of a real model.

Ours learns and chooses; the others are each variant called directly, all of them in turn, and a naive router that
sends all to the variant that is known to be the fastest: what it adds to that is what any router costs. All send the
same requests.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.fleet import build, minilm_case
from benchmarks.interleaved import add_minilm, measure, median, p50, p99, parser, ratio, run, show, throughput
from triton_router.testing.load import encode
from triton_router.testing.triton_server import triton_server

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from benchmarks.fleet import Case
    from triton_router.testing.load import LoadResult

_ROUND_ROBIN = "round robin"
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
    arguments = parser("mixed", __doc__, clients="1,4,8", rounds=5, seconds=4.0)
    add_minilm(arguments)
    args = arguments.parse_args(argv)
    case = minilm_case(args.minilm)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="triton-router-bench-") as scratch:
        build(Path(scratch) / "models", [case], args.minilm)
        with triton_server(Path(scratch) / "models") as server:
            for clients in args.clients:
                rows += _rows(clients, _measure(server.http_url, case, clients, args))
                print(f"{clients} clients done", file=sys.stderr, flush=True)
    show(rows, _print_markdown, args)
    return 0


def _requests() -> list[dict[str, NDArray[np.generic]]]:
    rng = np.random.default_rng(7)
    made: list[dict[str, NDArray[np.generic]]] = []
    for _ in range(_DRAWS):
        shape = int(rng.choice(_ROWS)), int(rng.choice(_LENGTHS))
        ids = rng.integers(1000, 20_000, shape)
        made.append({"input_ids": ids, "attention_mask": np.ones_like(ids)})
    return made


def _measure(url: str, case: Case, clients: int, args: argparse.Namespace) -> dict[str, list[LoadResult]]:
    requests = _requests()
    models = [case.ours, *case.siblings, case.naive]
    encoded = {model: [encode(url, model, inputs) for inputs in requests] for model in models}
    targets = case.siblings
    encoded[_ROUND_ROBIN] = [encode(url, targets[i % len(targets)], inputs) for i, inputs in enumerate(requests)]
    for contender in encoded.values():
        run(url, contender, clients, args.seconds / 2, in_turn=True)  # warm up; ours learns
    return measure(url, encoded, clients, args, in_turn=True)


def _rows(clients: int, results: dict[str, list[LoadResult]]) -> list[Row]:
    ours = next(iter(results.values()))
    return [
        Row(
            clients=clients,
            contender=name,
            throughput=median(theirs, throughput),
            p50_ms=median(theirs, p50),
            p99_ms=median(theirs, p99),
            p50_ratio=ratio(ours, theirs, p50),
            p99_ratio=ratio(ours, theirs, p99),
            throughput_ratio=ratio(theirs, ours, throughput),
        )
        for name, theirs in results.items()
    ]


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
