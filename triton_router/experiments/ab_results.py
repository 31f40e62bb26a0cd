"""What an A/B test of two policies has shown so far: as true now as at any other time that somebody looks.

Intervals and p-values are *anytime-valid*: they hold at all times at once, so nobody has to fix a sample size before
looking (`sequential` has the formulas and their sources). Arms are compared within strata of the same fraction and day,
by the geometric mean of latencies, because a mean of milliseconds is the mean of the slowest few; and relative to what
a request's shape leads to expect, so that an arm which got the long texts is not the slow one. Those of 36 days count.
"""

from __future__ import annotations

from math import exp, expm1
from typing import TYPE_CHECKING, NamedTuple

from triton_router.experiments.means import (
    LEAST_MEASURED,
    Moments,
    mean_difference,
    mean_interval,
    two_sided,
    variances,
)
from triton_router.experiments.sequential import odds_two_sided, ratio_mismatch, share_interval
from triton_router.experiments.split import Arm, Assignment
from triton_router.experiments.strata import Strata
from triton_router.profiling.validation import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triton_router.experiments.split import Split
    from triton_router.experiments.strata import Stratum
    from triton_router.experiments.tally import Tally

CONFIDENCE = 0.95
"""With which each interval holds at all times."""
_LEVEL = 1.0 - CONFIDENCE
_SUSPECT = 0.001
"""p-value below which the numbers of requests do not fit the fraction."""
_EPOCH_S = 86_400.0
_ARMS = (Arm.TREATMENT.value, Arm.CONTROL.value)
_MOST_PEERS = 1024


