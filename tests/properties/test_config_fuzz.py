"""Whatever stands in a router.yaml or a routing JSON, it is taken and can be served, or refused by name."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.properties.hostile import PROFILE, VALUES, changed, refused_well
from triton_router.config.configured_engine import configured_engine
from triton_router.config.json_document import parse_json
from triton_router.config.loading import Document, parse_yaml
from triton_router.config.router_config import RouterConfig, validate_router_config
from triton_router.config.routing_settings import RoutingSettings, validate_routing_settings
from triton_router.errors import TritonRouterError
from triton_router.routing.types import RoutingContext

SETTINGS: dict[str, Any] = {
    "targets": [
        {"name": "a", "model": "m-a", "backend": "cpu", "measured_latency": [{"work": 16, "latency_ms": 1.5}]},
        {"name": "b", "model": "m-b", "version": 2, "backend": "gpu", "variant": "onnx", "instances": 2},
    ],
    "default_policy": {"name": "adaptive", "parameters": {"latency_weight": 0.4}},
    "routing_rules": [{"model_name_pattern": "res*", "policy": "throughput", "preferred_backends": ["gpu"]}],
    "ab_tests": [
        {"experiment_id": "e", "control_policy": "latency", "treatment_policy": "cost", "treatment_percentage": 0.5}
    ],
    "backend_weights": {"gpu": 1.5},
    "router_config": {"profile_warmup_iterations": 1, "metrics_interval": "60s"},
    "explore": 0.001,
    "max_latency_ms": 50,
    "retry": {},
    "health": {},
    "queue": {},
    "hedge": {},
    "deadline": {},
}
ROUTING = {key: value for key, value in SETTINGS.items() if key in RoutingSettings.model_fields}
KEYS = st.sampled_from(sorted(RouterConfig.model_fields))
FRAGMENTS = st.one_of(
    st.sampled_from(
        ["targets:", "- ", "{", "}", "[", "]", ": ", ",", "\n", "\n  ", "name: a", "model: m", "policy: latency", "? "]
    ),
    st.sampled_from(
        ["&a ", "*a", "<<: ", "!!bool x", "!!int ''", "!t ", "%YAML 1.2\n---\n", "...\n", "---\n", "|\n", ">-\n"]
    ),
    st.sampled_from(
        ["0x", "0b_", "1:30", "1:2.5", ".inf", ".nan", "2001-99-99", "~", "=", "'", '"', "#", "\t", "\x85"]
    ),
    st.text(max_size=4),
)
YAML = json.dumps(SETTINGS)  # JSON is YAML, all in one line
BOMBS = {
    "aliases": "a: &a [x]\n" + "".join(f"b{n}: [*a, *a]\n" for n in range(9)),
    "levels": "[" * 100_000,
    "levels of mappings": "{a: " * 20_000,
    "values": "[" + "[]," * 300_000,
    "sexagesimal": "a: 1" + ":1" * 50_000,
    "sexagesimal fraction": "a: 1" + ":1" * 50_000 + ".5",
    "digits": "a: " + "9" * 100_000,
    "hexadecimal": "a: 0x" + "f" * 100_000,
    "key": "k" * 1_000 + ": 1\n",
    "tag": "!!python/object/apply:os.system ['true']",
    "typos": "\n".join(f"polcy{n}: 1" for n in range(500)),
}


@PROFILE
@given(at=st.floats(0, 1), parts=st.lists(FRAGMENTS, max_size=12))
@example(at=1.0, parts=["!!bool maybe"])
@example(at=0.0, parts=["a: !!int ''"])
@example(at=0.0, parts=["a: 1" + ":1" * 400 + ".5"])
@example(at=0.0, parts=["%TAG ! tag:yaml.org,2002:\n---\n!timestamp soon"])
@example(at=0.0, parts=["a\x00"])
def test_any_text_is_served_or_refused(at: float, parts: list[str]) -> None:
    """YAML's own syntax, cut and pasted into a good file; the examples once raised other errors or odd messages."""
    place = int(at * len(YAML))
    for text in ("".join(parts), YAML[:place] + "".join(parts) + YAML[place:]):
        try:
            _served(validate_router_config(parse_yaml(text, source="f")))
        except TritonRouterError as error:
            refused_well(error)


@PROFILE
@given(data=changed(SETTINGS, KEYS) | VALUES)
@example(data={"targets": [{"name": "\x1b[2J", "model": "m"}]})
@example(data={"targets": [{"name": "a", "model": "../../etc"}]})
@example(data={"targets": [{"name": "a", "model": "m", "version": 10**400}]})
@example(data={**SETTINGS, "k" * 100_000: 1})
def test_any_settings_are_served_or_refused(data: Any) -> None:
    """Values of every kind at every key; an engine made of what is accepted decides."""
    try:
        _served(validate_router_config(Document("f", data)))
    except TritonRouterError as error:
        refused_well(error)


@PROFILE
@given(data=changed(ROUTING) | VALUES, text=st.text(max_size=20))
@example(data={"explore": 10**4000}, text="")
@example(data={"\ud800": 1}, text="")
@example(data={}, text="[" * 100_000)
@example(data={}, text='{"a": ' * 5_000)
@example(data={}, text="9" * 5_000)
@example(data={}, text='{"a": 1, "a": 2}')
def test_any_json_is_taken_or_refused(data: Any, text: str) -> None:
    """The same for the JSON of the Python API, with what JSON alone can hold."""
    for document in (json.dumps(data), text):
        try:
            validate_routing_settings(parse_json(document, source="f"))
        except TritonRouterError as error:
            refused_well(error)


_CHILD = """
import resource, sys
from tests.properties.test_config_fuzz import BOMBS
from triton_router.config.loading import parse_yaml
from triton_router.config.router_config import validate_router_config
from triton_router.errors import ConfigError
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (160 << 20),) * 2)
for name, text in BOMBS.items():
    try:
        validate_router_config(parse_yaml(text, source="f"))
    except ConfigError as error:
        print(name, len(error.message) < 2500 and error.message.isprintable())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS holds on Linux alone")
def test_no_document_fills_the_memory(pytestconfig: pytest.Config) -> None:
    """Each bomb is refused with 160 MB to spare; at the largest size of a file some took 400 MB, or a minute."""
    told = subprocess.run(
        [sys.executable, "-c", _CHILD], cwd=pytestconfig.rootpath, capture_output=True, text=True, check=False
    )
    assert told.stdout.splitlines() == [f"{name} True" for name in BOMBS], told.stderr


def _served(config: RouterConfig) -> None:
    engine = configured_engine(config, "resnet", {}, rng=random.Random(1).random)
    try:
        decision = engine.decide(RoutingContext(1, 16), 1.0)
    except TritonRouterError as error:  # as when every target's backend is excluded
        refused_well(error)
        return
    assert decision.target.name in {target.name for target in config.targets}
