"""``scripts/bench learning``: how well latency is learned from real models, and what routing by it is worth.

Real ONNX Runtime and torch variants are timed on this machine, once, at mixed shapes and loads; the timings are kept
in the scratch folder, and everything else is computed from them. ``--fresh`` times again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean, quantiles
from typing import TYPE_CHECKING

from benchmarks.learning_accuracy import LEARNED, accuracies, filled
from benchmarks.learning_peers import PEERS
from benchmarks.learning_regret import BACK, FIRST, LATER, SLOW, Costs, replay
from benchmarks.learning_timings import timings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.learning_timings import Timing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--scratch", type=Path, default=Path(".bench/learning"), help="models and timings are kept here"
    )
    parser.add_argument("--fresh", action="store_true", help="time again")
    parser.add_argument("--seeds", type=int, default=20, help="draws of what is learned and replayed (default: 20)")
    arguments = parser.parse_args()
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    recorded = timings(arguments.scratch, fresh=arguments.fresh)
    _accuracy(recorded, arguments.seeds)
    _regret(recorded, arguments.seeds)


def _accuracy(recorded: dict[str, list[Timing]], seeds: int) -> None:
    print(f"\nPrediction of held-out requests from {LEARNED} executions, {seeds} draws\n")
    print(
        "| model | variant | load | held out | R2 | ceiling | other half | knowing callers "
        "| MAPE | floor | P90 | batch only | bar |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    for family, rows in recorded.items():
        for a in accuracies(family, rows, seeds):
            print(
                f"| {a.family} | {a.variant} | {a.load} | {a.held_out} | {a.r2:.3f} | {a.ceiling:.3f} | {a.others:.3f} "
                f"| {a.known_load:.3f} | {a.mape:.1%} | {a.floor:.1%} | {a.coverage:.1%} | {a.batch_only:.2f} "
                f"| {'met' if a.passes else 'missed'} |"
            )
    print("\nWhere batches are filled, so that long requests have few rows, batch size tells nothing:\n")
    print("| model | variant | held out | R2 | ceiling | batch only |")
    print("|---|---|---|---|---|---|")
    for family, rows in recorded.items():
        if len({row.length for row in rows}) > 1:
            for a in filled(family, rows, seeds):
                line = f"{a.held_out} | {a.r2:.3f} | {a.ceiling:.3f} | {a.batch_only:.2f}"
                print(f"| {a.family} | {a.variant} | {line} |")


def _regret(recorded: dict[str, list[Timing]], seeds: int) -> None:
    print(f"\nReplay, {seeds} seeds, median [quartiles]: regret over the first {FIRST} requests and the next {LATER};")
    print(f"requests until a 3x slow-down of the best variant is followed (of {SLOW}), and its end (of {BACK})\n")
    print("| model | router | regret, first | regret, later | slow-down | recovery | copies |")
    print("|---|---|---|---|---|---|---|")
    for family, rows in recorded.items():
        costs = Costs(rows)
        for name in PEERS:
            runs = [replay(costs, name, seed) for seed in range(seeds)]
            first, later = ([100.0 * run[i] for run in runs] for i in (0, 1))
            moved, returned = ([float(run[i]) for run in runs] for i in (2, 3))
            print(
                f"| {family} | {name} | {_spread(first, 2)}% | {_spread(later, 2)}% | {_spread(moved, 0)} "
                f"| {_spread(returned, 0)} | {fmean(run.copied for run in runs):.1%} |"
            )


def _spread(values: Sequence[float], digits: int) -> str:
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


if __name__ == "__main__":
    main()
