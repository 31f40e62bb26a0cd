"""What holds on bad days: how often a request is tried, when a target is left out, and how much it may carry."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class HealthRules:
    """When a target is left out, and how it comes back.

    Attributes:
        consecutive_failures: Failures in a row that send it out; 0 for never.
        failure_rate: Share of its recent outcomes that may be failures, 0 to 1; 1 for any.
        slow_factor: Times what was expected from which a run of answers sends it out; 0 for never.
        first_pause_s: How long it is out the first time, in seconds.
        longest_pause_s: The longest, in seconds.
        slow_start_s: Seconds that it takes after its return to carry its full share again; 0 for none.
        panic_share: Share of the targets, 0 to 1, that may be out before those that are out get requests again.
    """

    consecutive_failures: int = 3
    failure_rate: float = 0.2
    slow_factor: float = 5.0
    first_pause_s: float = 1.0
    longest_pause_s: float = 30.0
    slow_start_s: float = 5.0
    panic_share: float = 0.5


@dataclass(frozen=True, slots=True)
class Resilience:
    """What one routed model does on its bad days.

    Attributes:
        idempotent: Whether a request may be executed more than once.
        attempts: Targets that one request tries at most, the first and hedges included.
        retry_share: Retries and hedges together, as a share of the requests.
        retry_burst: Retries at hand besides.
        overdue_ms: After how long an attempt is given up; 0 for a bound that follows from what was expected.
        hedge_share: Hedges as a share of the requests; 0 for none.
        hedge_probability: A request is hedged when it takes longer than expected with this probability.
        health: When a target is left out.
        caps: Requests in flight at a target at most, by its name; no bound for those not named.
    """

    idempotent: bool = True
    attempts: int = 3
    retry_share: float = 0.2
    retry_burst: int = 10
    overdue_ms: float = 0.0
    hedge_share: float = 0.0
    hedge_probability: float = 0.95
    health: HealthRules = field(default_factory=HealthRules)
    caps: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def hedges(self) -> bool:
        """Whether any request is hedged."""
        return self.idempotent and self.hedge_share > 0.0 and self.attempts > 1
