"""The deployments, services and disruption budgets of both tracks.

Stopping fits what Triton does on SIGTERM: it closes its listeners at once. So the container first waits until no load
balancer sends any more (preStop), then `triton-router serve` finishes what is under way, and only then Triton ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from triton_router.kubernetes.release import GRPC_PORT, HTTP_PORT, METRICS_PORT

if TYPE_CHECKING:
    from triton_router.kubernetes.release import Release, Track

Manifest = dict[str, Any]

TRACK_LABEL = "triton-router/track"

_UNROUTE_S = 10
"""Seconds for endpoints to be taken out of every proxy; a pod that is ending leaves them at once, but proxies lag."""
_DRAIN_S = 30
"""As ``serve --drain-timeout``: for requests, and then for connections that clients hold open."""
_GRACE_S = _UNROUTE_S + 2 * _DRAIN_S + 5
_USER = 1000
"""``triton-server`` in NVIDIA's images."""
_GRPC_PROTOCOL = {"istio": "grpc", "gateway-api": "kubernetes.io/h2c"}


def workload(release: Release, track: Track, mesh: str) -> list[Manifest]:
    """Return everything of a track but how traffic gets there."""
    return [_deployment(release, track), _service(release, track, mesh), _disruption_budget(release, track)]


def metadata(release: Release, name: str, labels: dict[str, str] | None = None, **more: object) -> Manifest:
    """Return an object's metadata."""
    return {
        "name": name,
        **({"namespace": release.namespace} if release.namespace else {}),
        "labels": {
            "app.kubernetes.io/name": release.name,
            "app.kubernetes.io/managed-by": "triton-router",
            **(labels or {}),
        },
        **more,
    }


def _selector(release: Release, track: Track) -> dict[str, str]:
    # Without the version: a selector cannot change, and stable becomes another version when the canary is promoted.
    return {"app.kubernetes.io/name": release.name, TRACK_LABEL: track.name}


def _deployment(release: Release, track: Track) -> Manifest:
    labels = _selector(release, track)
    pod_labels = {**labels, "app.kubernetes.io/version": track.version}
    scrape = {"prometheus.io/scrape": "true", "prometheus.io/port": str(METRICS_PORT), "prometheus.io/path": "/metrics"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(release, release.service(track), {TRACK_LABEL: track.name}),
        "spec": {
            "replicas": track.replicas,
            "selector": {"matchLabels": labels},
            # No pod goes before its successor has loaded its models.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "progressDeadlineSeconds": 900,
            "template": {"metadata": {"labels": pod_labels, "annotations": scrape}, "spec": _pod(release, track)},
        },
    }


def _pod(release: Release, track: Track) -> Manifest:
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _GRACE_S,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": _selector(release, track)},
            }
        ],
        "containers": [_container(release, track)],
        "volumes": [
            {"name": "models", "persistentVolumeClaim": {"claimName": release.claim, "readOnly": True}},
            # Docker's 64 MB would end requests that carry a few large tensors.
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
            {"name": "state", "emptyDir": {"sizeLimit": "256Mi"}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
        ],
    }


def _container(release: Release, track: Track) -> Manifest:
    serve = ["triton-router", "serve", "--repository=/models", "--state=/state", "--address=0.0.0.0"]
    return {
        "name": "triton",
        "image": track.image,
        "command": serve,
        # preStop has waited already.
        "args": ["--drain-grace=0", f"--drain-timeout={_DRAIN_S}"],
        "env": [{"name": "HOME", "value": "/tmp"}],  # noqa: S108 - the container's own, an emptyDir
        "ports": [
            {"name": "http", "containerPort": HTTP_PORT},
            {"name": "grpc", "containerPort": GRPC_PORT},
            {"name": "http-metrics", "containerPort": METRICS_PORT},
        ],
        "startupProbe": _probe("ready", period_s=5, failures=120),
        # Long enough for a model to be loaded afresh after its process died; the others serve on meanwhile.
        "readinessProbe": _probe("ready", period_s=3, failures=3),
        "livenessProbe": _probe("live", period_s=10, failures=3),
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(_UNROUTE_S)]}}},
        "resources": _resources(release.gpus),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "models", "mountPath": "/models", "subPath": track.version, "readOnly": True},
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - a volume of the pod's own
            {"name": "state", "mountPath": "/state"},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod's own
        ],
    }


def _probe(which: str, *, period_s: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": f"/v2/health/{which}", "port": "http"},
        "periodSeconds": period_s,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
    }


def _resources(gpus: int) -> Manifest:
    # No limit of processors: it would throttle answers that the machine has time for. Shared memory counts as memory.
    gpu = {"nvidia.com/gpu": gpus} if gpus else {}
    return {"requests": {"cpu": "2", "memory": "4Gi", **gpu}, "limits": {"memory": "4Gi", **gpu}}


def _service(release: Release, track: Track, mesh: str) -> Manifest:
    grpc: Manifest = {"name": "grpc", "port": GRPC_PORT, "targetPort": "grpc"}
    if mesh in _GRPC_PROTOCOL:
        grpc["appProtocol"] = _GRPC_PROTOCOL[mesh]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(release, release.service(track), {TRACK_LABEL: track.name}),
        "spec": {
            "type": "ClusterIP",
            "selector": _selector(release, track),
            "ports": [
                {"name": "http", "port": HTTP_PORT, "targetPort": "http"},
                grpc,
                {"name": "http-metrics", "port": METRICS_PORT, "targetPort": "http-metrics"},
            ],
        },
    }


def _disruption_budget(release: Release, track: Track) -> Manifest:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(release, release.service(track), {TRACK_LABEL: track.name}),
        "spec": {
            # Not minAvailable: of a single pod that would keep a node from ever being drained.
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": _selector(release, track)},
        },
    }
