"""``scripts/bench dispatch``: direct, a naive synchronous BLS router, ours without merging and ours, interleaved.

Every figure is a median over rounds; in each round all designs run one after another, so that a ratio compares what
the machine did within the same seconds. The load comes from `triton_router.testing.load` on the same machine.
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

from benchmarks.fleet import Case, build, minilm_case, synthetic_cases
from triton_router.testing.load import LoadResult, closed_loop, encode
from triton_router.testing.triton_server import triton_server

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_REQUESTS = 200_000
"""Of one measurement; its time limit ends it long before."""


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
            rows = [
                row
                for case in cases
                for row in _measure(server.http_url, case, [int(n) for n in args.clients.split(",")], args)
            ]
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        _print_markdown(rows)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench dispatch", description=__doc__)
    parser.add_argument(
        "--cases", default="tiny,batched,unbatched,minilm,megabyte", help="comma-separated (default: %(default)s)"
    )
    parser.add_argument("--clients", default="1,4,8,32,64", help="comma-separated (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each design (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one measurement (default: %(default)s)")
    parser.add_argument(
        "--minilm",
        type=Path,
        default=Path(".demo/models"),
        help="repository with the built MiniLM, as scripts/demo leaves it (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _measure(url: str, case: Case, concurrencies: Sequence[int], args: argparse.Namespace) -> list[Row]:
    designs = [*case.siblings, case.naive, case.unmerged, case.ours]
    requests = {model: [encode(url, model, inputs) for inputs in case.inputs] for model in designs}
    for model in designs:
        _run(url, requests[model], 4, args.seconds)  # warm up
    rows: list[Row] = []
    for clients in concurrencies:
        results: dict[str, list[LoadResult]] = {model: [] for model in designs}
        for round_number in range(args.rounds):
            # Each round begins elsewhere, so that no design always follows the same one.
            for offset in range(len(designs)):
                model = designs[(round_number + offset) % len(designs)]
                results[model].append(_run(url, requests[model], clients, args.seconds))
        rows.append(_row(case, clients, results))
        print(f"{case.name}: {clients} clients done", file=sys.stderr, flush=True)
    return rows


def _run(url: str, requests: Sequence[bytes], clients: int, seconds: float) -> LoadResult:
    result = closed_loop(url, requests, clients=clients, count=_MOST_REQUESTS, seconds=seconds)
    if result.failed:
        raise RuntimeError(f"{result.failed} requests failed: {result.errors[0]}")
    return result


def _row(case: Case, clients: int, results: dict[str, list[LoadResult]]) -> Row:
    def throughput(model: str) -> float:
        return statistics.median(result.throughput for result in results[model])

    def p50(model: str) -> float:
        return statistics.median(result.quantile_ms(0.5) for result in results[model])

    best = max(case.siblings, key=throughput)
    pairs = list(zip(results[case.ours], results[case.naive], results[best], strict=True))
    switched = zip(results[case.ours], results[case.unmerged], strict=True)
    return Row(
        case=case.name,
        clients=clients,
        direct_model=best,
        direct_throughput=throughput(best),
        naive_throughput=throughput(case.naive),
        unmerged_throughput=throughput(case.unmerged),
        ours_throughput=throughput(case.ours),
        direct_p50_ms=p50(best),
        naive_p50_ms=p50(case.naive),
        unmerged_p50_ms=p50(case.unmerged),
        ours_p50_ms=p50(case.ours),
        ours_to_naive_throughput=statistics.median(o.throughput / n.throughput for o, n, _ in pairs),
        ours_to_naive_p50=statistics.median(o.quantile_ms(0.5) / n.quantile_ms(0.5) for o, n, _ in pairs),
        ours_to_direct_throughput=statistics.median(o.throughput / d.throughput for o, _, d in pairs),
        ours_to_unmerged_p50=statistics.median(o.quantile_ms(0.5) / u.quantile_ms(0.5) for o, u in switched),
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
