"""What a routed model says of itself over its status socket, as the asker checks it.

The shape is that of the engine's snapshot; further keys of a newer server are kept.
"""

from __future__ import annotations

from typing import Any

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
    p90_ms: float = 0.0  # older servers do not say


class FigureStatus(_Part):
    """A number, and whether it is ``measured``, ``estimated`` or ``unknown``."""

    value: float = 0.0
    source: str = "unknown"


class DriftStatus(_Part):
    """A change of a target's speed: ``slower`` or ``faster``, by this factor, at its so manieth answer."""

    direction: str
    factor: float
    observation: int


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
    # What follows older servers do not say.
    mirrored: int = 0
    consecutive_failures: int = 0
    error_rate: float = 0.0
    drifts: int = 0
    last_drift: DriftStatus | None = None
    power_w: FigureStatus = FigureStatus()
    memory_mb: FigureStatus = FigureStatus()
    stage: str = ""
    why: str = ""
    ejections: dict[str, int] = {}
    returns: int = 0
    seconds_out: float = 0.0
    retried: int = 0
    hedged: int = 0
    removed: bool = False
    peers_in_flight: int = 0


class StateStatus(_Part):
    """What is kept of what was learned.

    Attributes:
        inherited: Targets that began with what was learned before.
        saved_at: When the last snapshot was written, in seconds since 1970; 0 for not yet.
        errors: Snapshots that could not be read or written.
        problem: Why they cannot be written now; "" if they can.
        remarks: What was found at the start and could not be used.
    """

    directory: str
    inherited: list[str]
    saved_at: float
    errors: int
    problem: str
    remarks: list[str] = []


class SettingsStatus(_Part):
    """What has become of edits of ``router.yaml``.

    Attributes:
        followed_at: Since when the settings in force are, in seconds since 1970.
        content: Fingerprint of the file's content that they are; "" where an older server does not say.
        followed: Edits that were taken while it served.
        refused: Edits that were not.
        problem: Why the file as it is now is not followed; "" if it is.
    """

    file: str
    followed_at: float
    content: str = ""
    followed: int
    refused: int
    problem: str


class SharingStatus(_Part):
    """With whom load and answers are shared.

    Attributes:
        instances: Of the routed model on this host, this one included.
        problem: Why it shares with nobody, or what went wrong; "" if nothing.
    """

    file: str
    instances: int
    problem: str


class TrialsStatus(_Part):
    """How rollouts and experiments are kept.

    Attributes:
        directory: Where; "" for nowhere.
        audit_log: The file of changes; likewise.
        writes_audit_log: Whether this instance writes it.
        errors: What could not be read or written.
        problem: Why they cannot be written or judged now; "" if they can.
        remarks: What was found and could not be used.
    """

    directory: str
    audit_log: str
    writes_audit_log: bool
    errors: int
    problem: str
    remarks: list[str] = []


class DecisionLogStatus(_Part):
    """How the decision log is written.

    Attributes:
        written, dropped: Records so far.
        problem: Why it cannot be written now; "" if it can.
    """

    file: str
    written: int
    dropped: int
    problem: str


class ComparedStatus(_Part):
    """What comparisons have found of one target.

    Attributes:
        agreed, differed, failed: How many there were of each kind; one that failed had nothing to compare.
        largest_difference: Of a floating point element, as a share of the largest magnitude in its output.
        smallest_cosine: Cosine similarity of a floating point output.
        smallest_agreement: Share of equal elements of other outputs.
        last: The latest divergence: ``at`` (seconds since 1970), ``by``, ``problem`` and ``inputs``.
        quarantined: Whether it gets no requests because of that.
        verdict: As `ParityVerdict.report` has it; None where it is compared and not guarded.
    """

    agreed: int
    differed: int
    failed: int
    largest_difference: float
    smallest_cosine: float
    smallest_agreement: float
    last: dict[str, Any] | None
    quarantined: bool
    verdict: dict[str, Any] | None


class ParityStatus(_Part):
    """How answers of targets compare.

    Attributes:
        reference: Name of the target that is right; "" for none.
        why_off: Why nothing is compared; "" where something is, or nothing could be.
        problem: What of the verdicts could not be read or written; "" for nothing.
        uncopied: Requests that were sampled and were too large to be copied.
        targets: By name.
    """

    reference: str
    why_off: str
    problem: str
    uncopied: int
    targets: dict[str, ComparedStatus]


class ModelStatus(_Part):
    """One routed model."""

    model: str
    policy: str
    targets: list[TargetStatus]
    state: StateStatus | None = None
    power: dict[str, str] = {}
    problems: dict[str, str] = {}
    settings: SettingsStatus | None = None
    # What went wrong and is under way (`Dispatcher.resilience_counts`), and the retries at hand and denied, by why.
    resilience: dict[str, int] = {}
    retries: dict[str, float] = {}
    sharing: SharingStatus | None = None
    parity: ParityStatus | None = None
    # As `Rollout.report` and `Experiment.report` have them.
    rollout: dict[str, Any] | None = None
    experiment: dict[str, Any] | None = None
    trials: TrialsStatus | None = None
    decision_log: DecisionLogStatus | None = None
