"""Publishes the engine's counters through Triton's own metrics endpoint.

Each operation on a Triton metric is a blocking round trip of the stub process (75-270 us), and one metric object
used from two threads crashes the server. So the request path counts in Python, and one thread, which alone owns
the metric objects, publishes the differences on a timer. Nor may a metric object ever be collected: a reload makes
the new stub process share the series of the old one, and the server frees it under the new one's feet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from triton_router.rounds import Rounds
from triton_router.telemetry.families import MERGING_FAMILIES, MODEL_FAMILIES
from triton_router.telemetry.published import Published
from triton_router.telemetry.target_families import counters

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from triton_router.routing.snapshot import TargetSnapshot
    from triton_router.telemetry.families import Family

    CountsOfTargets = Callable[[], Mapping[str, Mapping[str, float]]]

INTERVAL_S = 1.0

_KEPT: list[object] = []
"""Every metric object ever made in this process; see above."""


class MetricsFlusher:
    """Publishes one routed model's snapshots until closed.

    Args:
        stub: The Python backend's module.
        model: Name of the routed model, the ``model`` label.
        snapshot: Returns the current state of every target; what it counts until now is not published.
        counts: Returns the counts of the whole model, by the names of `MODEL_FAMILIES`; those it leaves out are 0.
        merged: Returns the counts of each target that takes merged calls, by the names of `MERGING_FAMILIES`.
        further: Families of targets, each with what returns the counts by target and then by their keys.
        observe: Is shown every state.
        interval_s: Seconds between two publications.
        publishes: Whether anything is published; without it states are still observed.
    """

    def __init__(  # noqa: PLR0913 - everything that is published, and how often
        self,
        stub: Any,
        model: str,
        snapshot: Callable[[], Sequence[TargetSnapshot]],
        *,
        counts: Callable[[], Mapping[str, float]] = dict[str, float],
        merged: CountsOfTargets = dict[str, dict[str, float]],
        further: Sequence[tuple[Sequence[Family], CountsOfTargets]] = (),
        observe: Callable[[Sequence[TargetSnapshot]], None] = lambda _: None,
        interval_s: float = INTERVAL_S,
        publishes: bool = True,
    ) -> None:
        self._snapshot = snapshot
        self._counts = counts
        self._by_target = ((MERGING_FAMILIES, merged), *further)
        self._observe = observe
        self._publishes = publishes
        self._inherited: dict[tuple[Family, str], float] = {}
        self.expect(snapshot())
        self._published = Published(stub, model, self._inherited)
        self._rounds = Rounds("metrics", self._round, interval_s, ends_with_one=True)

    def start(self) -> None:
        """Begin publishing."""
        _KEPT.append(self._published)
        self._rounds.start()

    def expect(self, targets: Sequence[TargetSnapshot]) -> None:
        """Take note of targets as they begin: what was learned before has been counted by the one that learned it."""
        for key, value in counters(targets).items():
            self._inherited.setdefault(key, value)

    def publish(self, *, interval_s: float, publishes: bool) -> None:
        """Go on in other intervals, or without publishing."""
        self._rounds.every_s = interval_s
        self._publishes = publishes

    def close(self) -> None:
        """Publish once more and stop."""
        self._rounds.close()

    def _round(self) -> None:
        targets = self._snapshot()
        self._observe(targets)
        if not self._publishes:
            return
        self._published.update(targets)
        self._published.update_counts(MODEL_FAMILIES, self._counts())
        for families, counted in self._by_target:
            for target, counts in counted().items():
                self._published.update_counts(families, counts, target=target)
