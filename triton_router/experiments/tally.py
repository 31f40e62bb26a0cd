"""What is known of one arm of an experiment: counts and sums, which add up over instances and restarts."""

from __future__ import annotations

from math import exp, log
from typing import TYPE_CHECKING

from triton_router.experiments.means import Moments
from triton_router.profiling.validation import count, number, row
from triton_router.routing.types import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

CLIP = 4.0
"""Bound of a log ratio, either way: 55 times the yardstick. An answer that took a minute is one slow answer, not the
mean; and the bound is far enough away that a yardstick that is ten times off leaves differences what they are."""
_LONGEST_MS = 1e9
_LARGE = 1e18
_SUCCESS = Verdict.SUCCESS
_TARGET_ERROR = Verdict.TARGET_ERROR
_CLIENT_ERROR = Verdict.CLIENT_ERROR
_FIELDS = 10


class Tally:
    """One arm's requests: a witness of the decisions that belong to it.

    Attributes:
        label: ``experiment/arm``, for the decision log.
        answers: Requests that succeeded or failed by the target's fault.
        failures: The latter.
        refused: Requests that were at fault themselves: neither counted for the arm nor against it.
        cancelled: Requests that their clients gave up.
        measured: Answers with a log ratio.
        ratios: Sum of the log ratios, clipped.
        ratio_squares: Sum of their squares.
        timed: Answers with a latency.
        logs: Sum of the logarithms of the latencies in milliseconds.
        log_squares: Sum of their squares.
    """

    __slots__ = (
        "answers", "cancelled", "failures", "label", "log_squares", "logs", "measured", "ratio_squares", "ratios",
        "refused", "timed",
    )  # fmt: skip

    def __init__(self, label: str = "") -> None:
        self.label = label
        self.answers = self.failures = self.refused = self.cancelled = self.measured = self.timed = 0
        self.ratios = self.ratio_squares = self.logs = self.log_squares = 0.0

    def note(self, verdict: Verdict, latency_ms: float, log_ratio: float) -> None:
        """Count one outcome. It runs for each request, under the engine's lock.

        Args:
            verdict: How it ended.
            latency_ms: From decision to answer.
            log_ratio: Logarithm of the latency as a multiple of what the request's shape leads to expect; NaN where
                nothing does.
        """
        if verdict is _SUCCESS:
            self.answers += 1
            if 0.0 < latency_ms < _LONGEST_MS:
                value = log(latency_ms)
                self.timed += 1
                self.logs += value
                self.log_squares += value * value
            if not -CLIP < log_ratio < CLIP:
                if log_ratio != log_ratio:  # noqa: PLR0124 - NaN, without a call
                    return
                log_ratio = CLIP if log_ratio > 0.0 else -CLIP
            self.measured += 1
            self.ratios += log_ratio
            self.ratio_squares += log_ratio * log_ratio
        elif verdict is _TARGET_ERROR:
            self.answers += 1
            self.failures += 1
        elif verdict is _CLIENT_ERROR:
            self.refused += 1
        else:
            self.cancelled += 1

    @property
    def seen(self) -> int:
        """All requests that ended."""
        return self.answers + self.refused + self.cancelled

    @property
    def ratio_moments(self) -> Moments:
        """Of the log ratios."""
        return Moments(self.measured, self.ratios, self.ratio_squares)

    @property
    def log_moments(self) -> Moments:
        """Of the logarithms of the latencies."""
        return Moments(self.timed, self.logs, self.log_squares)

    @property
    def latency_ms(self) -> float | None:
        """Geometric mean of the latencies; None without any."""
        return exp(self.logs / self.timed) if self.timed else None

    @property
    def failure_share(self) -> float | None:
        """Share of the answers that failed; None without any."""
        return self.failures / self.answers if self.answers else None

    def add(self, other: Tally) -> None:
        """Count in what another one knows."""
        self.answers += other.answers
        self.failures += other.failures
        self.refused += other.refused
        self.cancelled += other.cancelled
        self.measured += other.measured
        self.ratios += other.ratios
        self.ratio_squares += other.ratio_squares
        self.timed += other.timed
        self.logs += other.logs
        self.log_squares += other.log_squares

    def report(self) -> dict[str, object]:
        """Return it for people, as plain data; None is a figure that cannot be given."""
        latency, share = self.latency_ms, self.failure_share
        return {
            "answers": self.answers,
            "failures": self.failures,
            "failure_share": None if share is None else round(share, 6),
            "latency_ms": None if latency is None else round(latency, 4),
            "measured": self.measured,
            "refused": self.refused,
            "cancelled": self.cancelled,
        }

    def state(self) -> list[float]:
        """Return it as plain data."""
        return [
            self.answers, self.failures, self.refused, self.cancelled,
            self.measured, self.ratios, self.ratio_squares,
            self.timed, self.logs, self.log_squares,
        ]  # fmt: skip

    @classmethod
    def from_state(cls, value: object, label: str = "") -> Tally:
        """Return the tally of a state.

        Raises:
            ValueError: It is none, or its figures cannot be those of one arm.
        """
        tally = cls(label)
        values = row(value, _WHERE, _FIELDS)
        tally.answers, tally.failures, tally.refused, tally.cancelled = (count(one, _WHERE) for one in values[:4])
        tally.measured, tally.ratios, tally.ratio_squares = _moments(values[4:7], CLIP)
        tally.timed, tally.logs, tally.log_squares = _moments(values[7:], 50.0)
        if tally.failures + max(tally.measured, tally.timed) > tally.answers:
            raise ValueError(f"{_WHERE} has more outcomes than answers")
        return tally


_WHERE = "an arm's tally"


def total(tallies: Iterable[Tally], label: str = "") -> Tally:
    """Return the sum of tallies."""
    result = Tally(label)
    for tally in tallies:
        result.add(tally)
    return result


def _moments(values: list[object], largest: float) -> tuple[int, float, float]:
    """Return count, sum and sum of squares of figures that are not larger than ``largest``, if there can be such."""
    size = count(values[0], _WHERE)
    sum_ = number(values[1], _WHERE, -_LARGE, _LARGE)
    squares = number(values[2], _WHERE, 0.0, _LARGE)
    slack = 1e-6 * (size + squares)
    if sum_ * sum_ > size * squares + slack * (1.0 + size) or squares > size * largest**2 + slack:
        raise ValueError(f"{_WHERE} has sums that no figures have")
    return size, sum_, squares
