"""What a request waits for others, beyond what it takes alone.

    wait = c0 * ahead + c1 * alone * here + c2 * min(elsewhere, targets * (alone + ahead)) + c3 * alone * company

with every c >= 0. ``here`` is how many requests are in flight at the target and ``ahead`` what they take alone, all
together; ``company`` and ``elsewhere`` are the same of the other targets of its device, of which ``targets`` have
something in flight. A target with one instance serves what is ahead first (c0 = 1), one that starts everything at once
slows down by its own length for each other request (c1; processor sharing, Kleinrock, 1967). Other targets share the
device with the request and with what is ahead of it, each for as long as it has something to do (c2), or without end
(c3). More load never lowers it. The coefficients are shares of time: they outlast a change of the target's speed.
"""

from __future__ import annotations

from typing import NamedTuple

from triton_router.profiling.nonnegative import NO_INFORMATION, NOTHING, Five, NonNegativeFit
from triton_router.profiling.shape_law import CEILING_MS

_FIRST_SWEEPS = 20
"""Rounds of descent after each of the first ten observations; after later ones it is one."""
FIRST = 10
"""Observations before which nothing is concluded from the coefficients."""
_FREE = 0.001
"""Every request behind others also counts as this much evidence that as much load as it is itself costs nothing:
loads that are tiny beside it say little of large ones."""
_ENDLESS = 0.1
"""Likewise, as much of each as it brings, that waiting for others ends when they have nothing left to do: where both
explain what was seen, c2 takes it."""
_NOVEL = 0.5
"""An observation that brings more than this share of what is known of a coefficient has nothing to be an outlier
from."""
_NOTHING_KNOWN: Five = (1.0, 0.0, 1.0, 0.0, 0.0)
"""While the target has answered nothing: as `Load.most_wait_ms`, nothing runs beside anything else."""
_FIRST_GUESS: Five = (1.0, 0.0, 0.0, 0.0, 0.0)
"""A target serves one request after the other, until it shows otherwise."""
_MOST: Five = (1.25, 1.25, 1.25, 1.25, 0.0)
"""No share is larger: what takes longer than everything in flight would one after the other has other causes. A quarter
more, because what requests take alone is not known exactly."""
_MOST_LOAD = 1e15


class Load(NamedTuple):
    """What is in flight when a request is decided.

    Attributes:
        ahead_ms: What is in flight at the target takes so long alone, all together; milliseconds.
        here: How many requests that is.
        elsewhere_ms: The same of the other targets of its device.
        company: How many requests that is.
        targets: At how many targets they are.
    """

    ahead_ms: float = 0.0
    here: float = 0.0
    elsewhere_ms: float = 0.0
    company: float = 0.0
    targets: float = 0.0

    @property
    def in_flight(self) -> float:
        """Requests on the device."""
        return self.here + self.company

    def bounded(self) -> Load:
        """Return it with every amount such that its square is finite: none that there is is changed."""
        if min(self) >= 0.0 and sum(self) <= _MOST_LOAD:  # false as well if one is no number
            return self
        return Load(*[min(amount, _MOST_LOAD) if amount > 0.0 else 0.0 for amount in self])

    def most_wait_ms(self, alone_ms: float) -> float:
        """Return what it makes a request wait where nothing runs beside anything else."""
        return self.ahead_ms + self.shared_ms(alone_ms)

    def shared_ms(self, alone_ms: float) -> float:
        """Return for how long other targets have something to do while the request and what is ahead of it run."""
        mine = self.targets * (alone_ms + self.ahead_ms)
        return mine if mine < self.elsewhere_ms else self.elsewhere_ms


IDLE = Load()


