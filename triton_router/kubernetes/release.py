"""What is to be released: a stable version that serves, a canary beside it, and how much traffic that gets."""

from __future__ import annotations

from dataclasses import dataclass

from triton_router.errors import InvalidInputError
from triton_router.kubernetes import names

FORCED = "always"
REFUSED = "never"
"""Values of the header with which a caller asks for the canary, or for stable; ingress-nginx knows no others."""

DEFAULT_HEADER = "x-canary"

HTTP_PORT = 8000
GRPC_PORT = 8001
METRICS_PORT = 8002


@dataclass(frozen=True, slots=True)
class Track:
    """One of the two deployments.

    Attributes:
        name: ``stable`` or ``canary``.
        version: Of the model repository: the directory on the claim that is mounted; also a label of the pods.
        image: What the container runs.
        replicas: How many pods.
    """

    name: str
    version: str
    image: str
    replicas: int


@dataclass(frozen=True, slots=True)
class Release:
    """Both tracks and how callers reach them. A value that a cluster would refuse is refused here.

    Attributes:
        name: Begins the names of all objects.
        stable: What serves.
        canary: What is being tried.
        weight: Percent of the traffic that the canary gets.
        host: Host name of HTTP requests; gRPC has ``grpc.`` before it.
        header: Name of the header that forces a track, whatever the weights are.
        namespace: Where everything goes; empty for where ``kubectl`` points to.
        gateway: The Gateway that routes are attached to, ``NAMESPACE/NAME`` or ``NAME``; Istio and Gateway API only.
        tls_secret: Certificate of the hosts; nginx only, empty for none.
        claim: PersistentVolumeClaim with one model repository for each version.
        gpus: NVIDIA GPUs of each pod.

    Raises:
        InvalidInputError: A value is not acceptable, or both tracks are the same.
    """

    name: str
    stable: Track
    canary: Track
    weight: int
    host: str
    header: str = DEFAULT_HEADER
    namespace: str = ""
    gateway: str = "gateway"
    tls_secret: str = ""
    claim: str = "models"
    gpus: int = 0

    def __post_init__(self) -> None:
        names.base_name(self.name)
        names.percentage("--weight", self.weight)
        names.host(self.host)
        names.host(self.grpc_host)
        for track in self.tracks:
            names.release_version(f"--{track.name}-version", track.version)
            names.image("--canary-image" if track is self.canary else "--image", track.image)
            names.replicas(f"--{track.name}-replicas", track.replicas)
        if self.header != names.header(self.header):
            raise InvalidInputError("a header's name is compared in lower case", hint="pass names.header(name)")
        self._check_references()
        if self.weight and (self.stable.version, self.stable.image) == (self.canary.version, self.canary.image):
            raise InvalidInputError(
                "stable and canary have the same version and image: there is nothing to try",
                hint="give another --canary-version or --canary-image; or --weight 0, once stable is what it was",
            )

    def _check_references(self) -> None:
        if self.namespace:
            names.label("--namespace", self.namespace)
        *namespace, gateway = self.gateway.split("/", 1)
        names.subdomain("--gateway", gateway)
        for part in namespace:
            names.label("--gateway", part)
        if self.tls_secret:
            names.subdomain("--tls-secret", self.tls_secret)
        names.subdomain("--claim", self.claim)
        if not 0 <= self.gpus <= 64:
            raise InvalidInputError(f"--gpus {self.gpus} is not accepted", hint="give a number from 0 to 64")

    @property
    def tracks(self) -> tuple[Track, Track]:
        """Stable, then canary."""
        return self.stable, self.canary

    @property
    def grpc_host(self) -> str:
        """Host name of gRPC requests.

        Of its own, since a Gateway accepts only one of an HTTPRoute and a GRPCRoute that share one.
        """
        return f"grpc.{self.host}"

    @property
    def is_crowded(self) -> bool:
        """Whether a pod of the canary gets more traffic than one of stable."""
        return self.weight * self.stable.replicas > (100 - self.weight) * self.canary.replicas

    def service(self, track: Track) -> str:
        """Return the name of a track's service, which is that of its deployment."""
        return f"{self.name}-{track.name}"
