"""Settings of what changes while clients are served: rollouts, shadows, and the comparison of answers."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from triton_router.config.settings import Settings, Share

_Id = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$")]
_TargetName = Annotated[str, Field(min_length=1, max_length=255)]
_TargetNames = Annotated[tuple[_TargetName, ...], Field(max_length=256, strict=False)]
Percent = Annotated[float, Field(ge=0, le=100)]


class Outcome(StrEnum):
    """How an operator has decided that a rollout ends."""

    PROMOTE = "promote"
    ABORT = "abort"


class GateConfig(Settings):
    """What a canary has to stand at every step. All tests may look at any time; together they keep ``false_alarms``.

    Attributes:
        min_requests: Answers of either arm that each step needs before the next.
        max_error_factor: How many times as often as stable it may fail.
        max_latency_increase: By what share it may take longer than stable for the same work: 0.1 for a tenth.
        max_mismatch: Share of its answers that may differ from stable's by more than the tolerance of ``parity``; 1
            where it is meant to answer differently, and its answers are not compared.
        false_alarms: Probability with which a canary as good as stable is ever rolled back, over the whole rollout.
        rollback: Whether a canary that fails is rolled back; if not, that is only reported.
    """

    min_requests: Annotated[int, Field(ge=1, le=1_000_000_000)] = 50
    max_error_factor: Annotated[float, Field(ge=1, le=1000)] = 1.5
    max_latency_increase: Annotated[float, Field(ge=0, le=100)] = 0.1
    max_mismatch: Share = 0.01
    false_alarms: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    rollback: bool = True


class RolloutConfig(Settings):
    """A canary: some targets get a share of the requests that grows while they do well.

    Attributes:
        id: Names it: another id begins anew, with other callers first.
        canary: Names of the targets that are new; all others, but for a shadow, are stable.
        steps: Percent of the requests that they get, one after the other; the last is usually 100, and
            2 less until it has been stood.
        hold_s: Seconds for which each step lasts at least.
        weight: Percent by hand, in place of the steps.
        paused: Whether the share stays what it is; the gate still watches.
        outcome: ``promote`` (all requests) or ``abort`` (none), decided by hand.
        by: Who wrote this, for the audit log.
        gate: What the canary has to stand.
    """

    id: _Id
    canary: Annotated[_TargetNames, Field(min_length=1)]
    steps: Annotated[tuple[Percent, ...], Field(min_length=1, max_length=100, strict=False)] = (1, 5, 25, 50, 100)
    hold_s: Annotated[float, Field(ge=0, le=31_536_000)] = 600.0
    weight: Percent | None = None
    paused: bool = False
    outcome: Annotated[Outcome | None, Field(strict=False)] = None
    by: Annotated[str, Field(max_length=256)] = ""
    gate: GateConfig = GateConfig()

    @model_validator(mode="after")
    def _steps_rise(self) -> Self:
        if any(later <= earlier for earlier, later in zip(self.steps, self.steps[1:], strict=False)):
            raise ValueError("steps must rise: each percentage above the one before it")
        if self.weight is not None and "steps" in self.model_fields_set:
            raise ValueError("weight and steps both say how many requests the canary gets; write one of them")
        return self


class ShadowConfig(Settings):
    """A target that gets copies of requests and never a client's own.

    Attributes:
        target: Its name among the targets.
        share: Share of the requests that are copied, as far as the budget allows.
        budget: Time that copies may take, as a share of the time spent serving.
        compare: Whether its answers are compared with those that clients got, by the tolerance of ``parity``.
    """

    target: _TargetName
    share: Share = 0.05
    budget: Annotated[float, Field(gt=0, le=1)] = 0.1
    compare: bool = True


class ToleranceConfig(Settings):
    """How far an answer may be from the reference's; what is absent is as the variant's precision allows.

    Attributes:
        relative: Largest difference of floating point elements, as a share of the largest magnitude in the reference's
            output.
        cosine: Smallest cosine similarity of a floating point output.
        agreement: Smallest share of equal elements of integer, boolean and string outputs.
        argmax: Names of the outputs of which only the position of each row's largest element counts.
        ignore: Names of the outputs that are not compared.
    """

    relative: Annotated[float, Field(ge=0, le=1e12)] | None = None
    cosine: Annotated[float, Field(ge=-1, le=1)] | None = None
    agreement: Share | None = None
    argmax: Annotated[tuple[str, ...], Field(max_length=256, strict=False)] = ()
    ignore: Annotated[tuple[str, ...], Field(max_length=256, strict=False)] = ()


class ParityConfig(Settings):
    """The parity guard: now and then a variant's answer is compared with the reference variant's, off the path.

    Attributes:
        share: Share of the requests answered by a guarded target, or by the reference, that are compared.
        budget: Time that comparisons may take, as a share of the time spent serving.
        reference: Name of the target that is right; absent, the first whose variant is not quantised.
        targets: Names of the guarded targets; absent, those whose variant is quantised or runs on another kind of
            device than the reference, and the canary of a rollout.
        tolerance: How far an answer may be off.
        max_mismatch: Share of a target's answers that may be further off before it is quarantined.
        false_alarms: Probability with which a target within that is ever quarantined.
        quarantine: Whether a diverging target is left out until its answers agree again; if not, it is only reported.
        keep_inputs: Whether the inputs of a diverging request are written to the state directory: clients' data.
    """

    share: Share = 0.002
    budget: Annotated[float, Field(gt=0, le=1)] = 0.02
    reference: _TargetName | None = None
    targets: _TargetNames | None = None
    tolerance: ToleranceConfig = ToleranceConfig()
    max_mismatch: Share = 0.01
    false_alarms: Annotated[float, Field(gt=0, le=0.5)] = 0.001
    quarantine: bool = True
    keep_inputs: bool = False
