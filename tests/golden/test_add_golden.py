"""What ``add`` writes for Triton and for the router, byte for byte."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from triton_router.config.loading import load_yaml, parse_yaml
from triton_router.config.router_config import validate_router_config
from triton_router.repository import model_config
from triton_router.repository.build.job import IoSpec, TensorSpec
from triton_router.repository.plan import BY_SUFFIX
from triton_router.repository.target_config import Served, routed_config, router_yaml, target_config

if TYPE_CHECKING:
    from triton_router.repository.build.job import BatchVerdict

GOLDEN = Path(__file__).parent / "add"
IO = IoSpec(
    inputs=(
        TensorSpec("input_ids", "INT64", (-1, -1), ("batch", "sequence")),
        TensorSpec("attention_mask", "INT64", (-1, -1), ("batch", "sequence")),
    ),
    outputs=(TensorSpec("last_hidden_state", "FP32", (-1, -1, 384), ("batch", "sequence", "")),),
    bounds={"batch": (1, 64), "sequence": (2, 256)},
    batch_axis="batch",
)


def _latency(*rows: tuple[int, float]) -> tuple[dict[str, float], ...]:
    return tuple({"batch": 1, "work": work, "latency_ms": ms} for work, ms in rows)


SERVED = (
    Served(BY_SUFFIX["onnx-cpu"], "minilm-onnx-cpu", "independent", _latency((16, 3.1), (128, 9.0))),
    Served(BY_SUFFIX["onnx-int8-cpu"], "minilm-onnx-int8-cpu", "quantisation", _latency((16, 1.23456))),
    Served(BY_SUFFIX["tensorrt-gpu"], "minilm-tensorrt-gpu", "independent"),
)


@pytest.mark.parametrize(
    ("suffix", "max_batch_size", "batch"),
    [
        ("onnx-cpu", 64, "independent"),
        ("onnx-int8-cpu", 64, "quantisation"),
        ("onnx-gpu", 64, "independent"),
        ("pt2-cpu", 0, "dependent"),
        ("pt2-mps", 64, "independent"),
        ("coreml-ane", 64, "independent"),
    ],
)
def test_target_configuration(suffix: str, max_batch_size: int, batch: BatchVerdict) -> None:
    """Batching is Triton's only where merging changes nobody's answer; a model without it keeps its first dim."""
    config = target_config(f"minilm-{suffix}", BY_SUFFIX[suffix], IO, max_batch_size, batch)
    assert model_config.render(config) == (GOLDEN / f"{suffix}.pbtxt").read_text()


def test_routed_configuration() -> None:
    """The routed model has its targets' contract."""
    assert model_config.render(routed_config("minilm", IO, 64)) == (GOLDEN / "minilm.pbtxt").read_text()


def test_router_yaml() -> None:
    """A new router.yaml is valid by the router's own strict reading."""
    text = router_yaml("minilm", SERVED)
    assert text == (GOLDEN / "router.yaml").read_text()
    settings = validate_router_config(load_yaml(GOLDEN / "router.yaml"))
    assert [target.batch_independent for target in settings.targets] == [True, False, True]


def test_router_yaml_keeps_what_a_user_edited() -> None:
    """Policy and foreign targets stay; own targets are the new version's, with what was set on them."""
    present = {
        "targets": [
            {"name": "onnx-cpu", "model": "minilm-onnx-cpu", "version": 1, "backend": "cpu"},
            {"name": "pt2-cpu", "model": "minilm-pt2-cpu", "backend": "cpu"},
            {"name": "elsewhere", "model": "minilm-remote", "backend": "gpu"},
        ],
        "policy": "least-request",
        "explore": 0.0,
    }
    settings = validate_router_config(parse_yaml(router_yaml("minilm", SERVED, present), source="router.yaml"))
    assert settings.policy_in_force.name == "least-request"
    assert settings.explore == 0.0
    assert [target.name for target in settings.targets] == ["onnx-cpu", "onnx-int8-cpu", "tensorrt-gpu", "elsewhere"]
    assert settings.targets[0].version == 1
