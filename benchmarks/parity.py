"""``scripts/bench parity``: what clients notice of the parity guard and of a shadow.

The same models, of next to nothing to compute, stand behind one routed model for each setting: without comparisons,
with the guard as it is by default, with a shadow, and each at ten times its default rates.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from benchmarks.fleet import MODELS
from benchmarks.interleaved import measure, median, p50, p99, parser, ratio, run, show, throughput
from triton_router.config.rollout_settings import ParityConfig, ShadowConfig
from triton_router.serving.status_socket import read_statuses
from triton_router.testing.load import encode
from triton_router.testing.triton_server import triton_server

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from triton_router.testing.load import LoadResult
    from triton_router.testing.triton_server import TritonServer

_MODEL = "tiny"
_TARGETS = ({"name": "exact", "variant": "onnx"}, {"name": "int8", "variant": "onnx-int8"})
_SHADOW = {"name": "next", "variant": "onnx"}
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
    args = parser("parity", __doc__, clients="1,8", rounds=7, seconds=3.0).parse_args(argv)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="triton-router-bench-") as scratch:
        _build(Path(scratch) / "models")
        with triton_server(Path(scratch) / "models") as server:
            for clients in args.clients:
                rows += _rows(server, clients, args)
                print(f"{clients} clients done", file=sys.stderr, flush=True)
    show(rows, _print_markdown, args)
    return 0


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
        run(server.http_url, requests[name], clients, 1.0)  # warm up
    before = {name: _copies(server, name) for name in names}
    results = measure(server.http_url, requests, clients, args)
    made = {name: _copies(server, name) - before[name] for name in names}
    return [_row(clients, name, results, made[name]) for name in names]


def _copies(server: TritonServer, name: str) -> int:
    """Return how many copies a routed model has made."""
    (status,) = [one for one in read_statuses(server.pid) if one["model"] == name]
    return sum(target["mirrored"] for target in status["targets"])


def _row(clients: int, name: str, results: dict[str, list[LoadResult]], copies: int) -> Row:
    own, off = results[name], results[_OFF]
    return Row(
        clients=clients,
        setting=name,
        throughput=median(own, throughput),
        p50_ms=median(own, p50),
        p99_ms=median(own, p99),
        p50_ratio=ratio(own, off, p50),
        p99_ratio=ratio(own, off, p99),
        throughput_ratio=ratio(own, off, throughput),
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