class Experiment:
    """One A/B test on one instance. The caller holds a lock.

    Args:
        split: Who gets which policy.

    Attributes:
        split: Likewise.
        treatment: Witness of those requests with treatment that are decided now; later it is another one.
        control: Likewise of the others.
    """

    def __init__(self, split: Split) -> None:
        self.split = split
        self._epoch = 0
        self._began_at = 0.0
        self._strata = Strata(split.experiment_id, _ARMS)
        self._open()

    @property
    def strata(self) -> Strata:
        """What was seen here."""
        return self._strata

    def witness_of(self, arm: Arm) -> Tally:
        """Return the witness of an arm's requests that are decided now."""
        return self.treatment if arm is Arm.TREATMENT else self.control

    def tick(self, now: float) -> None:
        """Note the time: wall clock, seconds; about once a second."""
        self._strata.look(self._stratum)
        self._began_at = self._began_at or now
        epoch = int(max(0.0, now) // _EPOCH_S)
        if epoch != self._epoch:
            self._epoch = epoch
            self._open()

    def follow(self, split: Split) -> None:
        """Go on with another fraction; with other policies, or another id, begin anew."""
        is_same = _names(split) == _names(self.split) and split.experiment_id == self.split.experiment_id
        self.split = split
        if not is_same:
            self._began_at = 0.0
            self._strata = Strata(split.experiment_id, _ARMS)
        self._open()

    def report(self, now: float, peers: Sequence[object] = ()) -> dict[str, object]:
        """Return what is known, as plain data. None is a figure that cannot be given yet.

        Args:
            now: Wall clock, seconds.
            peers: `evidence` of other instances; that of another experiment, or of none, is left out.
        """
        strata = self._strata.plus([heard for heard in map(self._heard, peers[:_MOST_PEERS]) if heard is not None])
        rows = strata.all()
        treatment, control = strata.canary(), strata.stable()
        latency = _latency(strata, treatment, control)
        failures = _failures(rows, treatment, control)
        ratio = _sample_ratio(rows)
        return {
            "experiment_id": self.split.experiment_id,
            "fraction": self.split.fraction,
            "assignment": self.split.assignment.value,
            "policies": dict(zip(_ARMS, _names(self.split), strict=True)),
            "since": self._began_at or None,
            "for_s": max(0.0, round(now - self._began_at, 1)) if self._began_at else None,
            "confidence": CONFIDENCE,
            "arms": {"control": _arm(control), "treatment": _arm(treatment)},
            "latency": latency.report(),
            "failures": failures.report(),
            "sample_ratio": ratio,
            "verdict": self._verdict(latency, failures, ratio),
        }

    def copy(self) -> Experiment:
        """Return it as it is now, to be reported while it goes on: a report takes milliseconds."""
        copy = Experiment(self.split)
        copy._began_at = self._began_at
        copy._strata = self._strata.plus([Strata()])
        return copy

    def evidence(self) -> dict[str, object]:
        """Return what other instances need to know: it adds up."""
        return {
            "id": self.split.experiment_id,
            "policies": list(_names(self.split)),
            "began_at": self._began_at,
            "strata": self._strata.state(),
        }

    def state(self) -> dict[str, object]:
        """Return it as plain data, for a restart."""
        return self.evidence()

    @classmethod
    def from_state(cls, split: Split, state: object) -> Experiment:
        """Return the experiment of a state; what was seen of other policies is left out.

        Raises:
            ValueError: The state is another experiment's, or none at all.
        """
        experiment = cls(split)
        values = State(state, "an experiment")
        if values.text("id") != split.experiment_id:
            raise ValueError(f"an experiment other than {split.experiment_id!r}")
        strata = Strata.from_state(values.part("strata"), split.experiment_id, _ARMS)
        began_at = values.number("began_at", 0.0, 1e12)
        if values.rows("policies") == list(_names(split)):
            experiment._strata, experiment._began_at = strata, began_at
            experiment._open()
        return experiment

    def _open(self) -> None:
        self._stratum = stratum = self._strata.at(self.split.fraction, self._epoch)
        self.treatment, self.control = stratum.canary, stratum.stable

    def _heard(self, peer: object) -> Strata | None:
        try:
            heard = Experiment.from_state(self.split, peer)
        except ValueError:
            return None
        return heard.strata

    def _verdict(self, latency: _Comparison, failures: _Comparison, ratio: dict[str, object]) -> str:
        if self.split.assignment is Assignment.MODEL:
            return "models are assigned as a whole: compare routed models of both arms with each other, not requests"
        if ratio["is_suspect"]:
            return (
                f"do not trust this: {ratio['observed']:.2%} of the requests were treatment's where "
                f"{ratio['expected']:.2%} were meant to be; a few callers with very many requests look like this, "
                "and so do requests that one arm loses"
            )
        return f"{_latency_words(latency)}; {_failure_words(failures)}"


def _names(split: Split) -> tuple[str, str]:
    return split.treatment.name, split.control.name


def _arm(tally: Tally) -> dict[str, object]:
    interval = mean_interval(tally.log_moments, _LEVEL)
    low, high = share_interval(tally.failures, tally.answers, _LEVEL)
    return {
        **tally.report(),
        "latency_interval_ms": None if interval is None else [_rounded(exp(bound)) for bound in interval],
        "failure_interval": [_rounded(low), _rounded(high)] if tally.answers else None,
    }


class _Comparison(NamedTuple):
    """One figure of treatment beside control's; None where there are too few requests to say.

    Attributes:
        key: What the difference is called.
        difference: Above 0 where treatment's is larger.
        interval: Bounds of it.
        p_value: Against no difference.
        basis: What is compared.
    """

    key: str
    difference: float | None
    interval: tuple[float, float] | None
    p_value: float | None
    basis: str

    @property
    def is_found(self) -> bool:
        """Whether there is a difference: the two that are looked for share the level."""
        return self.p_value is not None and self.p_value < _LEVEL / 2

    def report(self) -> dict[str, object]:
        """Return it as plain data."""
        return {
            self.key: self.difference,
            "interval": None if self.interval is None else list(self.interval),
            "p_value": self.p_value,
            "basis": self.basis,
        }


def _latency(strata: Strata, treatment: Tally, control: Tally) -> _Comparison:
    """Return by what share treatment takes longer than control."""
    # Without yardsticks for most requests, milliseconds are compared as they are.
    is_relative = 2 * (treatment.measured + control.measured) >= treatment.timed + control.timed
    pairs = [_moments(row, is_relative=is_relative) for row in strata.all()]
    difference = mean_difference(pairs)
    fewest = min(sum(one.size for one, _ in pairs), sum(other.size for _, other in pairs))
    basis = "relative to what a request's shape leads to expect" if is_relative else "milliseconds as measured"
    if difference is None or fewest < LEAST_MEASURED:
        return _Comparison("change", None, None, None, basis)
    difference = difference.clumped(strata.clumping.ratio(*variances(pairs)))
    low, high = difference.interval(_LEVEL)
    p_value = _p_value(two_sided(difference.z(), difference.pairs))
    interval = _rounded(expm1(low)), _rounded(expm1(high))
    return _Comparison("change", _rounded(expm1(difference.value)), interval, p_value, basis)


def _moments(row: Stratum, *, is_relative: bool) -> tuple[Moments, Moments]:
    if is_relative:
        return row.canary.ratio_moments, row.stable.ratio_moments
    return row.canary.log_moments, row.stable.log_moments


def _failures(rows: Sequence[Stratum], treatment: Tally, control: Tally) -> _Comparison:
    """Return by how much more often treatment fails than control, as a difference of shares."""
    one, other = treatment.failure_share, control.failure_share
    basis = "share of answers that failed by the target's fault"
    if one is None or other is None:
        return _Comparison("difference", None, None, None, basis)
    # Both hold together at the confidence of the result.
    low, high = share_interval(treatment.failures, treatment.answers, _LEVEL / 2)
    other_low, other_high = share_interval(control.failures, control.answers, _LEVEL / 2)
    log_e = odds_two_sided([(row.share, row.canary.failures, row.stable.failures) for row in rows])
    interval = _rounded(low - other_high), _rounded(high - other_low)
    return _Comparison("difference", _rounded(one - other), interval, _p_value(log_e), basis)


def _latency_words(latency: _Comparison) -> str:
    if latency.difference is None or latency.interval is None:
        return f"too early for latencies, of which each arm needs {LEAST_MEASURED}"
    low, high = latency.interval
    share = f"{abs(latency.difference):.1%} {'slower' if latency.difference >= 0.0 else 'faster'}"
    bounds = f"({low:+.1%} to {high:+.1%} of control's latency)"
    if latency.is_found:
        return f"treatment is {share} {bounds}"
    return f"no difference in latency found so far: treatment looks {share} {bounds}"


def _failure_words(failures: _Comparison) -> str:
    if failures.difference is None:
        return "too early for failures: an arm has no answers"
    if failures.is_found:
        more = "more" if failures.difference > 0.0 else "less"
        return f"treatment fails {more} often, by {abs(failures.difference):.2%} of the answers"
    return "no difference in failures found so far"


def _sample_ratio(rows: Sequence[Stratum]) -> dict[str, object]:
    """Return whether as many requests came to each arm as the fraction says."""
    counts = [(row.share, row.canary.seen, row.stable.seen) for row in rows]
    treated, control = sum(row[1] for row in counts), sum(row[2] for row in counts)
    if not treated + control:
        return {"expected": None, "observed": None, "p_value": None, "is_suspect": False}
    p_value = _p_value(ratio_mismatch(counts))
    return {
        "expected": _rounded(sum(share * (one + other) for share, one, other in counts) / (treated + control)),
        "observed": _rounded(treated / (treated + control)),
        "p_value": p_value,
        "is_suspect": p_value < _SUSPECT,
    }


def _p_value(log_e: float) -> float:
    """Return the p-value that holds at all times: 1 / e."""
    return min(1.0, float(f"{exp(-max(0.0, log_e)):.3g}"))


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")
