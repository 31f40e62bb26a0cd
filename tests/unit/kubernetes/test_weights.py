"""Changing the weight: it is replaced, everywhere and nowhere else, and what cannot be changed so is refused."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.properties.hostile import PROFILE, refused_well
from triton_router.errors import ConfigError, InvalidInputError, TritonRouterError
from triton_router.kubernetes.nginx_conf import PlainSplit, nginx_conf, set_conf_weight
from triton_router.kubernetes.release import Release, Track
from triton_router.kubernetes.rendering import MESHES, files
from triton_router.kubernetes.weights import MAX_DEPTH, set_weight

IMAGE = "triton-router:1.2.0"
WEIGHTS = st.integers(0, 100)

COMMENTED = """\
# Ours, by hand.  Ticket 17.
kind: VirtualService   # with a comment
apiVersion: networking.istio.io/v1
metadata: {name: mine}   # in flow style
spec:
    hosts: [triton]
    http:
    - route:
        - destination: { host: triton-stable }
          weight: 90   # the rest
        - destination: { host: triton-canary }
          weight:      '10'   # the canary's

---
# Nothing to change here.
kind: ConfigMap
metadata: {name: weights}
data:
  weight: "10"
"""


def traffic(mesh: str, weight: int) -> str:
    wanted = Release(
        name="triton",
        stable=Track("stable", "v1", IMAGE, 3),
        canary=Track("canary", "v2", IMAGE, 1),
        weight=weight,
        host="triton.example.com",
    )
    return files(wanted, mesh)["traffic.yaml"]


def conf(weight: int) -> str:
    return nginx_conf(
        PlainSplit(model="m", stable=1, canary=2, weight=weight, server="127.0.0.1:8000", listen="127.0.0.1:8080")
    )


@pytest.mark.parametrize("mesh", MESHES)
@settings(PROFILE, max_examples=5)
@given(before=WEIGHTS, between=WEIGHTS, after=WEIGHTS)
@example(before=10, between=100, after=0)
@example(before=100, between=0, after=10)
def test_the_last_weight_counts_and_what_was_before_leaves_no_trace(
    mesh: str, before: int, between: int, after: int
) -> None:
    """Written with one weight and changed twice, the text is to the character what is written with the last."""
    changed, _ = set_weight(traffic(mesh, before), between, source="traffic.yaml")
    text, changes = set_weight(changed, after, source="traffic.yaml")
    assert text == traffic(mesh, after)
    assert [(change.before, change.after) for change in changes] == [(between, after)] * 2


@PROFILE
@given(before=WEIGHTS, between=WEIGHTS, after=WEIGHTS)
def test_an_nginx_conf_too(before: int, between: int, after: int) -> None:
    """The same of a plain nginx.conf, through 0 and 100 and back."""
    changed, first = set_conf_weight(conf(before), between, source="nginx.conf")
    text, second = set_conf_weight(changed, after, source="nginx.conf")
    assert text == conf(after)
    assert (first, second) == (before, between)


def test_comments_and_layout_stay() -> None:
    """Of a file by hand, in several styles, nothing changes but the two numbers, whose quotes stay."""
    text, changes = set_weight(COMMENTED, 25, source="mine.yaml")
    wanted = COMMENTED.replace("weight: 90", "weight: 75").replace("'10'", "'25'")
    assert text == wanted
    assert [tuple(change) for change in changes] == [("VirtualService", "mine", 10, 25)]
    windows, _ = set_weight(COMMENTED.replace("\n", "\r\n"), 25, source="mine.yaml")
    assert windows == wanted.replace("\n", "\r\n")


def test_weights_need_not_add_up_to_a_hundred() -> None:
    """A split of 3 to 1 is a quarter, as the Gateway API has it; afterwards it is of a hundred."""
    text = traffic("gateway-api", 10).replace("weight: 90", "weight: 3").replace("weight: 10", "weight: 1")
    changed, changes = set_weight(text, 10, source="traffic.yaml")
    assert [change.before for change in changes] == [25, 25]
    assert changed == traffic("gateway-api", 10)


def test_rules_that_split_nothing_are_left_alone() -> None:
    """A rule for one destination, and one between two that are no canary, keep their weights."""
    other, one = routes("{name: a, weight: 1}", "{name: b, weight: 1}"), routes("{name: a-canary, weight: 1}")
    stable = "kind: Ingress\nmetadata: {name: a, annotations: {a: b}}"
    text = f"{other}\n---\n{one}\n---\n{stable}\n---\n---\n[1, 2]\n---\ntext\n"
    assert set_weight(text, 50, source="x.yaml") == (text, [])


def routes(*backends: str) -> str:
    return f"kind: HTTPRoute\nspec: {{rules: [{{backendRefs: [{', '.join(backends)}]}}]}}"


def ingress(**annotations: str) -> str:
    given = {f"nginx.ingress.kubernetes.io/{key.replace('_', '-')}": value for key, value in annotations.items()}
    return yaml.safe_dump({"kind": "Ingress", "metadata": {"name": "a", "annotations": given}})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (routes("{name: a, weight: 1}", "{name: a-canary}"), "a weight is missing"),
        (routes("{name: a, weight: 1}", "{name: a-canary, weight: {}}"), "a weight is missing"),
        (routes("{name: a, weight: x}", "{name: a-canary, weight: 1}"), "is not a number"),
        (routes("{name: a, weight: -1}", "{name: a-canary, weight: 1}"), "is not a number"),
        (routes("{name: a, weight: 1}", "{name: b, weight: 1}", "{name: a-canary, weight: 1}"), "in another way"),
        (routes("{name: b-canary, weight: 1}", "{name: a-canary, weight: 1}"), "in another way"),
        (ingress(canary="true"), "a weight is missing"),
        (ingress(canary="true", canary_weight="1", canary_weight_total="1000"), "canary-weight-total is not 100"),
        ("a: &x 1\nb: *x\n", "aliases"),
        ("[" * (MAX_DEPTH + 1), "nested deeper"),
        ("a: [1", "x.yaml:"),
        ("a: \x00", "x.yaml"),
    ],
)
def test_what_cannot_be_changed_is_refused(text: str, problem: str) -> None:
    """The file, the object or line, what is in the way, and what to do."""
    with pytest.raises((ConfigError, InvalidInputError)) as caught:
        set_weight(text, 50, source="x.yaml")
    assert problem in caught.value.message
    refused_well(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "events {}",
        conf(10).replace("10% canary", "2.5% canary"),
        conf(10).replace("* stable", "* other"),
        conf(10) + conf(10),
    ],
)
def test_another_nginx_conf_is_refused(text: str) -> None:
    """One that was not written here, or whose split says something else by now."""
    with pytest.raises(InvalidInputError) as caught:
        set_conf_weight(text, 50, source="nginx.conf")
    refused_well(caught.value)


@pytest.mark.parametrize("weight", [-1, 101, 10**30])
def test_only_percentages_are_taken(weight: int) -> None:
    """0 to 100, for manifests and nginx alike."""
    for change, text in ((set_weight, traffic("istio", 10)), (set_conf_weight, conf(10))):
        with pytest.raises(InvalidInputError):
            change(text, weight, source="x")


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "m; } evil {"},
        {"model": "../m"},
        {"model": "$request_uri"},
        {"model": "m\n"},
        {"model": ""},
        {"server": "127.0.0.1"},
        {"server": "127.0.0.1:0"},
        {"server": "127.0.0.1:80; deny all"},
        {"listen": "unix:/tmp/x"},
        {"listen": "127.0.0.1:70000"},
        {"header": "x-canary; return 200"},
        {"header": "x_canary"},
        {"canary": 1},
        {"canary": 0},
        {"weight": 101},
    ],
)
def test_nothing_gets_into_an_nginx_conf_but_what_is_meant(changes: dict[str, Any]) -> None:
    """Names, addresses and headers with anything that means something to nginx are refused."""
    settings = {"model": "m", "stable": 1, "canary": 2, "weight": 10, "server": "a:1", "listen": "b:2"}
    with pytest.raises(InvalidInputError) as caught:
        PlainSplit(**{**settings, **changes})
    refused_well(caught.value)


@PROFILE
@given(st.text(max_size=200) | st.text("kind: HTTPRoute\n-[]{}&*!|>'\"%@`#?,0", max_size=200), WEIGHTS)
def test_any_text_is_left_as_it_is_or_refused(text: str, weight: int) -> None:
    """Whatever stands in a file, the answer is that there is no weight in it, or an error with what to do."""
    try:
        assert set_weight(text, weight, source="x.yaml") == (text, [])
    except TritonRouterError as error:
        refused_well(error)


def test_what_is_changed_reads_as_meant() -> None:
    """Read again, both destinations say numbers that add up to a hundred."""
    text, _ = set_weight(traffic("istio", 10), 35, source="traffic.yaml")
    for service in yaml.safe_load_all(text):
        if service["kind"] == "VirtualService":
            assert [one["weight"] for one in service["spec"]["http"][-1]["route"]] == [65, 35]