class LoadLaw:
    """Learns and predicts the waiting time, in milliseconds."""

    __slots__ = ("count", "fit")

    def __init__(self) -> None:
        self.fit = NonNegativeFit(_NOTHING_KNOWN, _MOST)
        self.count = 0

    def predict(
        self, alone_ms: float, ahead: float, here: float, elsewhere: float, company: float, targets: float
    ) -> float:
        """Return the expected wait of a request that takes ``alone_ms`` by itself and finds such load; see `Load`."""
        c0, c1, c2, c3, _ = self.fit.beta
        wait = c0 * ahead + c1 * alone_ms * here
        if company:
            mine = targets * (alone_ms + ahead)
            wait += c2 * (mine if mine < elsewhere else elsewhere) + c3 * alone_ms * company
        # Negative load costs nothing; what is no number ends at the ceiling.
        return wait if 0.0 <= wait <= CEILING_MS else 0.0 if wait < 0.0 else CEILING_MS

    def begin(self) -> None:
        """Expect what `_FIRST_GUESS` says, from the first answer of the target on."""
        self.fit.beta = _FIRST_GUESS

    def is_novel(self, expected_ms: float, alone_ms: float, load: Load) -> bool:
        """Whether such load says as much of what load costs as all evidence before it."""
        known = self.fit.information
        share = _NOVEL * expected_ms * expected_ms
        if not load.company:
            here = alone_ms * load.here
            return share * known[0] < load.ahead_ms * load.ahead_ms or share * known[5] < here * here
        x0, x1, x2, x3, _ = _features(alone_ms, load)
        return (
            share * known[0] < x0 * x0
            or share * known[5] < x1 * x1
            or share * known[9] < x2 * x2
            or (share * known[12] < x3 * x3)
        )

    def observe(self, wait_ms: float, alone_ms: float, load: Load, unit: float) -> None:
        """Learn from one wait.

        Args:
            wait_ms: What was measured beyond ``alone_ms``, at least 0.
            alone_ms: What the request was expected to take by itself.
            load: What it found in flight.
            unit: The latency that was expected in all.
        """
        self.count += 1
        weight = 1.0 / unit
        x0, x1, x2, x3, _ = _features(alone_ms, load)
        x: Five = (x0 * weight, x1 * weight, x2 * weight, x3 * weight, 0.0)
        free = _FREE * alone_ms * alone_ms * weight * weight
        doubt: Five = (free if x0 else 0.0, 0.0, free if x2 else 0.0, _ENDLESS * x[3] * x[3], 0.0)
        self.fit.add(wait_ms * weight, x, doubt)
        self.fit.descend(1 if self.count > FIRST else _FIRST_SWEEPS)

    @property
    def queueing(self) -> float:
        """What one more request costs another at the same target, as a share of its own time: 0 to 1.

        1 while little is known.
        """
        if self.count < FIRST:
            return 1.0
        c0, c1, _, _, _ = self.fit.beta
        return min(1.0, c0 + c1)

    @property
    def felt(self) -> float:
        """By what share of the time it takes alone a request elsewhere on the device delays one here, 0 to 1."""
        _, _, c2, c3, _ = self.fit.beta
        return min(1.0, c2 + c3)

    @property
    def felt_known(self) -> float:
        """Evidence for `felt`, in answers of which company took the whole time; 0 while there is little."""
        return self.fit.information[9] if self.count >= FIRST else 0.0

    def rescale(self, factor: float, kept: float) -> None:
        """Every wait takes ``factor`` times as long; the evidence for it weighs ``kept``."""
        self.fit.rescale(1.0, kept)
        c0, c1, c2, c3, c4 = [min(c * factor, most) for c, most in zip(self.fit.beta, _MOST, strict=True)]
        self.fit.beta = (c0, c1, c2, c3, c4)
        self.fit.gradient = NOTHING
        if self.fit.is_void:
            self.fit.information = NO_INFORMATION
            self.count = 0

    def merge(self, other: LoadLaw) -> None:
        """Take in what another instance has learned of the same target."""
        self.fit.merge(other.fit)
        self.count += other.count


def _features(alone_ms: float, load: Load) -> Five:
    """Return what each coefficient is for; the fit has one more than the law."""
    return (load.ahead_ms, alone_ms * load.here, load.shared_ms(alone_ms), alone_ms * load.company, 0.0)
