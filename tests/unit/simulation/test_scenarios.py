"""Scenario files: the built-in ones run, wrong ones are refused with line and key, every key is documented."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import pytest

from triton_router.errors import ConfigError, NotFoundError
from triton_router.simulation.contenders import CONTENDERS
from triton_router.simulation.run import Simulation
from triton_router.simulation.scenario import Scenario, built_in_names, load_scenario
from triton_router.simulation.settings import Settings

PAGE = Path(__file__).parents[3] / "docs" / "simulate.md"

GOOD = """\
devices:
  - {name: cpu}
targets:
  - {name: a, device: cpu, curve: {kind: affine, base_ms: 1.0}}
arrivals: {kind: poisson, per_second: 10.0}
"""


@pytest.mark.parametrize("name", sorted({*built_in_names()} - {"cells"}))
def test_built_in_scenarios_run(name: str) -> None:
    """Each built-in scenario says what it is, and its requests are answered."""
    scenario = load_scenario(name)
    assert scenario.description
    assert len(Simulation(scenario, requests=50).run("latency").served) >= 50
    assert set(scenario.policies) <= set(CONTENDERS)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (GOOD + "surprise: 1\n", "6: surprise: unknown key"),
        (GOOD.replace("base_ms", "bse_ms"), "4: targets.0.curve.affine.bse_ms: unknown key"),
        (GOOD.replace("base_ms: 1.0", "base_ms: -1.0"), "4: targets.0.curve"),
        (GOOD.replace("base_ms: 1.0", "base_ms: .nan"), "4: targets.0.curve"),
        (GOOD.replace("device: cpu", "device: gpu"), "1: target 'a' is on device 'gpu'"),
        (GOOD.replace("kind: affine", "kind: cubic"), "4: targets.0.curve"),
        (GOOD.replace("name: cpu}", "name: cpu}\n  - {name: cpu}"), "1: the name 'cpu' stands twice"),
        (GOOD + "episodes: [{target: b, from_s: 0.0, to_s: 1.0}]\n", "1: an episode is about 'b'"),
        (GOOD + "episodes: [{target: a, from_s: 2.0, to_s: 1.0}]\n", "1: the episode of 'a' ends before it begins"),
        (GOOD.replace("name: cpu}", "name: cpu, copies: 99999}") + "shapes: [{rows: [4, 2]}]\n", "6: shapes.0"),
        (GOOD + "cell_size: 4\nrouters: 2\n", "1: cell_size and routers"),
        ("[]\n", " is empty or not a mapping"),
        ("targets: [\n", "2: "),
    ],
)
def test_wrong_scenarios_are_refused_with_their_place(tmp_path: Path, text: str, complaint: str) -> None:
    """Whatever is wrong with a scenario, the message says where and what."""
    path = tmp_path / "fleet.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_scenario(str(path))
    assert complaint in caught.value.message


def test_a_good_file_loads_and_a_missing_one_is_named(tmp_path: Path) -> None:
    """A scenario can be any file; a name that is neither says which there are."""
    path = tmp_path / "fleet.yaml"
    path.write_text(GOOD)
    assert load_scenario(str(path)).targets[0].name == "a"
    with pytest.raises(NotFoundError) as caught:
        load_scenario("nothing-of-the-sort")
    assert "single" in caught.value.hint


def keys(kind: Any) -> set[str]:
    """Return the names of all settings below a type."""
    if isinstance(kind, type) and issubclass(kind, Settings):
        return {
            *kind.model_fields,
            *(key for field in kind.model_fields.values() for key in keys(field.annotation)),
        }
    if get_origin(kind) in {Annotated, Union, types.UnionType, tuple}:
        return {key for inner in get_args(kind) for key in keys(inner)}
    return set()


def test_every_key_is_described() -> None:
    """Each key of a scenario, nested ones too, stands in docs/simulate.md as code."""
    text = PAGE.read_text()
    words = {word for part in text.split("`")[1::2] for word in part.replace("{", " ").replace("}", " ").split()}
    described = {word.strip(",:") for word in words}
    found = keys(Scenario)
    assert {"base_ms", "per_second", "explore", "max_latency_ms"} <= found
    assert found - described == set()
