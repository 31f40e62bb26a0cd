"""Texts of one and the same shape are told apart by their length, on a real Triton."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
import yaml

from triton_router.testing.triton_server import triton_server

if TYPE_CHECKING:
    from types import ModuleType

pytestmark = pytest.mark.triton

READER = Path(__file__).parent / "text_models" / "reader"
ROUNDS = 30
SPEEDS = {"plodding": (1.0, 50.0), "steady": (12.0, 0.0)}
"""Milliseconds for a call, and microseconds for each byte."""
SHORT, LONG = b"a word", b"a page " * 120


def write_repository(place: Path) -> None:
    """Write a target that begins at once and reads slowly, and one that takes 12 ms whatever it reads."""
    targets: list[dict[str, object]] = []
    for name, (fixed_ms, byte_us) in SPEEDS.items():
        shutil.copytree(READER, place / name, ignore=shutil.ignore_patterns("__pycache__"))
        config = place / name / "config.pbtxt"
        text = config.read_text().replace('"1" }', f'"{fixed_ms}" }}').replace('"50" }', f'"{byte_us}" }}')
        config.write_text(text)
        measured = [{"work": size, "latency_ms": fixed_ms + byte_us * size / 1e3} for size in (1, 100, 1000)]
        targets.append({"name": name, "model": name, "backend": "cpu", "measured_latency": measured})
    (place / "reader" / "1").mkdir(parents=True)
    (place / "reader" / "config.pbtxt").write_text('backend: "router"\n')
    (place / "reader" / "router.yaml").write_text(yaml.safe_dump({"targets": targets}))


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_long_text_goes_where_long_texts_are_fast(protocol: str, tmp_path: Path) -> None:
    """Its shape is that of a word, which takes 1.3 ms at one target and 12 at the other; there a page takes 43."""
    write_repository(tmp_path)
    module: ModuleType = triton_http if protocol == "http" else triton_grpc
    readers: dict[bytes, list[bytes]] = {SHORT: [], LONG: []}
    with (
        triton_server(tmp_path) as server,
        module.InferenceServerClient(server.http_url if protocol == "http" else server.grpc_url) as client,
    ):
        for _ in range(ROUNDS):
            for text, found in readers.items():
                tensor = module.InferInput("TEXT", [1, 1], "BYTES")
                tensor.set_data_from_numpy(np.array([[text]], np.object_))
                found.append(client.infer("reader", [tensor]).as_numpy("READER").item())
    assert readers[SHORT].count(b"plodding") >= 0.8 * ROUNDS, readers
    assert readers[LONG].count(b"steady") >= 0.8 * ROUNDS, readers
