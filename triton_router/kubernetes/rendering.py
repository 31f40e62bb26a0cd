"""A release as files: the stable track, the canary, and the traffic between them, which alone holds weights."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from triton_router.kubernetes.gateway import gateway_traffic
from triton_router.kubernetes.ingress import ingress_traffic
from triton_router.kubernetes.istio import istio_traffic
from triton_router.kubernetes.workload import workload

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from triton_router.kubernetes.release import Release
    from triton_router.kubernetes.workload import Manifest

MESHES: dict[str, Callable[[Release], list[Manifest]]] = {
    "nginx": ingress_traffic,
    "istio": istio_traffic,
    "gateway-api": gateway_traffic,
}
"""What splits the traffic, by the name that a user gives it."""

_WRITTEN = "# Written by: triton-router manifests canary --mesh"
_WIDE = 1 << 20
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
_NO_TEXT = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
"""Words that one or another reader of YAML takes for something else than text."""


def files(release: Release, mesh: str) -> dict[str, str]:
    """Return the text of every file, by its name."""
    stable, canary = release.tracks
    change = "# Change the canary's share with: triton-router manifests canary --set-weight N FILE"
    return {
        "stable.yaml": f"{_WRITTEN} {mesh}\n" + render(workload(release, stable, mesh)),
        "canary.yaml": f"{_WRITTEN} {mesh}\n" + render(workload(release, canary, mesh)),
        "traffic.yaml": f"{_WRITTEN} {mesh}\n{change}\n" + render(MESHES[mesh](release)),
    }


def render(manifests: Sequence[Manifest]) -> str:
    """Return the YAML of objects, each a document."""
    return "".join(
        "---\n" + yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, default_flow_style=False, width=_WIDE)
        for manifest in manifests
    )


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes whatever could be read as something else than text, and uses no aliases.

    Readers differ: to PyYAML ``1e3`` and ``y`` are text, to the cluster's they are a number and a truth.
    """

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002 - PyYAML's name
        super().increase_indent(flow, indentless=False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    is_plain = _PLAIN.fullmatch(text) and text.lower() not in _NO_TEXT
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_plain else '"')


_Dumper.add_representer(str, _text)
