"""What a soak found, as figures and as tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from triton_router.testing.process_figures import ProcessFigures

_ALLOWED_GROWTH = 1.15
_ALLOWED_KB = 8 << 10
_ALLOWED_THREADS = 8
_WORKERS = 80
"""Threads of a routed model once each of its 64 workers has been needed; up to there they are no leak."""
_ALLOWED_FILES = 8
_LEAST_SAMPLES = 8


@dataclass(slots=True)
class FaultRow:
    """What clients saw of one kind of fault, all its occurrences together.

    Attributes:
        times: Occurrences.
        answered: Right answers meanwhile.
        failed: Error answers.
        missing: Questions without an answer.
        worst_ms: The longest wait for any answer.
        longest_s: From the begin until no target was left out.
    """

    times: int = 0
    answered: int = 0
    failed: int = 0
    missing: int = 0
    worst_ms: float = 0.0
    longest_s: float = 0.0

    def add(self, other: FaultRow) -> None:
        """Take another occurrence in."""
        self.times += other.times
        self.answered += other.answered
        self.failed += other.failed
        self.missing += other.missing
        self.worst_ms = max(self.worst_ms, other.worst_ms)
        self.longest_s = max(self.longest_s, other.longest_s)


@dataclass(slots=True)
class Sample:
    """What one routed model's process held at one moment, in seconds since the begin."""

    at_s: float
    model: str
    pid: int
    figures: ProcessFigures


@dataclass(slots=True)
class Report:
    """What a soak found; ``problems`` is empty if all is well."""

    seconds: float = 0.0
    asked: int = 0
    answered: int = 0
    failed: int = 0
    missing: int = 0
    wrong: int = 0
    unaccounted: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    in_flight: dict[str, int] = field(default_factory=dict[str, int])
    failures: dict[str, int] = field(default_factory=dict[str, int])
    faults: dict[str, FaultRow] = field(default_factory=dict[str, FaultRow])
    samples: list[Sample] = field(default_factory=list[Sample])
    problems: list[str] = field(default_factory=list[str])


def growth(samples: list[Sample], model: str, since_s: float) -> list[str]:
    """Return in what respects a model's process holds more at the end than a third of the way after ``since_s``."""
    mine = [one for one in samples if one.model == model and one.at_s > since_s]
    mine = [one for one in mine if one.pid == mine[-1].pid]
    if len(mine) < _LEAST_SAMPLES:
        return []
    first, last = mine[len(mine) // 3].figures, mine[-1].figures
    found: list[str] = []
    if last.private_kb > first.private_kb * _ALLOWED_GROWTH + _ALLOWED_KB:
        found.append(f"{model}: private memory grew from {first.private_kb} to {last.private_kb} kB")
    if last.threads > max(first.threads, _WORKERS) + _ALLOWED_THREADS:
        found.append(f"{model}: threads grew from {first.threads} to {last.threads}")
    if last.files > first.files + _ALLOWED_FILES:
        found.append(f"{model}: open files grew from {first.files} to {last.files}")
    return found


def print_markdown(report: Report) -> None:
    """Print what a soak found."""
    print(
        f"{report.seconds:.0f} s: {report.asked} asked, {report.answered} answered, {report.failed} failed, "
        f"{report.missing} missing, {report.wrong} wrong, {report.unaccounted} without an end; "
        f"p50 {report.p50_ms:.1f} ms, p99 {report.p99_ms:.1f} ms; in flight at the end {report.in_flight}"
    )
    print("\n| fault | times | answers | failed | missing | worst ms | longest until all is well, s |")
    print("|---|---|---|---|---|---|---|")
    for name, row in sorted(report.faults.items()):
        print(
            f"| {name} | {row.times} | {row.answered} | {row.failed} | {row.missing} | {row.worst_ms:.0f} "
            f"| {row.longest_s:.1f} |"
        )
    print("\n| s | model | process | RSS MB | private MB | /dev/shm MB | threads | files |")
    print("|---|---|---|---|---|---|---|---|")
    for one in report.samples:
        held = one.figures
        print(
            f"| {one.at_s:.0f} | {one.model} | {one.pid} | {held.resident_kb / 1024:.0f} "
            f"| {held.private_kb / 1024:.0f} | {held.shared_kb / 1024:.0f} | {held.threads} | {held.files} |"
        )
    for message, count in sorted(report.failures.items(), key=lambda item: -item[1])[:10]:
        print(f"failure x {count}: {message}")
    for problem in report.problems:
        print(f"PROBLEM: {problem}")
