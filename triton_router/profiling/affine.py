"""Latency as an affine function of the work and of the load, learned one observation at a time.

    latency = b0 + b1 * work + b2 * ahead + b3 * device_ahead,    every b >= 0

``work`` is the request's own, ``ahead`` what is in flight at the target, ``device_ahead`` what is in flight at
other targets of the same device.

Weighted least squares with exponential forgetting. With ``x = (1, work, ahead, device_ahead) / unit``, kept are
the information ``A = sum(x x')`` and the gradient ``g = sum(x * (latency / unit - x'b))`` at the current ``b``;
each observation fades and adds to them and then descends along one coefficient after the other,

    b_j <- max(0, b_j + g_j / A_jj)

(Franc, Hlavac & Navara, *Sequential coordinate-wise algorithm for the non-negative least squares problem*, CAIP
2005). No step increases the weighted squared error, none leaves the non-negative orthant, and no matrix is
inverted: nothing can diverge, and what is predicted is always what is fitted. What
two instances have learned merges by adding their ``A`` and their ``A b + g``.

``unit`` is the prediction, so that a 1 ms request weighs as much as a 100 ms one; it stays within a factor of the
measurement, so that no prediction, however wrong, makes evidence against it weightless. A miss is clipped at a
multiple of the running mean miss (Huber's psi), so that one cold start or garbage collection does not move the
fit; each such outlier also fades the evidence before it, and several of them to one side are a change, at which
that evidence is all but dropped.
"""

from __future__ import annotations

from math import inf

FORGETTING = 0.97
"""Weight of evidence that is one observation older; half of it is gone after 23."""
CLIP = 4.0
"""A relative miss beyond this many times the running mean is clipped there."""
CHANGE = 6
"""Outliers to one side, with few others between, that are a change of the target and no longer outliers."""
_CALM = 0.25
"""What an observation that is no outlier takes from the count of those that were."""
_UNIT_BOUND = 4.0
"""How far the unit of an observation may be from what was measured, as a factor."""
_DOUBT = 0.75
"""How much an outlier fades the evidence before it: while the fit is often wrong, it forgets faster."""
_KEPT = 0.25
"""What all earlier evidence weighs after a change, in observations like the newest."""
_NOVEL = 0.5
"""An observation that brings more than this share of what is known of a coefficient has nothing to be an outlier
from: it is not clipped."""
_RESIDUAL_RATE = 0.05
"""Weight of the newest miss in the running mean; larger while there are few."""
_LARGEST_MISS = 2.0
"""What a wilder miss counts as: one immeasurably fast answer says nothing of the fit."""
_LEAST_SPREAD = 0.02
"""No fit is taken to be better than this: a perfect run must not make the next true change look like an outlier."""
_LARGEST_SPREAD = 1.0
"""Nor worse than this: or a few immeasurably fast answers would let everything pass as ordinary."""
_ROOT = FORGETTING**0.5
"""How a row or a column of the information fades."""
_SWEEPS = 2
"""Rounds of descent after an observation: the next one continues where they stopped."""
_FIRST_SWEEPS = 20
"""Likewise after each of the first ten, such as those from build time, which no others may follow for long."""
_FIRST = 10
FLOOR_MS = 0.01
"""No prediction is below this: a call into another model is never free."""
_BASE_SHARE = 0.92
"""The share of the first latency that is taken to be there whatever the work."""
_LEVEL = 0.003
"""Every request also counts as this much evidence that work costs nothing: sizes within 5% of each other say
little of what work costs."""
_FREE = 0.001
"""Every request behind others also counts as this much evidence that as much load as its own work costs nothing:
loads that are tiny beside the work say little of large ones."""
_NOTHING = 1e-100
"""Information below this is none; dividing by it could overflow."""


