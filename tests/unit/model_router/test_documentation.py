"""docs/python-api.md: its examples run, and it leaves nothing out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import triton_router
from triton_router import ModelRouter, ModelRouterConfig
from triton_router.config.routing_settings import RoutingSettings
from triton_router.model_router.exposition import RoutingCollector
from triton_router.routing.capabilities import CAPABILITIES

PAGE = (Path(__file__).parents[3] / "docs" / "python-api.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_examples_run_one_after_another(capsys: pytest.CaptureFixture[str]) -> None:
    """Every Python block of the page, in one program as a reader would type it."""
    names: dict[str, Any] = {}
    for block in blocks("python"):
        exec(compile(block, "docs/python-api.md", "exec"), names)  # noqa: S102 - the page's own text
    assert "Selected backend: " in capsys.readouterr().out
    assert set(names["arms"]) <= {"control", "treatment"}
    assert names["router"] is ModelRouter.get_instance()


def test_the_json_example_loads() -> None:
    """The JSON block is a valid configuration."""
    (text,) = blocks("json")
    assert ModelRouterConfig.from_json(text).settings.default_policy.name == "adaptive"


@pytest.mark.parametrize("name", triton_router.__all__)
def test_every_export_is_mentioned(name: str) -> None:
    """Each exported name stands on the page, or is the type of something that does."""
    types = {
        "Backend",
        "BackendCapabilities",
        "Figure",
        "ModelMetrics",
        "RoutingMetrics",
        "Source",
        "TritonRouterError",
    }
    assert name in types or re.search(rf"\b{name}\b", PAGE)


@pytest.mark.parametrize("key", sorted(RoutingSettings.model_fields))
def test_every_key_has_a_row(key: str) -> None:
    """Each key of the JSON configuration has a row, with the default that it has."""
    assert f"\n| `{key}` |" in PAGE
    default = RoutingSettings().model_dump()[key]
    if isinstance(default, float):
        assert f"\n| `{key}` | `{default:g}` |" in PAGE


def test_every_metric_has_a_row() -> None:
    """Each metric family stands in the table with its type."""
    for family in RoutingCollector({}).collect():
        suffix = "_total" if family.type == "counter" else ""
        assert f"\n| `{family.name}{suffix}` | {family.type} |" in PAGE


def test_the_priors_are_those_of_the_table() -> None:
    """The table of capabilities says what the code assumes."""
    for backend, able in CAPABILITIES.items():
        yes = [("no", "yes")[flag] for flag in (able.supports_int8, able.supports_fp16)]
        row = [f"`{backend}`", *(f"{x:g}" for x in (able.gflops, able.bandwidth_gb_s, able.gflops_per_w)), *yes]
        assert f"| {' | '.join(row)} |" in PAGE
