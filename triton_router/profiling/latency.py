"""One target's latency: what a request takes alone, what it waits, and whether the target has changed.

    latency = alone(work, rows) + wait(alone, load)

Each answer teaches both parts. A request that had the device to itself says what its shape takes, at full weight; one
that had company says what company costs, and at a low weight what its shape takes (its latency divided in the
predicted proportion), so that a target that is never idle is learned as well.

A miss is clipped at a multiple of the usual one (Huber's psi), so that one cold start or garbage collection does not
move the fit. Several to one side are a change (`CumulativeSum`): then everything is scaled by the median of those
misses, which tells at once what every other shape and load will take, and what was known of before weighs little.
"""

from __future__ import annotations

from math import exp, log
from typing import TYPE_CHECKING

from triton_router.profiling.drift import CumulativeSum, Miss
from triton_router.profiling.load_law import IDLE, Load, LoadLaw
from triton_router.profiling.shape_law import CEILING_MS, FLOOR_MS, Shape, ShapeLaw, sane, unit_of

if TYPE_CHECKING:
    from triton_router.profiling.roofline import RooflinePrior

_new = tuple.__new__

_COMPANY = 0.5
"""Weight of a request that had company as evidence of what its shape takes alone."""
_UNKNOWN = 1.0
"""Observations of a shape from which on only requests alone say what it takes, as they do from the first where the
law knows shapes like it: under steady load nothing tells what a request takes from what it waits, and the division
between the two would wander off."""
_SETTLED = 3.0
"""Observations of a shape from which on its misses count, whatever it is like."""
_USUAL = 2.5
"""A miss of more than this many usual ones is no ordinary one, and counts as this many where what is usual is kept."""
_CLIPPED = 1.7
"""A request alone is learned from as if it had missed by this many usual ones at most: Huber's 1.345 standard
deviations, which lose 5% where noise is normal; one with company, whose waits have a true tail, by `_USUAL`."""
_UNEXPECTED = 1.0
"""How much wider that is for a first answer that is faster than expected: thrice, and less with each like it."""
_BEYOND = 2.0
"""A shape is beyond what the law knows if it would say this many times as much as all others have said."""
_RATE = 0.05
"""Weight of the newest miss in the running means; larger while there are few."""
_LEAST_SPREAD = 0.02
"""No fit is taken to be better than this: a perfect run must not make the next true change look like noise."""
_LARGEST_SPREAD = 1.0
"""Nor worse than this: or a few immeasurably fast answers would let everything pass as ordinary."""
_LARGEST_ERROR = 2.0
"""What a wilder relative error counts as."""
_KEPT = 0.1
"""What the evidence of before a change weighs after it."""
_UNSURE = 0.25
"""The least spread after a change: what follows is not clipped to what was usual before."""
_WILD = 0.5
"""A log-miss beyond this, and beyond what is usual, makes the evidence before it doubtful."""
_FIRST = 10
"""Observations while nothing is usual yet."""
_LEAST_WEIGHT = 0.1
"""Least weight of a miss as evidence of a change: a target that never empties is to be followed, too."""
_DOUBT = 0.5
"""What that evidence weighs then: an absurd first answer is outlived."""


