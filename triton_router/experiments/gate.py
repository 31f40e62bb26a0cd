"""The gate of a rollout: four tests of whether the canary is worse than it may be, at any time and share.

| test | null hypothesis | by |
|---|---|---|
| errors | it fails at most ``max_error_factor`` times as often as stable | `odds_since`: exact |
| errors at full share | the same, against the most that stable's failure rate was at lower shares | `share_since` |
| latency | it takes at most ``max_latency_increase`` longer for the same work | `mean_since`: asymptotic |
| mismatches | at most ``max_mismatch`` of its answers differ from stable's | `share_since`: exact |

``false_alarms`` is split evenly over the four (three where answers are not compared): a test alarms where its e-value
reaches 4 / false_alarms. Steps never come to the full share before they are over (see `HOLD_BACK`): both arms are seen
at the same time. Only where somebody sets a share of 100% by hand does stable get nothing. Then failures are compared
with its past, and latencies not at all: what else a machine does makes everybody slower or faster with time.

What the tests take for granted: that requests are assigned one by one. A caller whose requests stay together is one
throw of the dice, so a few large callers make false alarms more frequent; see `Stratum.exposure`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf, log, log1p
from typing import TYPE_CHECKING, NamedTuple

from triton_router.experiments import means, sequential
from triton_router.experiments.means import LEAST_MEASURED
from triton_router.experiments.sequential import e_value, over_starts, share_interval
from triton_router.experiments.tally import total

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triton_router.experiments.strata import Strata, Stratum
    from triton_router.experiments.tally import Tally

GATE_TESTS = ("errors", "errors_at_full", "latency", "mismatches")

_NOT_FULL = "stable gets requests: judged by what it answers at the same time"


@dataclass(frozen=True, slots=True)
class Gate:
    """What a canary has to stand.

    Attributes:
        min_requests: Answers of either arm that each step needs before the next.
        max_error_factor: How many times as often as stable it may fail, 1 or more.
        max_latency_increase: By what share it may take longer than stable for the same work.
        max_mismatch: Share of its answers that may differ from stable's; 1 where they are not compared.
        false_alarms: Probability with which a canary as good as stable is ever rolled back.
        rollback: Whether a canary that fails is rolled back; if not, that is only reported.
    """

    min_requests: int = 50
    max_error_factor: float = 1.5
    max_latency_increase: float = 0.1
    max_mismatch: float = 0.01
    false_alarms: float = 0.05
    rollback: bool = True


class Finding(NamedTuple):
    """What one test has come to.

    Attributes:
        name: Of the test.
        log_e: Logarithm of the evidence against the canary.
        bound: From which e-value on it alarms.
        text: The figures behind it, in words.
    """

    name: str
    log_e: float
    bound: float
    text: str

    @property
    def is_alarm(self) -> bool:
        """Whether the canary is worse than it may be."""
        return self.log_e >= log(self.bound)

    @property
    def is_doubtful(self) -> bool:
        """Whether half of what an alarm takes is there: no reason to go back, and none to go on."""
        return self.log_e >= 0.5 * log(self.bound)

    def report(self) -> dict[str, object]:
        """Return it as plain data."""
        return {
            "name": self.name,
            "e_value": float(f"{e_value(self.log_e):.4g}"),
            "bound": float(f"{self.bound:.4g}"),
            "alarm": self.is_alarm,
            "text": self.text,
        }

    def reason(self) -> str:
        """Return why it alarms."""
        return f"{self.text}: e-value {e_value(self.log_e):.2g} against the bound {self.bound:.4g}"


def judge(strata: Strata, gate: Gate) -> list[Finding]:
    """Return what each test makes of the evidence."""
    judging = _Judging(strata, gate)
    findings = [judging.errors(), judging.errors_at_full(), judging.latency()]
    return findings if gate.max_mismatch >= 1.0 else [*findings, judging.mismatches()]


class _Judging:
    def __init__(self, strata: Strata, gate: Gate) -> None:
        rows = strata.all()
        self._gate = gate
        self._forgotten = strata.forgotten
        self._rows = rows
        self._clumping = strata.clumping
        self._split = [row for row in rows if row.share < 1.0]
        self._full = [row for row in rows if row.share >= 1.0]
        self._stable = total(row.stable for row in rows)
        self._bound = (3.0 if gate.max_mismatch >= 1.0 else 4.0) / gate.false_alarms

    def errors(self) -> Finding:
        rows = [(row.exposure, row.canary.failures, row.stable.failures) for row in self._split]
        since = sequential.odds_since(rows, self._gate.max_error_factor)
        text = _failures_text(total(row.canary for row in self._split), self._stable)
        return self._finding("errors", since, text)

    def errors_at_full(self) -> Finding:
        if not self._full:
            return self._finding("errors_at_full", (), _NOT_FULL)
        stable, full = self._stable, total(row.canary for row in self._full)
        # Half of the test's false alarms are spent on how often stable failed.
        _, most = share_interval(stable.failures, stable.answers, 0.5 / self._bound)
        allowed = min(1.0, most * self._gate.max_error_factor)
        since = sequential.share_since([(row.canary.failures, row.canary.answers) for row in self._full], allowed)
        text = f"{_failures_text(full, stable)}, which allows {allowed:.1%}"
        return self._finding("errors_at_full", since, text, 2.0 * self._bound)

    def latency(self) -> Finding:
        rows = [(row.canary.ratio_moments, row.stable.ratio_moments) for row in self._split]
        clumping = self._clumping.ratio(*means.variances(rows))
        since = means.mean_since(rows, log1p(self._gate.max_latency_increase), clumping)
        return self._finding("latency", since, _latency_text(self._split) + _clumps(clumping))

    def mismatches(self) -> Finding:
        since = sequential.share_since([(row.diverged, row.compared) for row in self._rows], self._gate.max_mismatch)
        diverged, compared = sum(row.diverged for row in self._rows), sum(row.compared for row in self._rows)
        text = f"{_of(diverged, compared)} of the canary's answers that were compared differ from stable's"
        return self._finding("mismatches", since, text)

    def _finding(self, name: str, since: Sequence[float], text: str, bound: float | None = None) -> Finding:
        return Finding(name, over_starts(since, self._forgotten), bound or self._bound, text)


def _failures_text(canary: Tally, stable: Tally) -> str:
    return f"canary failed {_of(canary.failures, canary.answers)}, stable {_of(stable.failures, stable.answers)}"


def _of(hits: int, trials: int) -> str:
    return f"{hits:,} of {trials:,} ({hits / trials:.2%})" if trials else "0 of 0"


def _latency_text(rows: Sequence[Stratum]) -> str:
    difference = means.mean_difference([(row.canary.ratio_moments, row.stable.ratio_moments) for row in rows])
    canaries, stables = sum(row.canary.measured for row in rows), sum(row.stable.measured for row in rows)
    return _means_text(difference.value if difference else 0.0, canaries, stables)


def _means_text(difference: float, canaries: float, stables: float) -> str:
    if min(canaries, stables) < LEAST_MEASURED:
        return (
            f"too few latencies to judge: {canaries:,.0f} of the canary and {stables:,.0f} of stable, "
            f"where {LEAST_MEASURED} of each are needed"
        )
    change = exp(difference) - 1.0
    return (
        f"canary takes {abs(change):.1%} {'longer' if change >= 0.0 else 'less'} than stable for the same work "
        f"({canaries:,.0f} against {stables:,.0f} latencies)"
    )


def _clumps(clumping: float) -> str:
    return f", whose means vary {clumping:.1f} times as much as independent ones" if 1.5 < clumping < inf else ""
