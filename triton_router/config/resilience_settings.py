"""Settings of what a routed model does on its bad days: retries, health, deadlines, hedges, and too much to do."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from triton_router.config.settings import Settings, Share

_DAY_MS = 86_400_000
_Seconds = Annotated[float, Field(gt=0, le=86_400)]


class RetryConfig(Settings):
    """When a failed attempt goes to another target.

    Attributes:
        idempotent: Whether a request may be executed more than once. If not, a target's failure is the client's, no
            request is hedged, and none is copied.
        attempts: Targets that one request tries at most, the first included.
        budget: Retries and hedges together, as a share of the requests: an outage must not double the load.
        burst: Retries that are always at hand besides, filled up again within about ten seconds.
        overdue_ms: After so long without an answer an attempt is given up and another target asked. Absent: ten times
            what was expected at worst, a second at least.
    """

    idempotent: bool = True
    attempts: Annotated[int, Field(ge=1, le=16)] = 3
    budget: Share = 0.2
    burst: Annotated[int, Field(ge=0, le=10_000)] = 10
    overdue_ms: Annotated[float, Field(gt=0, le=_DAY_MS)] | None = None


class HealthConfig(Settings):
    """When a target is left out, and how it comes back.

    Attributes:
        consecutive_failures: Failures in a row that send it out; 0 for never.
        failure_rate: Share of its recent requests that may fail before it is sent out, unless its peers fail at least
            half as often; 1 for never.
        slow_factor: Times what was expected of it from which a run of answers sends it out, unless its peers are slow
            as well; 0 for never.
        first_pause_s: How long it is out the first time; each time it fails again, twice as long.
        longest_pause_s: The longest.
        slow_start_s: How long after its return it takes to carry its full share again; 0 for at once.
        panic_share: Share of the targets that may be out before those that are out get requests again, as many as
            retries can save. Where all are out, that is ignored anyway.
        check_interval_s: Seconds between two looks at whether the targets are loaded and alive; 0 for none.
        repair: Whether a target whose process has died is loaded afresh, by ``triton-router serve`` or ``watch``.
    """

    consecutive_failures: Annotated[int, Field(ge=0, le=1000)] = 3
    failure_rate: Annotated[float, Field(gt=0, le=1)] = 0.2
    slow_factor: Annotated[float, Field(ge=0, le=1000)] = 5.0
    first_pause_s: _Seconds = 1.0
    longest_pause_s: _Seconds = 30.0
    slow_start_s: Annotated[float, Field(ge=0, le=3600)] = 5.0
    panic_share: Share = 0.5
    check_interval_s: Annotated[float, Field(ge=0, le=3600)] = 0.5
    repair: bool = True

    @model_validator(mode="after")
    def _pauses_grow(self) -> Self:
        if self.first_pause_s > self.longest_pause_s:
            raise ValueError(
                f"first_pause_s ({self.first_pause_s:g}) is longer than longest_pause_s ({self.longest_pause_s:g})"
            )
        return self


class DeadlineConfig(Settings):
    """How long a client waits at most.

    Attributes:
        enforce: Whether a request that has a bound of its own (``router_max_latency_ms`` or Triton's ``timeout``) is
            answered with an error when it has passed.
        default_ms: The bound of requests that have none; 0 for none.
    """

    enforce: bool = True
    default_ms: Annotated[float, Field(ge=0, le=_DAY_MS)] = 0.0


class HedgeConfig(Settings):
    """A second target for a request that is taking long; the first answer counts.

    Attributes:
        share: Hedges as a share of the requests; 0 for none.
        probability: A request is hedged when it takes longer than it was expected to with this probability.
    """

    share: Share = 0.0
    probability: Annotated[float, Field(ge=0.5, lt=1)] = 0.95


class QueueConfig(Settings):
    """What happens to requests while every worker, or every target, has as much to do as it may.

    Attributes:
        limit: Requests under way in the router at most; further ones are refused with UNAVAILABLE, those of the lowest
            priority first.
        reject_late: Whether a request that no target can answer within its bound, because of what is already waiting,
            is refused at once.
    """

    limit: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    reject_late: bool = True
