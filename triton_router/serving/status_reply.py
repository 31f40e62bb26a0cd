"""What a routed model says of itself over its status socket, as the asker checks it.

The shape is that of the engine's snapshot; further keys of a newer server are kept.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, strict=True)


class TargetIdentity(_Part):
    """Which target it is."""

    name: str
    model: str
    version: int | None
    backend: str
    variant: str


class TargetLatency(_Part):
    """Its latencies since the model was loaded, in milliseconds."""

    count: int
    p50_ms: float
    p99_ms: float
    predicted: int
    predicted_total_ms: float
    measured_total_ms: float
    mean_relative_error: float


class TargetStatus(_Part):
    """One target's traffic."""

    target: TargetIdentity
    in_flight: int
    chosen: int
    succeeded: int
    failed: int
    refused: int
    cancelled: int
    resting: bool
    confidence: float
    latency: TargetLatency
    consecutive_failures: int = 0  # older servers do not say


class ModelStatus(_Part):
    """One routed model."""

    model: str
    policy: str
    targets: list[TargetStatus]