class LatencyModel:
    """Learns and predicts latency in milliseconds.

    Attributes:
        prior: What to expect while nothing is measured.
        test: For changes.
        outrun: For changes as well, told by those alone to which company came later: see `_outrun`.
        spread: Running mean of the log-misses, clipped.
        loaded_spread: Of those of requests with company alone, which are predicted worse: judged by the others, every
            burst of requests would look like a change.
        error: Running mean of |measured - predicted| / measured, before each answer was learned; 1.0 at first.
    """

    __slots__ = ("alone_seen", "error", "load", "loaded_spread", "outrun", "prior", "shape", "spread", "test")

    def __init__(self, prior: RooflinePrior | None = None) -> None:
        self.prior = prior
        self.shape = ShapeLaw()
        self.load = LoadLaw()
        self.test = CumulativeSum()
        self.outrun = CumulativeSum()
        self.alone_seen = 0
        self.spread = _LARGEST_SPREAD
        self.loaded_spread = _LARGEST_SPREAD
        self.error = 1.0

    def predict(self, work: float, load: Load, rows: float) -> float:
        """Return the expected latency; 0.0 if nothing at all is known."""
        alone = self.predict_alone((work, rows))
        return min(CEILING_MS, alone + self.load.predict(alone, *load)) if alone else 0.0

    def predict_alone(self, shape: Shape) -> float:
        """Return what is expected with nothing else in flight; 0.0 if nothing at all is known."""
        if self.shape.count:
            return self.shape.predict_shape(shape)
        return min(CEILING_MS, self.prior.latency_ms(*shape)) if self.prior else 0.0

    def observe(self, latency_ms: float, work: float, load: Load, rows: float, *, alone: bool) -> float:
        """Learn from one answer; return the log factor by which the target is found to have changed, mostly 0.0."""
        latency = min(max(latency_ms, FLOOR_MS), CEILING_MS)
        work, rows = sane(work, rows)
        loaded = any(load)
        load = load.bounded() if loaded else IDLE
        shape = self.shape
        if not shape.count:
            self._begin(latency, work, rows, alone=alone)
            return 0.0
        alone_ms = shape.predict(work, rows)
        expected = min(CEILING_MS, alone_ms + self.load.predict(alone_ms, *load)) if loaded else alone_ms
        novel = loaded and self.load.is_novel(expected, alone_ms, load)
        known = shape.familiarity(work, rows)
        guessed = known < _UNKNOWN and (not self.alone_seen or shape.is_novel(work, rows, _BEYOND))
        # Of a shape unlike all others the law only guesses: a miss is no outlier, and no change of the target.
        strange = known < _SETTLED and self._is_strange(work, rows, alone=alone)
        if not (alone or loaded or guessed):
            return 0.0 if strange else self._outrun(latency, alone_ms)
        familiar = not novel and known >= 1.0
        miss = log(latency / expected)
        limit = _USUAL * self.spread
        # Nothing is fast by accident: where little is known of a shape, it is believed to be faster than expected.
        widened = 1.0 if miss > 0.0 else 1.0 + _UNEXPECTED / (0.5 + known)
        clip = (limit if loaded else _CLIPPED * self.spread) * widened
        self._note(latency, expected, miss, limit, loaded=loaded)
        spread = self.loaded_spread if loaded else self.spread
        change = 0.0
        if not strange:
            own = max(_LEAST_WEIGHT, alone_ms / (alone_ms + load.ahead_ms))
            most = alone_ms + load.most_wait_ms(alone_ms) if loaded else alone_ms
            noted = _new(Miss, (miss, loaded, latency / most, latency / alone_ms))
            change = self.test.update(noted, spread if familiar else 2.0 * spread, own)
        if change:
            self._follow(change, self.test)
            alone_ms = shape.predict(work, rows)
            expected = self.predict(work, load, rows)
        elif abs(miss) > clip and not strange and (familiar or not (novel or shape.is_novel(work, rows))):
            latency = expected * exp(clip if miss > 0.0 else -clip)
        if not strange and abs(miss) > (_WILD if shape.count < _FIRST else max(_WILD, limit)):
            (self.load if loaded else shape).rescale(1.0, _DOUBT)
        if loaded:
            self.load.observe(max(0.0, latency - alone_ms), alone_ms, load, unit_of(latency, expected))
        if alone:
            self._learn_alone(latency, work, rows, alone_ms)
        elif guessed and not novel:
            shape.observe(max(FLOOR_MS, latency * alone_ms / expected), work, rows, _COMPANY)
        return change

    def merge(self, other: LatencyModel) -> None:
        """Take in what another instance has learned of the same target."""
        if not other.shape.count:
            return
        if not self.shape.count:
            self.spread, self.loaded_spread, self.error = other.spread, other.loaded_spread, other.error
        else:
            share = other.shape.count / (self.shape.count + other.shape.count)
            self.spread += share * (other.spread - self.spread)
            self.loaded_spread += share * (other.loaded_spread - self.loaded_spread)
            self.error += share * (other.error - self.error)
        self.alone_seen += other.alone_seen
        self.shape.merge(other.shape)
        self.load.merge(other.load)
        self.test.reset()
        self.outrun.reset()

    def _is_strange(self, work: float, rows: float, *, alone: bool) -> bool:
        """Whether the law only guesses at a shape.

        That goes for the first of several rows as well, if it was alone: nothing tells a step from a wait otherwise.
        """
        return self.shape.is_strange(work, rows) or (alone and self.shape.is_over_step(work, rows))

    def _note(self, latency: float, expected: float, miss: float, limit: float, *, loaded: bool) -> None:
        """Keep the running means. Clipped, or the first outliers would hide the next."""
        error = abs(latency - expected) / latency
        rate = _rate(self.shape.count)
        self.error += rate * ((error if error < _LARGEST_ERROR else _LARGEST_ERROR) - self.error)
        size = abs(miss)
        self.spread = _averaged(self.spread, size if size < limit else limit, rate)
        if loaded:
            limit = _USUAL * self.loaded_spread
            rate = _rate(self.load.count + 1)
            self.loaded_spread = _averaged(self.loaded_spread, size if size < limit else limit, rate)

    def _begin(self, latency: float, work: float, rows: float, *, alone: bool) -> None:
        """Take the first answer; the prior's curve goes through it."""
        if self.prior and self.prior.latency_ms(work, rows):
            self.shape.expect(self.prior.latency_ms, latency, work, rows)
        self.shape.observe(latency, work, rows)
        self.load.begin()
        self.alone_seen = int(alone)

    def _learn_alone(self, latency: float, work: float, rows: float, alone_ms: float) -> None:
        if not self.alone_seen:
            # The first that was alone outweighs what those with company suggested.
            self.shape.rescale(latency / alone_ms, _KEPT)
        self.alone_seen += 1
        self.shape.observe(latency, work, rows)

    def _outrun(self, latency: float, alone_ms: float) -> float:
        """Judge an answer of a request that found nothing in flight, but to which company came later.

        Nobody knows how much of the latency was the company's doing, so it teaches nothing, unless it is less than
        the request should have taken alone: several such mean that the target has become faster. A copy on a device
        whose live requests never end has no other way to tell.
        """
        change = self.outrun.update(Miss(min(0.0, log(latency / alone_ms)), loaded=False), self.spread)
        if change:
            self._follow(change, self.outrun)
        return change

    def _follow(self, change: float, test: CumulativeSum) -> None:
        """Scale what has changed: requests alone and those with company say each whether theirs has."""
        alone = test.change_alone(change)
        wait = test.change_loaded(change)
        self.spread = max(self.spread, _UNSURE)
        self.loaded_spread = max(self.loaded_spread, _UNSURE)
        if alone:
            self.shape.rescale(exp(alone), _KEPT)
        self.load.rescale(exp(wait - alone) if alone else 1.0, _KEPT)
        self.test.reset()
        self.outrun.reset()


def _rate(count: int) -> float:
    return _RATE if count >= 1.0 / _RATE else 1.0 / (count + 1)


def _averaged(spread: float, size: float, rate: float) -> float:
    spread += rate * (size - spread)
    return _LEAST_SPREAD if spread < _LEAST_SPREAD else min(spread, _LARGEST_SPREAD)
