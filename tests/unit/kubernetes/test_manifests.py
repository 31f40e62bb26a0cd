"""What is written for a cluster: valid for it, consistent in itself, and what the seed's fragments say."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.properties.hostile import PROFILE, refused_well
from triton_router.cli.main import parser
from triton_router.errors import InvalidInputError
from triton_router.kubernetes.release import Release, Track
from triton_router.kubernetes.rendering import MESHES, files, render

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMAS = {
    "networking.istio.io/v1": "istio.json",
    "gateway.networking.k8s.io/v1": "gateway-api.json",
}
KUBERNETES = ("1.33", "1.37")
IMAGE = "registry.example.com/triton-router:1.2.0"
PREFIX = "nginx.ingress.kubernetes.io/"


def release(**changes: Any) -> Release:
    """Return the seed's release: three pods of v1, one of v2, which gets a tenth."""
    tracks = {"stable": Track("stable", "v1", IMAGE, 3), "canary": Track("canary", "v2", IMAGE, 1)}
    return Release(**{"name": "triton", **tracks, "weight": 10, "host": "triton.example.com", **changes})


def manifests(mesh: str, wanted: Release | None = None) -> list[dict[str, Any]]:
    texts = files(wanted or release(), mesh).values()
    return [one for text in texts for one in yaml.load_all(text, yaml.CSafeLoader)]


def of_kind(found: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in found if one["kind"] == kind}


@cache
def validate_core(text: str) -> None:
    """Raise unless a cluster would take a core object; meshes share most of them, and the schemas are large."""
    for version in KUBERNETES:
        kubernetes_validate.validate(json.loads(text), version, strict=True)


def validate(manifest: dict[str, Any]) -> None:
    """Raise unless a cluster would take it; unknown fields are refused too."""
    if manifest["apiVersion"] not in SCHEMAS:
        validate_core(json.dumps(manifest))
        return
    schema = json.loads((Path(__file__).parent / "schemas" / SCHEMAS[manifest["apiVersion"]]).read_text())
    jsonschema.Draft202012Validator(schema).validate(manifest)


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"namespace": "ml", "gateway": "istio-system/public", "tls_secret": "certificate", "gpus": 2, "weight": 0},
        {"weight": 100, "name": "y", "host": "1e3.example.com", "claim": "no"},
        {"stable": Track("stable", "1e3", IMAGE, 1), "canary": Track("canary", "null", IMAGE, 40)},
    ],
)
def test_every_manifest_is_valid(mesh: str, changes: dict[str, Any]) -> None:
    """Core kinds pass Kubernetes' own schemas, old and new, strictly; the others pass the structure of their API."""
    found = manifests(mesh, release(**changes))
    for manifest in found:
        validate(manifest)
    names = [(one["apiVersion"], one["kind"], one["metadata"]["name"]) for one in found]
    assert len(set(names)) == len(names)


def damaged(value: Any) -> Iterator[Any]:
    """Yield a manifest with one thing wrong, for each place of it: a key that is not known, or a number of text."""
    if isinstance(value, dict):
        yield {**value, "unknownKey": 1}
        for key, inner in value.items():
            yield from ({**value, key: worse} for worse in damaged(inner))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from ([*value[:index], worse, *value[index + 1 :]] for worse in damaged(inner))
    elif isinstance(value, int):
        yield str(value)
        yield -1


@pytest.mark.parametrize("mesh", ["istio", "gateway-api"])
def test_our_own_schemas_refuse_what_is_wrong(mesh: str) -> None:
    """A manifest with an unknown key of a number anywhere, or a wrong number, does not pass."""
    tried = 0
    for manifest in manifests(mesh):
        if manifest["apiVersion"] not in SCHEMAS:
            continue
        for worse in damaged(manifest):
            tried += 1
            with pytest.raises(jsonschema.ValidationError):
                validate(worse)
    assert tried > 30


