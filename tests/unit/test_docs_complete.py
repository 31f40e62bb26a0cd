"""The documentation leaves nothing out: settings, policies, metrics, commands, capabilities and variants."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from triton_router.cli.main import COMMANDS, parser
from triton_router.config.router_config import RouterConfig
from triton_router.repository.plan import TARGETS
from triton_router.routing.policies import POLICIES
from triton_router.serving.capabilities import FIRST_RELEASE
from triton_router.telemetry.families import MERGING_FAMILIES, MODEL_FAMILIES
from triton_router.telemetry.parity_metrics import PARITY_FAMILIES
from triton_router.telemetry.rollout_metrics import EXPERIMENT_FAMILIES, ROLLOUT_FAMILIES
from triton_router.telemetry.target_families import TARGET_FAMILIES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ALL_FAMILIES = (
    *TARGET_FAMILIES,
    *MODEL_FAMILIES,
    *MERGING_FAMILIES,
    *PARITY_FAMILIES,
    *ROLLOUT_FAMILIES,
    *EXPERIMENT_FAMILIES,
)


def keys(model: type[BaseModel]) -> set[str]:
    """Return the names of all settings, of nested ones too."""
    found: set[str] = set()
    waiting = [model]
    while waiting:
        for name, field in waiting.pop().model_fields.items():
            found.add(name)
            inner = [field.annotation, *getattr(field.annotation, "__args__", ())]
            waiting += [item for item in inner if isinstance(item, type) and issubclass(item, BaseModel)]
    return found


def options(command: str) -> set[str]:
    """Return the long options of a command, of its actions too."""
    subparsers = next(action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    waiting: list[argparse.ArgumentParser] = [subparsers.choices[command]]
    found: set[str] = set()
    while waiting:
        for action in waiting.pop()._actions:
            found.update(text for text in action.option_strings if text.startswith("--"))
            if isinstance(action, argparse._SubParsersAction):
                waiting += action.choices.values()
    return found - {"--help"}


def test_keys_are_found_in_nested_settings() -> None:
    """The walk over the settings reaches targets, their measurements and dispatch."""
    assert {"targets", "policy", "model", "latency_ms", "inline"} <= keys(RouterConfig)


@pytest.mark.parametrize("key", sorted(keys(RouterConfig)))
def test_every_setting_has_a_row(key: str) -> None:
    """Each key of router.yaml begins a row of a table in docs/router-yaml.md."""
    assert f"\n| `{key}` |" in (DOCS / "router-yaml.md").read_text()


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_every_policy_has_a_row(policy: str) -> None:
    """Each policy begins a row of a table in docs/router-yaml.md."""
    assert f"\n| `{policy}` |" in (DOCS / "router-yaml.md").read_text()


@pytest.mark.parametrize("metric", sorted({family.name for family in ALL_FAMILIES}))
def test_every_metric_has_a_row(metric: str) -> None:
    """Each metric begins a row of the table in docs/metrics.md."""
    assert f"\n| `{metric}` |" in (DOCS / "metrics.md").read_text()


def test_every_metric_label_is_described() -> None:
    """Each label value stands in docs/metrics.md."""
    text = (DOCS / "metrics.md").read_text()
    assert all(f"`{word}`" in text for family in ALL_FAMILIES for label in family.labels for word in label)


@pytest.mark.parametrize("command", [module.__name__.rpartition(".")[2] for module in COMMANDS])
def test_every_command_is_shown(command: str) -> None:
    """Each command of the command line is shown in the documentation."""
    pages = [ROOT / "README.md", *DOCS.glob("*.md")]
    assert any(f"triton-router {command}" in page.read_text() for page in pages)


@pytest.mark.parametrize(
    ("command", "page"),
    [
        ("add", "adding-models.md"),
        ("serve", "serving.md"),
        ("models", "models.md"),
        ("explain", "explain.md"),
        ("manifests", "kubernetes.md"),
        ("canary", "rollouts.md"),
        ("experiments", "experiments.md"),
    ],
)
def test_every_option_is_described(command: str, page: str) -> None:
    """Each option of a command stands on its page."""
    text = (DOCS / page).read_text()
    assert [option for option in sorted(options(command)) if option not in text] == []


@pytest.mark.parametrize(("capability", "release"), sorted(FIRST_RELEASE.items()))
def test_every_capability_has_a_row_with_its_release(capability: str, release: str) -> None:
    """Each capability of a server stands in docs/limits-of-the-server.md with the release it came in."""
    assert f"\n| `{capability}` | {release} |" in (DOCS / "limits-of-the-server.md").read_text()


@pytest.mark.parametrize("target", [target.suffix for target in TARGETS])
def test_every_variant_is_described(target: str) -> None:
    """Each target that can be made stands in docs/adding-models.md."""
    assert f"`{target}`" in (DOCS / "adding-models.md").read_text()


def test_links_between_pages_lead_somewhere() -> None:
    """Relative links of the README and of every page exist."""
    for page in (ROOT / "README.md", *DOCS.glob("*.md")):
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
