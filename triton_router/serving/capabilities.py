"""What a Triton server can do, by version: one table, so that nothing else in the project compares versions.

Server versions (2.51) and monthly releases (24.10) name the same thing; both are understood.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from triton_router.serving.stub import StubModule

RELEASES: dict[str, str] = {
    "2.46": "24.05",
    "2.47": "24.06",
    "2.48": "24.07",
    "2.49": "24.08",
    "2.50": "24.09",
    "2.51": "24.10",
    "2.52": "24.11",
    "2.53": "24.12",
    "2.54": "25.01",
    "2.55": "25.02",
    "2.56": "25.03",
    "2.57": "25.04",
    "2.58": "25.05",
    "2.59": "25.06",
    "2.60": "25.08",
    "2.61": "25.09",
    "2.62": "25.10",
    "2.63": "25.11",
    "2.64": "25.12",
    "2.65": "26.01",
    "2.66": "26.02",
    "2.67": "26.03",
    "2.68": "26.04",
    "2.69": "26.05",
}
"""Server version to its first monthly release; 25.07 is 2.59.1. Capabilities do not go away again, so a newer
server counts as the newest of this table."""

FIRST_RELEASE: dict[str, str] = {
    "late_responses": "24.06",
    "numpy2": "24.11",
    "response_parameters": "25.02",
    "bls_error_codes": "25.04",
    "cancel": "25.04",
    "stub_crash_detection": "26.01",
    "is_ready": "26.03",
    "readiness_reflects_stubs": "26.04",
}
"""The release in which each capability came."""

_VERSION = re.compile(r"(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What one server can do.

    Attributes:
        release: The monthly release; None if the version is unknown, and then nothing newer is relied on.
        late_responses: A unary model may answer after ``execute`` has returned.
        numpy2: Tensors are right under numpy 2; before, they are corrupted silently.
        response_parameters: A model can add parameters to its response.
        bls_error_codes: An error of a called model keeps its code.
        cancel: A call to another model can be cancelled.
        stub_crash_detection: The server notices that a stub process has died.
        is_ready: A model can say for itself whether it is ready.
        readiness_reflects_stubs: A model with a dead stub is not ready.
    """

    release: str | None
    late_responses: bool = False
    numpy2: bool = False
    response_parameters: bool = False
    bls_error_codes: bool = False
    cancel: bool = False
    stub_crash_detection: bool = False
    is_ready: bool = False
    readiness_reflects_stubs: bool = False

    @property
    def known(self) -> bool:
        """Whether the server's version was recognised."""
        return self.release is not None

    @property
    def missing(self) -> list[str]:
        """Names of the capabilities this server does not have."""
        return [item.name for item in fields(self) if item.name != "release" and not getattr(self, item.name)]


def capabilities(version: str | None) -> Capabilities:
    """Return what the server of this version can do.

    Args:
        version: ``2.51.0``, ``24.10``, or None. Of an unknown one only what every supported server can do is
            assumed: degrading is visible, relying on what is not there is not.
    """
    release = release_of(version)
    if release is None:
        return Capabilities(release=None, late_responses=True)
    return Capabilities(
        release=release,
        **{name: _number(release) >= _number(first) for name, first in FIRST_RELEASE.items()},
    )


def release_of(version: str | None) -> str | None:
    """Return the monthly release of a version; None if it is not known."""
    found = _VERSION.match(version or "")
    if found is None:
        return None
    major, minor = int(found[1]), int(found[2])
    if major > 20:
        return f"{major}.{minor:02d}"
    newest, release = list(RELEASES.items())[-1]
    return release if (major, minor) > _number(newest) else RELEASES.get(f"{major}.{minor}")


def has_response_parameters(stub: StubModule) -> bool:
    """Whether a model can add parameters to its response, told by the stub that it runs in.

    A stub is not told the server's version. Its classes are C++, whose constructors show their arguments only in
    their documentation.
    """
    return "parameters" in (stub.InferenceResponse.__init__.__doc__ or "")


def _number(release: str) -> tuple[int, int]:
    major, minor = release.split(".")
    return int(major), int(minor)