def test_nginx_has_the_seeds_annotations() -> None:
    """The second Ingress of each protocol is a canary with weight 10, and takes the header; gRPC is spoken as gRPC."""
    ingresses = of_kind(manifests("nginx"), "Ingress")
    assert set(ingresses) == {f"triton-{track}-{what}" for track in ("stable", "canary") for what in ("http", "grpc")}
    for protocol in ("http", "grpc"):
        canary = ingresses[f"triton-canary-{protocol}"]
        annotations = canary["metadata"]["annotations"]
        assert annotations[f"{PREFIX}canary"] == "true"
        assert annotations[f"{PREFIX}canary-weight"] == "10"
        assert annotations[f"{PREFIX}canary-by-header"] == "x-canary"
        stable = ingresses[f"triton-stable-{protocol}"]
        assert f"{PREFIX}canary" not in stable["metadata"]["annotations"]
        # Only of one and the same address does a canary take a share.
        (first,), (second,) = stable["spec"]["rules"], canary["spec"]["rules"]
        assert first["host"] == second["host"]
        assert first["http"]["paths"][0]["path"] == second["http"]["paths"][0]["path"]
        for ingress in (stable, canary):
            spoken = ingress["metadata"]["annotations"].get(f"{PREFIX}backend-protocol", "HTTP")
            assert spoken == protocol.upper()


def test_istio_has_the_seeds_weights() -> None:
    """The last rule is 90 to triton-stable and 10 to triton-canary, word for word."""
    for service in of_kind(manifests("istio"), "VirtualService").values():
        *forced, weighted = service["spec"]["http"]
        assert [(d["destination"]["host"], d["weight"]) for d in weighted["route"]] == [
            ("triton-stable", 90),
            ("triton-canary", 10),
        ]
        assert "match" not in weighted
        assert [(rule["match"][0]["headers"], rule["route"][0]["destination"]["host"]) for rule in forced] == [
            ({"x-canary": {"exact": "always"}}, "triton-canary"),
            ({"x-canary": {"exact": "never"}}, "triton-stable"),
        ]


def test_gateway_routes_have_weights() -> None:
    """Both routes split 90 to 10, and the header comes first; they share no host, as a Gateway would take only one."""
    found = manifests("gateway-api")
    routes = [*of_kind(found, "HTTPRoute").values(), *of_kind(found, "GRPCRoute").values()]
    assert len({host for route in routes for host in route["spec"]["hostnames"]}) == 2
    for route in routes:
        always, never, weighted = route["spec"]["rules"]
        assert [(ref["name"], ref["weight"]) for ref in weighted["backendRefs"]] == [
            ("triton-stable", 90),
            ("triton-canary", 10),
        ]
        assert [ref["name"] for ref in always["backendRefs"]] == ["triton-canary"]
        assert [ref["name"] for ref in never["backendRefs"]] == ["triton-stable"]


@pytest.mark.parametrize("mesh", MESHES)
def test_each_service_finds_its_own_pods_only(mesh: str) -> None:
    """Selectors of a track match its pods and not the other's, and name ports that the container has."""
    found = manifests(mesh)
    deployments = of_kind(found, "Deployment")
    assert {name: one["spec"]["replicas"] for name, one in deployments.items()} == {
        "triton-stable": 3,
        "triton-canary": 1,
    }
    for kind, selected in (("Service", lambda s: s["selector"]), ("PodDisruptionBudget", lambda s: s["selector"])):
        for name, one in of_kind(found, kind).items():
            wanted = selected(one["spec"])
            wanted = wanted.get("matchLabels", wanted)
            matching = [
                other
                for other, deployment in deployments.items()
                if wanted.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
            ]
            assert matching == [name]
    for name, service in of_kind(found, "Service").items():
        (container,) = deployments[name]["spec"]["template"]["spec"]["containers"]
        named = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert {port["targetPort"]: port["port"] for port in service["spec"]["ports"]} == named


@pytest.mark.parametrize("mesh", MESHES)
def test_traffic_goes_to_services_that_exist(mesh: str) -> None:
    """Every name and port that a rule sends requests to is one of the services'."""
    found = manifests(mesh)
    known = {
        (name, port["port"]) for name, service in of_kind(found, "Service").items() for port in service["spec"]["ports"]
    }
    assert set(destinations(found)) == {(name, port) for name, port in known if port != 8002}