class AffineLatency:
    """Learns and predicts one target's latency, in milliseconds."""

    __slots__ = ("_beta", "_gradient", "_information", "_residual", "_run", "_spread", "observations")

    def __init__(self) -> None:
        self._beta = (0.0, 0.0, 0.0, 0.0)
        self._gradient = (0.0, 0.0, 0.0, 0.0)
        # The upper triangle, row by row.
        self._information = (0.0,) * 10
        self._residual = 1.0
        self._spread = _LARGEST_SPREAD
        # Outliers of late: positive while measured above the prediction, negative while below.
        self._run = 0.0
        self.observations = 0

    @property
    def mean_relative_error(self) -> float:
        """Running mean of |measured - predicted| / measured, before each observation was learned; 1.0 at first."""
        return self._residual

    def predict(self, work: float, ahead: float = 0.0, device_ahead: float = 0.0) -> float:
        """Return the expected latency in milliseconds, or 0.0 while nothing has been observed.

        Neither more work nor more load ever lowers it.
        """
        if not self.observations:
            return 0.0
        base, per_work, per_ahead, per_device = self._beta
        value = base + per_work * work + per_ahead * ahead + per_device * device_ahead
        return value if value > FLOOR_MS else FLOOR_MS

    def observe(self, latency_ms: float, work: float, ahead: float = 0.0, device_ahead: float = 0.0) -> None:
        """Learn from one measured latency (milliseconds, not negative) and the work and load it was measured under."""
        latency = latency_ms if latency_ms > FLOOR_MS else FLOOR_MS
        if self.observations:
            predicted = self.predict(work, ahead, device_ahead)
            outlier = self._is_outlier(latency, predicted)
            changed = outlier and (
                abs(self._run) >= CHANGE or self._information[0] * predicted * predicted < 1.0 / _NOVEL
            )
            if outlier and not changed and not self._is_novel(predicted, work, ahead, device_ahead):
                bound = 1.0 + CLIP * self._spread
                latency = predicted * bound if self._run > 0.0 else predicted / bound
            unit = min(max(predicted, latency / _UNIT_BOUND), latency * _UNIT_BOUND)
            if outlier:
                self._fade(_DOUBT, _KEPT / (unit * unit) if changed else inf)
        else:
            unit = latency
            slope = (1.0 - _BASE_SHARE) * latency / work if work > _NOTHING else 0.0
            self._beta = (latency - slope * work, slope, 0.0, 0.0)
        self.observations += 1
        weight = 1.0 / unit
        self._add(latency * weight, weight, work * weight, ahead * weight, device_ahead * weight)
        self._descend()

    def _is_outlier(self, latency: float, predicted: float) -> bool:
        """Note the miss in the running means, and in the run of outliers if it is one."""
        rate = max(_RESIDUAL_RATE, 1.0 / self.observations)
        self._residual += rate * (min(abs(latency - predicted) / latency, _LARGEST_MISS) - self._residual)
        # As a ratio: half and double are equally far off. Clipped, or the first outliers would hide the next.
        miss = (latency / predicted if latency > predicted else predicted / latency) - 1.0
        limit = CLIP * self._spread
        rate = max(_RESIDUAL_RATE, 1.0 / (self.observations + 1))
        spread = self._spread + rate * (min(miss, limit) - self._spread)
        self._spread = min(max(spread, _LEAST_SPREAD), _LARGEST_SPREAD)
        if miss <= limit:
            self._run = max(0.0, self._run - _CALM) if self._run > 0.0 else min(0.0, self._run + _CALM)
            return False
        side = 1.0 if latency > predicted else -1.0
        self._run = self._run + side if self._run * side > 0.0 else side
        return True

    def _is_novel(self, predicted: float, work: float, ahead: float, device_ahead: float) -> bool:
        """Whether an observation of this kind says as much of some coefficient as all evidence before it."""
        known = self._information
        share = _NOVEL * predicted * predicted
        return (
            share * known[4] < work * work
            or share * known[7] < ahead * ahead
            or share * known[9] < device_ahead * device_ahead
        )

    def _fade(self, kept: float, most: float) -> None:
        """Scale all evidence by ``kept``, or further until its weight is at most ``most``."""
        kept = min(kept, most / self._information[0])
        self._information = tuple([a * kept for a in self._information])
        self._gradient = tuple([g * kept for g in self._gradient])

    def _add(self, y: float, x0: float, x1: float, x2: float, x3: float) -> None:
        """Fade the evidence and add one observation. One without load does not fade what is known of load."""
        a00, a01, a02, a03, a11, a12, a13, a22, a23, a33 = self._information
        g0, g1, g2, g3 = self._gradient
        b0, b1, b2, b3 = self._beta
        miss = y - b0 * x0 - b1 * x1 - b2 * x2 - b3 * x3
        square = x1 * x1
        # Rows and columns of the matrix fade alike, each by the root: so it stays positive semidefinite.
        fade2 = fade3 = _ROOT
        fade23 = 1.0
        if x2:
            free = _FREE * square
            a22 = a22 * FORGETTING + x2 * x2 + free
            g2 = g2 * FORGETTING + miss * x2 - free * b2
            fade2 = FORGETTING
            fade23 = _ROOT
        if x3:
            free = _FREE * square
            a33 = a33 * FORGETTING + x3 * x3 + free
            g3 = g3 * FORGETTING + miss * x3 - free * b3
            fade3 = FORGETTING
            fade23 *= _ROOT
        level = _LEVEL * square
        self._gradient = (g0 * FORGETTING + miss * x0, g1 * FORGETTING + miss * x1 - level * b1, g2, g3)
        self._information = (
            a00 * FORGETTING + x0 * x0,
            a01 * FORGETTING + x0 * x1,
            a02 * fade2 + x0 * x2,
            a03 * fade3 + x0 * x3,
            a11 * FORGETTING + square + level,
            a12 * fade2 + x1 * x2,
            a13 * fade3 + x1 * x3,
            a22,
            a23 * fade23 + x2 * x3,
            a33,
        )

    def _descend(self) -> None:
        """Take the best step along each coefficient in turn, a few times; written out, which is faster than loops."""
        a00, a01, a02, a03, a11, a12, a13, a22, a23, a33 = self._information
        g0, g1, g2, g3 = self._gradient
        b0, b1, b2, b3 = self._beta
        for _ in range(_SWEEPS if self.observations > _FIRST else _FIRST_SWEEPS):
            step = g0 / a00
            step = max(step, -b0)
            b0 += step
            g0 -= a00 * step
            g1 -= a01 * step
            g2 -= a02 * step
            g3 -= a03 * step
            if a11 > _NOTHING:
                step = g1 / a11
                step = max(step, -b1)
                b1 += step
                g0 -= a01 * step
                g1 -= a11 * step
                g2 -= a12 * step
                g3 -= a13 * step
            if a22 > _NOTHING:
                step = g2 / a22
                step = max(step, -b2)
                b2 += step
                g0 -= a02 * step
                g1 -= a12 * step
                g2 -= a22 * step
                g3 -= a23 * step
            if a33 > _NOTHING:
                step = g3 / a33
                step = max(step, -b3)
                b3 += step
                g0 -= a03 * step
                g1 -= a13 * step
                g2 -= a23 * step
                g3 -= a33 * step
        self._beta = (b0, b1, b2, b3)
        self._gradient = (g0, g1, g2, g3)
