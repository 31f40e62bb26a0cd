"""Traffic by the Gateway API: an HTTPRoute and a GRPCRoute with weighted backends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_router.kubernetes.release import FORCED, GRPC_PORT, HTTP_PORT, REFUSED
from triton_router.kubernetes.workload import metadata

if TYPE_CHECKING:
    from triton_router.kubernetes.release import Release, Track
    from triton_router.kubernetes.workload import Manifest

_HTTP_MATCH: Manifest = {"path": {"type": "PathPrefix", "value": "/v2"}}
_GRPC_MATCH: Manifest = {"method": {"type": "Exact", "service": "inference.GRPCInferenceService"}}


def gateway_traffic(release: Release) -> list[Manifest]:
    """Return both routes."""
    return [
        _route(release, "HTTPRoute", release.host, HTTP_PORT, _HTTP_MATCH),
        _route(release, "GRPCRoute", release.grpc_host, GRPC_PORT, _GRPC_MATCH),
    ]


def _route(release: Release, kind: str, host: str, port: int, match: Manifest) -> Manifest:
    def backend(track: Track, weight: int) -> Manifest:
        return {"name": release.service(track), "port": port, "weight": weight}

    def forced(value: str, track: Track) -> Manifest:
        header = {"type": "Exact", "name": release.header, "value": value}
        return {"matches": [{**match, "headers": [header]}], "backendRefs": [backend(track, 1)]}

    *namespace, gateway = release.gateway.split("/", 1)
    weighted = [backend(release.stable, 100 - release.weight), backend(release.canary, release.weight)]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": kind,
        "metadata": metadata(release, f"{release.name}-{kind.removesuffix('Route').lower()}"),
        "spec": {
            "parentRefs": [{"name": gateway, **({"namespace": namespace[0]} if namespace else {})}],
            "hostnames": [host],
            "rules": [
                forced(FORCED, release.canary),
                forced(REFUSED, release.stable),
                {"matches": [match], "backendRefs": weighted},
            ],
        },
    }
