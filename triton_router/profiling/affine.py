"""Latency as an affine function of the work and of the load, learned one observation at a time.

    latency = b0 + b1 * work + b2 * ahead + b3 * device_ahead

``work`` is the request's own, ``ahead`` what is in flight at the target, ``device_ahead`` what is in flight at
other targets of the same device. Fitted by recursive least squares with exponential forgetting (Ljung, *System
Identification*, 2nd ed., section 11.2) on relative residuals, so that a 1 ms request weighs as much as a
100 ms one; a residual is clipped at a multiple of its running scale (Huber's psi), so that one cold start or
garbage collection does not move the fit.
"""

from __future__ import annotations

FORGETTING = 0.97
"""Weight of evidence that is one observation older; half of it is gone after 23."""
CLIP = 4.0
"""A relative residual beyond this many times its running mean is clipped there."""
_RESIDUAL_RATE = 0.05
"""Weight of the newest miss in the running mean; larger while there are few."""
_WIND_UP = 4.0
"""The uncertainty that forgetting may leave, in units of the uncertainty before any evidence."""
_LARGEST_MISS = 2.0
"""What a wilder miss counts as: one immeasurably fast answer says nothing of the fit."""
_LEAST_RESIDUAL = 0.02
"""No fit is taken to be better than this: a perfect run must not make the next true change look like an outlier."""
FLOOR_MS = 0.01
"""No prediction is below this: a call into another model is never free."""
_PRIOR_SPREAD = (10.0, 3.0, 1.0, 1.0)
"""Standard deviation of each coefficient before any evidence, in units of the first latency and work seen. The
base is the widest: from one observation alone, most of a latency is taken to be there whatever the work."""


class AffineLatency:
    """Learns and predicts one target's latency, in milliseconds."""

    __slots__ = ("_beta", "_covariance", "_residual", "_scale", "_trace_limit", "observations")

    def __init__(self) -> None:
        self._beta = (0.0, 0.0, 0.0, 0.0)
        # The upper triangle of the covariance, row by row.
        self._covariance = (0.0,) * 10
        self._scale = 0.0
        self._trace_limit = 0.0
        self._residual = 1.0
        self.observations = 0

    @property
    def mean_relative_error(self) -> float:
        """Running mean of |measured - predicted| / measured, before each observation was learned; 1.0 at first."""
        return self._residual

    def predict(self, work: float, ahead: float = 0.0, device_ahead: float = 0.0) -> float:
        """Return the expected latency in milliseconds, or 0.0 while nothing has been observed.

        Neither more work nor more load ever lowers it: a negative slope is noise and counts as none.
        """
        if not self.observations:
            return 0.0
        base, per_work, per_ahead, per_device = self._beta
        value = base if base > 0.0 else 0.0
        scale = self._scale
        if per_work > 0.0:
            value += per_work * work * scale
        if ahead and per_ahead > 0.0:
            value += per_ahead * ahead * scale
        if device_ahead and per_device > 0.0:
            value += per_device * device_ahead * scale
        return value if value > FLOOR_MS else FLOOR_MS

    def observe(self, latency_ms: float, work: float, ahead: float = 0.0, device_ahead: float = 0.0) -> None:
        """Learn from one measured latency (milliseconds, positive) and the work and load it was measured under."""
        if self._scale == 0.0:
            self._start(latency_ms, work)
        predicted = self.predict(work, ahead, device_ahead)
        # Relative to the prediction, not to the measurement: that would favour the fast among the evidence, and
        # a target that has become slow would long be remembered as fast.
        weight = 1.0 / (predicted or max(latency_ms, FLOOR_MS))
        load = weight * self._scale
        row = (weight, work * load, ahead * load, device_ahead * load)
        beta = self._beta
        innovation = latency_ms * weight - (beta[0] * row[0] + beta[1] * row[1] + beta[2] * row[2] + beta[3] * row[3])
        if predicted:
            innovation = self._clipped(innovation, abs(latency_ms - predicted) / max(latency_ms, FLOOR_MS))
        self._update(row, innovation)
        self.observations += 1

    def _start(self, latency_ms: float, work: float) -> None:
        """Take the units of the first observation, so that all coefficients are of one magnitude."""
        self._scale = 1.0 / work if work > 0.0 else 1.0
        unit = max(latency_ms, FLOOR_MS)
        v0, v1, v2, v3 = ((spread * unit) ** 2 for spread in _PRIOR_SPREAD)
        self._covariance = (v0, 0.0, 0.0, 0.0, v1, 0.0, 0.0, v2, 0.0, v3)
        self._trace_limit = _WIND_UP * (v0 + v1 + v2 + v3)

    def _clipped(self, innovation: float, miss: float) -> float:
        """Note a relative miss in the running mean, and bound the innovation by a multiple of it."""
        rate = max(_RESIDUAL_RATE, 1.0 / self.observations)
        self._residual += rate * (min(miss, _LARGEST_MISS) - self._residual)
        limit = CLIP * max(self._residual, _LEAST_RESIDUAL)
        return max(-limit, min(limit, innovation))

    def _update(self, row: tuple[float, float, float, float], innovation: float) -> None:
        """One step of recursive least squares: written out, which is six times as fast as loops over lists."""
        x0, x1, x2, x3 = row
        c00, c01, c02, c03, c11, c12, c13, c22, c23, c33 = self._covariance
        q0 = c00 * x0 + c01 * x1 + c02 * x2 + c03 * x3
        q1 = c01 * x0 + c11 * x1 + c12 * x2 + c13 * x3
        q2 = c02 * x0 + c12 * x1 + c22 * x2 + c23 * x3
        q3 = c03 * x0 + c13 * x1 + c23 * x2 + c33 * x3
        gain = 1.0 / (FORGETTING + x0 * q0 + x1 * q1 + x2 * q2 + x3 * q3)
        step = gain * innovation
        b0, b1, b2, b3 = self._beta
        self._beta = (b0 + q0 * step, b1 + q1 * step, b2 + q2 * step, b3 + q3 * step)
        d00, d11 = c00 - gain * q0 * q0, c11 - gain * q1 * q1
        d22, d33 = c22 - gain * q2 * q2, c33 - gain * q3 * q3
        # Directions that no observation excites must not wind up under forgetting.
        grow = min(1.0 / FORGETTING, self._trace_limit / (d00 + d11 + d22 + d33))
        self._covariance = (
            d00 * grow,
            (c01 - gain * q0 * q1) * grow,
            (c02 - gain * q0 * q2) * grow,
            (c03 - gain * q0 * q3) * grow,
            d11 * grow,
            (c12 - gain * q1 * q2) * grow,
            (c13 - gain * q1 * q3) * grow,
            d22 * grow,
            (c23 - gain * q2 * q3) * grow,
            d33 * grow,
        )
