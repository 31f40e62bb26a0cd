"""``scripts/bench dispatch``: direct, a naive synchronous BLS router, ours without merging and ours, interleaved.

The load comes from `triton_router.testing.load` on the same machine.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.fleet import Case, build, minilm_case, synthetic_cases
from benchmarks.interleaved import add_minilm, measure, median, p50, parser, ratio, run, show, throughput
from triton_router.testing.load import encode
from triton_router.testing.triton_server import triton_server

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from triton_router.testing.load import LoadResult


@dataclass(frozen=True, slots=True)
class Row:
    """One workload at one concurrency. Throughputs are answers per second, latencies milliseconds, ratios medians."""

    case: str
    clients: int
    direct_model: str
    direct_throughput: float
    naive_throughput: float
    unmerged_throughput: float
    ours_throughput: float
    direct_p50_ms: float
    naive_p50_ms: float
    unmerged_p50_ms: float
    ours_p50_ms: float
    ours_to_naive_throughput: float
    ours_to_naive_p50: float
    ours_to_direct_throughput: float
    ours_to_unmerged_p50: float


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and print its table."""
    args = _parser().parse_args(argv)
    wanted: set[str] = set(args.cases.split(","))
    cases = [case for case in synthetic_cases() if case.name in wanted]
    if "minilm" in wanted:
        cases.append(minilm_case(args.minilm))
    with tempfile.TemporaryDirectory(prefix="triton-router-bench-") as scratch:
        repository = Path(scratch) / "models"
        build(repository, cases, args.minilm)
        with triton_server(repository) as server:
            rows = [row for case in cases for row in _rows(server.http_url, case, args)]
    show(rows, _print_markdown, args)
    return 0


def _parser() -> argparse.ArgumentParser:
    made = parser("dispatch", __doc__, clients="1,4,8,32,64", rounds=5, seconds=1.0)
    made.add_argument(
        "--cases", default="tiny,batched,unbatched,minilm,megabyte", help="comma-separated (default: %(default)s)"
    )
    add_minilm(made)
    return made


def _rows(url: str, case: Case, args: argparse.Namespace) -> list[Row]:
    designs = [*case.siblings, case.naive, case.unmerged, case.ours]
    requests = {model: [encode(url, model, inputs) for inputs in case.inputs] for model in designs}
    for model in designs:
        run(url, requests[model], 4, args.seconds)  # warm up
    rows: list[Row] = []
    for clients in args.clients:
        rows.append(_row(case, clients, measure(url, requests, clients, args)))
        print(f"{case.name}: {clients} clients done", file=sys.stderr, flush=True)
    return rows


def _row(case: Case, clients: int, results: dict[str, list[LoadResult]]) -> Row:
    best = max(case.siblings, key=lambda model: median(results[model], throughput))
    direct, naive, unmerged, ours = (results[model] for model in (best, case.naive, case.unmerged, case.ours))
    return Row(
        case=case.name,
        clients=clients,
        direct_model=best,
        direct_throughput=median(direct, throughput),
        naive_throughput=median(naive, throughput),
        unmerged_throughput=median(unmerged, throughput),
        ours_throughput=median(ours, throughput),
        direct_p50_ms=median(direct, p50),
        naive_p50_ms=median(naive, p50),
        unmerged_p50_ms=median(unmerged, p50),
        ours_p50_ms=median(ours, p50),
        ours_to_naive_throughput=ratio(ours, naive, throughput),
        ours_to_naive_p50=ratio(ours, naive, p50),
        ours_to_direct_throughput=ratio(ours, direct, throughput),
        ours_to_unmerged_p50=ratio(ours, unmerged, p50),
    )


def _print_markdown(rows: Sequence[Row]) -> None:
    print(
        "| workload | clients | direct /s | naive /s | not merged /s | ours /s | naive p50 ms | not merged p50 ms "
        "| ours p50 ms | ours : naive, throughput | ours : naive, p50 | ours : not merged, p50 "
        "| ours : direct, throughput |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row.case} | {row.clients} | {row.direct_throughput:.0f} | {row.naive_throughput:.0f} "
            f"| {row.unmerged_throughput:.0f} | {row.ours_throughput:.0f} | {row.naive_p50_ms:.2f} "
            f"| {row.unmerged_p50_ms:.2f} | {row.ours_p50_ms:.2f} "
            f"| {row.ours_to_naive_throughput:.2f} | {row.ours_to_naive_p50:.2f} | {row.ours_to_unmerged_p50:.2f} "
            f"| {row.ours_to_direct_throughput:.2f} |"
        )


if __name__ == "__main__":
    sys.exit(main())