def destinations(value: Any) -> Iterator[tuple[str, int]]:
    """Yield where requests are sent, in the words of each of the three."""
    if isinstance(value, list):
        for inner in value:
            yield from destinations(inner)
    elif isinstance(value, dict):
        if "destination" in value:
            yield value["destination"]["host"], value["destination"]["port"]["number"]
        elif "backend" in value:
            yield value["backend"]["service"]["name"], value["backend"]["service"]["port"]["number"]
        for key, inner in value.items():
            if key == "backendRefs":
                yield from ((ref["name"], ref["port"]) for ref in inner)
            else:
                yield from destinations(inner)


def container_of(track: str) -> tuple[dict[str, Any], dict[str, Any]]:
    pod = of_kind(manifests("istio"), "Deployment")[f"triton-{track}"]["spec"]["template"]["spec"]
    return pod, pod["containers"][0]


def test_the_container_runs_a_command_that_exists() -> None:
    """This command line takes the container's, word for word, and it listens where the probes and services look."""
    _, container = container_of("stable")
    program, *words = [*container["command"], *container["args"]]
    args = parser().parse_args(words)
    assert program == "triton-router"
    assert args.address == "0.0.0.0"  # noqa: S104 - a pod's own
    assert [args.http_port, args.grpc_port, args.metrics_port] == [p["containerPort"] for p in container["ports"]]
    assert str(args.state) in {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {str(path) for path in args.repository} <= {mount["mountPath"] for mount in container["volumeMounts"]}


def test_a_pod_has_time_to_finish() -> None:
    """From SIGTERM's announcement to SIGKILL: waiting to be unrouted, then twice the drain's timeout, and some more."""
    pod, container = container_of("canary")
    args = parser().parse_args([*container["command"][1:], *container["args"]])
    unrouted = float(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > unrouted + args.drain_grace + 2 * args.drain_timeout


def test_each_track_mounts_its_own_version() -> None:
    """Stable reads v1 and the canary v2 of the same claim, and neither can write there."""
    for track, version in (("stable", "v1"), ("canary", "v2")):
        pod, container = container_of(track)
        models = next(mount for mount in container["volumeMounts"] if mount["name"] == "models")
        assert (models["subPath"], models["readOnly"]) == (version, True)
        assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "models", "readOnly": True}


def test_nothing_that_could_be_written_to_or_gained_is_left_open() -> None:
    """The container is not root, gains no rights, has no token, and writes to volumes of its own only."""
    pod, container = container_of("stable")
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    context = container["securityContext"]
    assert (context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"]) == (False, True)
    assert context["capabilities"] == {"drop": ["ALL"]}


def test_weight_belongs_to_traffic_alone() -> None:
    """Releases that differ by the weight differ in traffic.yaml only: a change of it restarts no pod."""
    for mesh in MESHES:
        ten, ninety = (files(release(weight=weight), mesh) for weight in (10, 90))
        assert [name for name in ten if ten[name] != ninety[name]] == ["traffic.yaml"]


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "Triton"},
        {"name": "1triton"},
        {"name": "t" * 57},
        {"name": "triton\n---\nkind: Secret"},
        {"namespace": "a.b"},
        {"namespace": "kube\nsystem"},
        {"host": "*.example.com"},
        {"host": "10.0.0.1"},
        {"host": "example.com:80"},
        {"host": "a" * 250},
        {"host": "ex ample.com"},
        {"header": "x_canary"},
        {"header": "x-canary: always\n"},
        {"header": "X-Canary"},
        {"gateway": "a/b/c"},
        {"gateway": "../gateway"},
        {"tls_secret": "Secret"},
        {"claim": "models/v1"},
        {"gpus": -1},
        {"weight": -1},
        {"weight": 101},
        {"canary": Track("canary", "v1", IMAGE, 1)},
        {"canary": Track("canary", "../v2", IMAGE, 1)},
        {"canary": Track("canary", "..", IMAGE, 1)},
        {"canary": Track("canary", "v2", IMAGE, 0)},
        {"canary": Track("canary", "v2", "triton-router", 1)},
        {"canary": Track("canary", "v2", "triton-router:latest", 1)},
        {"canary": Track("canary", "v2", "triton router:1", 1)},
        {"canary": Track("canary", "v2", "image:1\nprivileged: true", 1)},
    ],
)
def test_what_a_cluster_would_refuse_is_refused_here(changes: dict[str, Any]) -> None:
    """A name, host, image or number that is not one gives an error in one printable line, with what to do."""
    with pytest.raises(InvalidInputError) as caught:
        release(**changes)
    assert caught.value.message.isprintable()
    assert caught.value.hint


