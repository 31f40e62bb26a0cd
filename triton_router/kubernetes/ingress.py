"""Traffic by ingress-nginx: for each protocol one Ingress, and a second one that takes the canary's share of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_router.kubernetes.release import GRPC_PORT, HTTP_PORT
from triton_router.kubernetes.workload import TRACK_LABEL, metadata

if TYPE_CHECKING:
    from triton_router.kubernetes.release import Release, Track
    from triton_router.kubernetes.workload import Manifest

PREFIX = "nginx.ingress.kubernetes.io/"


def ingress_traffic(release: Release) -> list[Manifest]:
    """Return the four Ingresses."""
    # Tensors are larger than the megabyte that nginx takes by itself; 64 MiB is as much as Triton takes.
    http = {f"{PREFIX}proxy-body-size": "64m"}
    grpc = {f"{PREFIX}proxy-body-size": "64m", f"{PREFIX}backend-protocol": "GRPC"}
    return [
        _ingress(release, track, protocol, annotations)
        for protocol, annotations in (("http", http), ("grpc", grpc))
        for track in release.tracks
    ]


def _ingress(release: Release, track: Track, protocol: str, annotations: dict[str, str]) -> Manifest:
    is_canary = track is release.canary
    if is_canary:
        # A canary inherits every other annotation but what it needs to speak to its own service.
        annotations = {key: value for key, value in annotations.items() if key.endswith("backend-protocol")}
        annotations |= {
            f"{PREFIX}canary": "true",
            f"{PREFIX}canary-weight": str(release.weight),
            f"{PREFIX}canary-by-header": release.header,
        }
    # gRPC has the host to itself; some ingress-nginx refuse the dot in its service's name.
    host, path, port = (release.host, "/v2", HTTP_PORT) if protocol == "http" else (release.grpc_host, "/", GRPC_PORT)
    service = {"name": release.service(track), "port": {"number": port}}
    tls = [{"hosts": [host], "secretName": release.tls_secret}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": metadata(
            release,
            f"{release.service(track)}-{protocol}",
            {TRACK_LABEL: track.name},
            annotations=annotations,
        ),
        "spec": {
            "ingressClassName": "nginx",
            **({"tls": tls} if release.tls_secret else {}),
            "rules": [
                {
                    "host": host,
                    "http": {"paths": [{"path": path, "pathType": "Prefix", "backend": {"service": service}}]},
                }
            ],
        },
    }
