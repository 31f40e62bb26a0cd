"""What ``manifests canary`` prints, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from triton_router.cli.main import main

GOLDEN = Path(__file__).parent / "manifests"
IMAGE = "registry.example.com/triton-router:1.2.0"


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("nginx.yaml", ["--mesh", "nginx", "--image", IMAGE, "--tls-secret", "triton-tls"]),
        ("istio.yaml", ["--mesh", "istio", "--image", IMAGE, "--gateway", "istio-system/public", "--namespace", "ml"]),
        ("gateway-api.yaml", ["--mesh", "gateway-api", "--image", IMAGE, "--gpus", "1", "--canary-replicas", "2"]),
        ("nginx.conf", ["--mesh", "nginx", "--plain", "--model", "minilm"]),
    ],
)
def test_manifests(file: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The three meshes and the plain nginx.conf."""
    assert main(["manifests", "canary", *words]) == 0
    assert capsys.readouterr().out == (GOLDEN / file).read_text()
