"""Writes decisions and outcomes to a file, off the request's way.

The request's way appends one tuple to a bounded queue and goes on; one thread formats and writes. A full queue drops
the newest and counts it. Where the file cannot be written serving goes on: it is said once and tried again, what waits
is kept for a while, and what is lost is counted and said too. A model that is reloaded writes the file of the instance
before it, which lets go of it only when its last request has been answered.
"""

from __future__ import annotations

import time
from collections import deque
from itertools import count
from math import inf, modf
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
"""Most lines that wait to be written: records, and descriptions of the targets."""
_INTERVAL_S = 0.2
_RETRY_S = 5.0
"""How often a file that cannot be written is tried, and how long another process may hold it before that is said."""
_KEEP_S = 30.0
"""How long what cannot be written waits for better times: it is many objects, which a collection has to walk."""
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
        file: Where to write; its head is `start_line`, which says what there is to choose from at the beginning.
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
        self._described = file.head
        # Decisions, and among them what there is to choose from as of there.
        self._queue: deque[tuple[RoutingDecision, Outcome, float] | str] = deque((file.head,))
        self._lock = Lock()
        self._dropped = 0
        self._written = 0
        self._said = False
        self._problem = ""
        self._said_dropped = 0
        self._failing_since = inf
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

    def go_by(self, config: RouterConfig) -> None:
        """Describe the targets of other settings, which came into force just now. For one thread."""
        head = _head(self._model, config)
        if head != self._described:
            self._described = head
            self._queue.append(head)

    @property
    def counts(self) -> LogCounts:
        """Records written and dropped since the start."""
        return LogCounts(self._written, self._dropped)

    def report(self) -> dict[str, object]:
        """Return how writing goes, in JSON's types, as ``triton-router status`` shows it."""
        return {
            "file": str(self._file.path),
            "written": self._written,
            "dropped": self._dropped,
            "problem": self._problem,
        }

    def _lose(self, records: int) -> None:
        with self._lock:
            self._dropped += records

    def _run(self) -> None:
        last = False
        while not last:
            if last := self._closing.wait(_INTERVAL_S):
                self._retry_at = 0.0
            self.write()
            self._say_dropped()
        self._give_up()
        self._file.close()

    def write(self) -> None:
        """Write what waits, if it can be; for one thread."""
        now = time.monotonic()
        while self._queue and now >= self._retry_at:
            batch = [self._queue.popleft() for _ in range(min(_TOGETHER, len(self._queue)))]
            try:
                self._append(batch, time.time() - now)
            except OSError as error:
                self._queue.extendleft(reversed(batch))
                self._failed(error, now)
                break
            self._succeeded(batch)
        if now - self._failing_since >= _KEEP_S:
            self._give_up()

    def _append(self, batch: Sequence[tuple[RoutingDecision, Outcome, float] | str], offset: float) -> None:
        head, lines = self._file.head, list[str]()
        for entry in batch:
            if isinstance(entry, str):
                head = entry
                lines.append(entry)
            else:
                decision, outcome, at = entry
                lines.append(decision_line(self._model, decision, outcome, monotonic=at, time=at + offset))
        self._file.append("".join(lines))
        self._file.head = head

    def _succeeded(self, batch: Sequence[tuple[RoutingDecision, Outcome, float] | str]) -> None:
        self._failing_since = inf
        self._problem = ""
        self._written += sum(not isinstance(entry, str) for entry in batch)
        if self._said:
            self._said = False
            self._said_dropped = self._dropped
            self._warn(f"decision log of {self._model!r} is written again; {self._dropped} records are missing so far")

    def _failed(self, error: OSError, now: float) -> None:
        self._failing_since = min(self._failing_since, now)
        is_held = isinstance(error, BlockingIOError)
        self._retry_at = now + min(_RETRY_S, _INTERVAL_S if is_held else _RETRY_S)
        if self._said or (is_held and now - self._failing_since < _RETRY_S):
            return
        self._said = True
        self._said_dropped = self._dropped
        self._problem = f"cannot be written: {'another process writes it' if is_held else error.strerror or error}"
        self._warn(
            f"decision log of {self._model!r}: {self._file.path} {self._problem}; "
            "serving goes on without it, and it is tried again"
        )

    def _give_up(self) -> None:
        """Let go of what could not be written, but for what there is to choose from."""
        waiting = [self._queue.popleft() for _ in range(len(self._queue))]
        heads = [entry for entry in waiting if isinstance(entry, str)]
        self._queue.extendleft(heads[-1:])
        self._lose(len(waiting) - len(heads))

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
    file = LogFile(Path(settings.path), _head(model, config), int(settings.max_mb * _MEGABYTE))
    return DecisionLog(file, model, warn, sample=settings.sample)


def _head(model: str, config: RouterConfig) -> str:
    return start_line(model, config.policy_for(model).name, [_entry(target) for target in config.targets])


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