@pytest.mark.parametrize(
    "image",
    [
        "triton-router:0.1.0",
        "localhost:5000/a/b_c/d--e:v1",
        "registry.example.com/ml/triton-router@sha256:" + "a" * 64,
        "triton-router:latest@sha256:" + "0" * 64,
    ],
)
def test_images_that_stay_the_same_are_taken(image: str) -> None:
    """A tag that says a version, or a digest."""
    assert release(canary=Track("canary", "v2", image, 1)).canary.image == image


def test_a_promoted_release_may_be_the_same_twice() -> None:
    """Once stable is what the canary was, the canary gets nothing, and that can be written."""
    same = release(stable=Track("stable", "v2", IMAGE, 3), weight=0)
    assert same.stable.version == same.canary.version


NAMES = st.text("ab1.-/:_ \n{}[]#&*!|>'\"%@,A", max_size=3) | st.sampled_from(
    ["y", "null", "1e3", "a.b", "ns/gw", "v-1"]
)
KINDS = {mesh: [one["kind"] for one in manifests(mesh)] for mesh in MESHES}
OPTIONS = ("name", "host", "namespace", "gateway", "tls_secret", "claim")


@settings(PROFILE, max_examples=60)
@given(
    mesh=st.sampled_from(sorted(MESHES)),
    changes=st.dictionaries(st.sampled_from(OPTIONS), NAMES, max_size=2),
    version=st.just("v2") | NAMES,
)
def test_whatever_is_given_nothing_else_is_written(mesh: str, changes: dict[str, str], version: str) -> None:
    """Any text as a name is refused with what to do, or taken; then the objects are those of any other release."""
    try:
        wanted = release(**changes, canary=Track("canary", version, IMAGE, 1))
    except InvalidInputError as error:
        refused_well(error)
        return
    found = manifests(mesh, wanted)
    assert [one["kind"] for one in found] == KINDS[mesh]
    assert {one["metadata"].get("namespace", "") for one in found} == {changes.get("namespace", "")}
    for manifest in found:
        if manifest["apiVersion"] in SCHEMAS:  # those of the core kinds take long to read
            validate(manifest)


TEXTS = st.text(st.characters(codec="utf-8"), max_size=20) | st.sampled_from(
    [
        "y",
        "N",
        "on",
        "1e3",
        "0x1F",
        "1_000",
        "0o17",
        "12:30:45",
        "2026-11-21",
        ".5",
        "~",
        "",
        "null",
        "NaN",
        "a: b",
        "#",
    ]
)
DATA = st.recursive(
    TEXTS | st.integers() | st.booleans(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(TEXTS, DATA, min_size=1, max_size=4))
def test_text_stays_text_for_every_reader(data: dict[str, Any]) -> None:
    """What is written is read back the same, and no text stands unquoted that some reader takes for something else."""
    text = render([data])
    assert yaml.safe_load(text) == data
    for event in yaml.parse(text):
        if isinstance(event, yaml.ScalarEvent) and event.style is None and event.value not in {"true", "false"}:
            is_number = event.value.lstrip("-").isdecimal()
            assert is_number or event.value[0].isalpha() or event.value[0] == "/"
            assert event.value.lower() not in {"y", "n", "yes", "no", "on", "off", "null"}
