"""``scripts/bench parity``: what clients notice of the parity guard and of a shadow.

The same models, of next to nothing to compute, stand behind one routed model for each setting: without comparisons,
with the guard as it is by default, with a shadow, and each at ten times its default rates. In each round every setting
is measured once, beginning elsewhere each time; a ratio is of the same round.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from benchmarks.fleet import MODELS
from triton_router.config.rollout_settings import ParityConfig, ShadowConfig
from triton_router.serving.status_socket import read_statuses
from triton_router.testing.load import closed_loop, encode
from triton_router.testing.triton_server import triton_server

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triton_router.testing.load import LoadResult
    from triton_router.testing.triton_server import TritonServer

_MODEL = "tiny"
_TARGETS = ({"name": "exact", "variant": "onnx"}, {"name": "int8", "variant": "onnx-int8"})
_SHADOW = {"name": "next", "variant": "onnx"}
_MOST_REQUESTS = 200_000
"""Of one measurement; its time limit ends it long before."""
_OFF = "off"
_PARITY, _SHADOWED = ParityConfig(), ShadowConfig(target="next")


def _settings(times: int, *, guard: bool, shadow: bool) -> dict[str, Any]:
    """Return the settings of a routed model at so many times the default rates."""
    rates = {"share": min(1.0, times * _PARITY.share), "budget": min(1.0, times * _PARITY.budget)}
    settings: dict[str, Any] = {"parity": rates if guard else {"share": 0}, "mirror": 0, "explore": 0}
    if shadow:
        share, budget = min(1.0, times * _SHADOWED.share), min(1.0, times * _SHADOWED.budget)
        settings["shadow"] = {"target": "next", "share": share, "budget": budget}
    return settings


_CONTENDERS: dict[str, dict[str, Any]] = {
    _OFF: _settings(1, guard=False, shadow=False),
    "guard": _settings(1, guard=True, shadow=False),
    "guard-x10": _settings(10, guard=True, shadow=False),
    "shadow": _settings(1, guard=False, shadow=True),
    "shadow-x10": _settings(10, guard=False, shadow=True),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One setting at one concurrency: medians over rounds. Ratios are to the same round without comparisons.

    Attributes:
        copies: Share of the requests that were copied.
    """

    clients: int
    setting: str
    throughput: float
    p50_ms: float
    p99_ms: float
    p50_ratio: float
    p99_ratio: float
    throughput_ratio: float
    copies: float


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and print its table."""
    args = _parser().parse_args(argv)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="triton-router-bench-") as scratch:
        _build(Path(scratch) / "models")
        with triton_server(Path(scratch) / "models") as server:
            for clients in [int(n) for n in args.clients.split(",")]:
                rows += _rows(server, clients, args)
                print(f"{clients} clients done", file=sys.stderr, flush=True)
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        _print_markdown(rows)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench parity", description=__doc__)
    parser.add_argument("--clients", default="1,8", help="comma-separated (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each setting (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one measurement (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _build(directory: Path) -> None:
    directory.mkdir(parents=True)
    for target in (*_TARGETS, _SHADOW):
        shutil.copytree(MODELS / _MODEL, directory / target["name"], ignore=shutil.ignore_patterns("__pycache__"))
    for name, settings in _CONTENDERS.items():
        (directory / name / "1").mkdir(parents=True)
        (directory / name / "config.pbtxt").write_text('backend: "router"\n')
        targets = [*_TARGETS, _SHADOW] if "shadow" in settings else _TARGETS
        listed = [{**target, "model": target["name"]} for target in targets]
        (directory / name / "router.yaml").write_text(yaml.safe_dump({"targets": listed, **settings}))


def _rows(server: TritonServer, clients: int, args: argparse.Namespace) -> list[Row]:
    requests = {name: [encode(server.http_url, name, {"X": np.ones((1, 16), np.float32)})] for name in _CONTENDERS}
    names = list(_CONTENDERS)
    for name in names:
        _run(server.http_url, requests[name], clients, 1.0)  # warm up
    before = {name: _copies(server, name) for name in names}
    results: dict[str, list[LoadResult]] = {name: [] for name in names}
    for round_number in range(args.rounds):
        # Each round begins elsewhere, so that no setting always follows the same one.
        for offset in range(len(names)):
            name = names[(round_number + offset) % len(names)]
            results[name].append(_run(server.http_url, requests[name], clients, args.seconds))
    made = {name: _copies(server, name) - before[name] for name in names}
    return [_row(clients, name, results, made[name]) for name in names]


def _run(url: str, requests: Sequence[bytes], clients: int, seconds: float) -> LoadResult:
    result = closed_loop(url, requests, clients=clients, count=_MOST_REQUESTS, seconds=seconds)
    if result.failed:
        raise RuntimeError(f"{result.failed} requests failed: {result.errors[0]}")
    return result


def _copies(server: TritonServer, name: str) -> int:
    """Return how many copies a routed model has made."""
    (status,) = [one for one in read_statuses(server.pid) if one["model"] == name]
    return sum(target["mirrored"] for target in status["targets"])


def _row(clients: int, name: str, results: dict[str, list[LoadResult]], copies: int) -> Row:
    own, pairs = results[name], list(zip(results[name], results[_OFF], strict=True))
    return Row(
        clients=clients,
        setting=name,
        throughput=statistics.median(result.throughput for result in own),
        p50_ms=statistics.median(result.quantile_ms(0.5) for result in own),
        p99_ms=statistics.median(result.quantile_ms(0.99) for result in own),
        p50_ratio=statistics.median(one.quantile_ms(0.5) / off.quantile_ms(0.5) for one, off in pairs),
        p99_ratio=statistics.median(one.quantile_ms(0.99) / off.quantile_ms(0.99) for one, off in pairs),
        throughput_ratio=statistics.median(one.throughput / off.throughput for one, off in pairs),
        copies=copies / sum(len(result.latencies_ms) for result in own),
    )


def _print_markdown(rows: Sequence[Row]) -> None:
    print("| clients | setting | /s | p50 ms | p99 ms | p50 : off | p99 : off | throughput : off | copies |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row.clients} | {row.setting} | {row.throughput:.0f} | {row.p50_ms:.3f} | {row.p99_ms:.3f} "
            f"| {row.p50_ratio:.3f} | {row.p99_ratio:.3f} | {row.throughput_ratio:.3f} | {row.copies:.2%} |"
        )


if __name__ == "__main__":
    sys.exit(main())
