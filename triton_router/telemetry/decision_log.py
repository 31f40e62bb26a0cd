"""Writes decisions and outcomes to a file, off the request's way.

The request's way appends one tuple to a bounded queue and goes on; one thread formats and writes. A full queue drops
the newest and counts it. Where the file cannot be written serving goes on: it is said once, tried again, and what was
lost meanwhile is counted and said too.
"""

from __future__ import annotations

import time
from collections import deque
from itertools import count
from math import modf
from pathlib import Path
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, NamedTuple

from triton_router.profiling.figures import Source
from triton_router.telemetry.decision_format import TargetEntry, decision_line, start_line
from triton_router.telemetry.log_file import LogFile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from triton_router.config.router_config import RouterConfig, TargetConfig
    from triton_router.routing.types import Outcome, RoutingDecision

QUEUE = 10_000
"""Most records that wait to be written."""
_INTERVAL_S = 0.2
_RETRY_S = 5.0
_TOGETHER = 500
"""Records in one write: the interpreter is held for some milliseconds at most."""
_CLOSE_S = 5.0
"""A disk that hangs keeps no server from ending."""
_GOLDEN = 0.6180339887498949
"""Multiples of it, modulo 1, are spread evenly whatever period the traffic has."""
_MEGABYTE = 1_000_000


class LogCounts(NamedTuple):
    """What became of the records so far."""

    written: int
    dropped: int


class DecisionLog:
    """The log of one routed model.

    Args:
        file: Where to write; the first line of its files is `start_line`.
        model: Name of the routed model.
        warn: Says a line in the server's log.
        sample: Share of the decisions to write, 0 to 1.
    """

    def __init__(self, file: LogFile, model: str, warn: Callable[[str], None], *, sample: float = 1.0) -> None:
        self._file = file
        self._model = model
        self._warn = warn
        self._sample = sample
        self._number = count()
        self._queue: deque[tuple[RoutingDecision, Outcome, float]] = deque()
        self._lock = Lock()
        self._dropped = 0
        self._written = 0
        self._said = False
        self._said_dropped = 0
        self._retry_at = 0.0
        self._closing = Event()
        self._thread = Thread(target=self._run, name="decision log", daemon=True)

    def start(self) -> None:
        """Begin writing."""
        self._thread.start()

    def close(self) -> None:
        """Write what waits, and stop."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(_CLOSE_S)

    def observe(self, decision: RoutingDecision, outcome: Outcome, now: float) -> None:
        """Note how a decision ended at ``now`` (monotonic seconds). Takes no lock and touches no file."""
        if self._sample < 1.0 and modf(next(self._number) * _GOLDEN)[0] >= self._sample:
            return
        if len(self._queue) >= QUEUE:
            self._lose(1)
            return
        self._queue.append((decision, outcome, now))

    @property
    def counts(self) -> LogCounts:
        """Records written and dropped since the start."""
        return LogCounts(self._written, self._dropped)

    def _lose(self, records: int) -> None:
        with self._lock:
            self._dropped += records

    def _run(self) -> None:
        last = False
        while not last:
            last = self._closing.wait(_INTERVAL_S)
            while self._queue:
                self._write([self._queue.popleft() for _ in range(min(_TOGETHER, len(self._queue)))])
            self._say_dropped()
        self._file.close()

    def _write(self, batch: Sequence[tuple[RoutingDecision, Outcome, float]]) -> None:
        now = time.monotonic()
        if now < self._retry_at:
            self._lose(len(batch))
            return
        offset = time.time() - now
        try:
            self._file.append(
                "".join(
                    decision_line(self._model, decision, outcome, monotonic=at, time=at + offset)
                    for decision, outcome, at in batch
                )
            )
        except OSError as error:
            self._lose(len(batch))
            self._retry_at = now + _RETRY_S
            if not self._said:
                self._said = True
                self._said_dropped = self._dropped
                self._warn(
                    f"decision log of {self._model!r}: {self._file.path} cannot be written: {error.strerror or error}; "
                    "serving goes on without it, and it is tried again"
                )
            return
        self._written += len(batch)
        if self._said:
            self._said = False
            self._said_dropped = self._dropped
            self._warn(f"decision log of {self._model!r} is written again; {self._dropped} records are missing so far")

    def _say_dropped(self) -> None:
        if self._dropped > self._said_dropped and not self._said:
            self._warn(
                f"decision log of {self._model!r}: {self._dropped} records were dropped so far, because decisions come "
                "faster than they can be written; lower decision_log.sample"
            )
            self._said_dropped = max(self._dropped * 10, QUEUE)


def configured_log(config: RouterConfig, model: str, warn: Callable[[str], None]) -> DecisionLog | None:
    """Return the decision log that the settings of a routed model ask for, not yet started; None for none.

    Args:
        config: Its settings.
        model: Its name.
        warn: Says a line in the server's log.
    """
    settings = config.decision_log
    if settings is None:
        return None
    head = start_line(model, config.policy_for(model).name, [_entry(target) for target in config.targets])
    return DecisionLog(
        LogFile(Path(settings.path), head, int(settings.max_mb * _MEGABYTE)), model, warn, sample=settings.sample
    )


def _entry(target: TargetConfig) -> TargetEntry:
    return TargetEntry(
        name=target.name,
        backend=target.backend,
        variant=target.variant,
        measured=tuple((float(point.work), point.latency_ms) for point in target.measured_latency),
        power_w=target.power_w,
        power_source=Source.ESTIMATED if target.power_w else Source.UNKNOWN,
        price_per_hour=target.price_per_hour,
        device=target.device,
    )
