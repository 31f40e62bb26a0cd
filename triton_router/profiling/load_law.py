"""What a request waits for others, beyond what it takes alone.

    wait = c0 * company + c1 * alone * company + c2 * ahead + c3 * device_ahead,    every c >= 0

``company`` is how many requests are in flight on the device, ``ahead`` the work in flight at the target,
``device_ahead`` at other targets of its device. On cores that are shared a request slows down by its own length for
each other one (c1, processor sharing; Kleinrock, 1967), behind a queue it waits for what is ahead (c2, c3), and c0 is
what any company costs a tiny one. More load never lowers it.
"""

from __future__ import annotations

from triton_router.profiling.nonnegative import Four, NonNegativeFit

_FIRST_SWEEPS = 20
"""Rounds of descent after each of the first ten observations; after later ones it is one."""
_FIRST = 10
_FREE = 0.001
"""Every request behind others also counts as this much evidence that as much load as its own work costs nothing:
loads that are tiny beside the work say little of large ones."""
_NOVEL = 0.5
"""An observation that brings more than this share of what is known of a coefficient has nothing to be an outlier
from."""


class LoadLaw:
    """Learns and predicts the waiting time, in milliseconds."""

    __slots__ = ("count", "fit")

    def __init__(self) -> None:
        self.fit = NonNegativeFit()
        self.count = 0

    def predict(self, alone_ms: float, company: float, ahead: float, device_ahead: float) -> float:
        """Return the expected wait of a request that takes ``alone_ms`` by itself and finds such load."""
        c0, c1, c2, c3 = self.fit.beta
        return company * (c0 + c1 * alone_ms) + c2 * ahead + c3 * device_ahead

    def is_novel(self, expected_ms: float, company: float, ahead: float, device_ahead: float) -> bool:
        """Whether such load says as much of what load costs as all evidence before it."""
        known = self.fit.information
        share = _NOVEL * expected_ms * expected_ms
        return (
            share * known[0] < company * company
            or share * known[7] < ahead * ahead
            or share * known[9] < device_ahead * device_ahead
        )

    def observe(
        self, wait_ms: float, alone_ms: float, work: float, load: tuple[float, float, float], unit: float
    ) -> None:
        """Learn from one wait.

        Args:
            wait_ms: What was measured beyond ``alone_ms``, at least 0.
            alone_ms: What the request was expected to take by itself.
            work: Its work.
            load: Company, ahead and device_ahead.
            unit: The latency that was expected in all.
        """
        self.count += 1
        company, ahead, device_ahead = load
        weight = 1.0 / unit
        x: Four = (company * weight, company * alone_ms * weight, ahead * weight, device_ahead * weight)
        free = _FREE * work * work * weight * weight
        doubt: Four = (0.0, 0.0, free if ahead else 0.0, free if device_ahead else 0.0)
        self.fit.add(wait_ms * weight, x, doubt)
        self.fit.descend(1 if self.count > _FIRST else _FIRST_SWEEPS)

    def rescale(self, factor: float, kept: float) -> None:
        """Everything takes ``factor`` times as long: what an element or a request ahead costs, too."""
        c0, c1, c2, c3 = self.fit.beta
        self.fit.rescale(1.0, kept)
        self.fit.beta = (c0 * factor, c1, c2 * factor, c3 * factor)
        self.fit.gradient = (0.0, 0.0, 0.0, 0.0)

    def merge(self, other: LoadLaw) -> None:
        """Take in what another instance has learned of the same target."""
        self.fit.merge(other.fit)
        self.count += other.count
