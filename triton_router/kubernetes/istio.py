"""Traffic by Istio: for each protocol a VirtualService with weights, and how connections to each track are made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_router.kubernetes.release import FORCED, GRPC_PORT, HTTP_PORT, REFUSED
from triton_router.kubernetes.workload import TRACK_LABEL, metadata

if TYPE_CHECKING:
    from triton_router.kubernetes.release import Release, Track
    from triton_router.kubernetes.workload import Manifest

_API = "networking.istio.io/v1"


def istio_traffic(release: Release) -> list[Manifest]:
    """Return two VirtualServices and two DestinationRules."""
    return [
        _virtual_service(release, "http", release.host, HTTP_PORT),
        _virtual_service(release, "grpc", release.grpc_host, GRPC_PORT),
        *(_destination_rule(release, track) for track in release.tracks),
    ]


def _virtual_service(release: Release, protocol: str, host: str, port: int) -> Manifest:
    def destination(track: Track) -> Manifest:
        return {"destination": {"host": release.service(track), "port": {"number": port}}}

    def forced(value: str, track: Track) -> Manifest:
        match = [{"headers": {release.header: {"exact": value}}}]
        return {"name": f"{track.name}-by-header", "match": match, "route": [destination(track)]}

    # The mesh's own default repeats failed requests twice; the router within each pod does so with a budget.
    weighted = [
        {**destination(release.stable), "weight": 100 - release.weight},
        {**destination(release.canary), "weight": release.weight},
    ]
    rules: list[Manifest] = [
        forced(FORCED, release.canary),
        forced(REFUSED, release.stable),
        {"name": "by-weight", "route": weighted},
    ]
    return {
        "apiVersion": _API,
        "kind": "VirtualService",
        "metadata": metadata(release, f"{release.name}-{protocol}"),
        "spec": {
            "hosts": [host],
            "gateways": [release.gateway],
            "http": [{**rule, "retries": {"attempts": 0}} for rule in rules],
        },
    }


def _destination_rule(release: Release, track: Track) -> Manifest:
    return {
        "apiVersion": _API,
        "kind": "DestinationRule",
        "metadata": metadata(release, release.service(track), {TRACK_LABEL: track.name}),
        # Inference times differ widely, so whoever has least to do is asked next.
        "spec": {"host": release.service(track), "trafficPolicy": {"loadBalancer": {"simple": "LEAST_REQUEST"}}},
    }
