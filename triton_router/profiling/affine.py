"""Latency as an affine function of the work and of the load, learned one observation at a time.

    latency = b0 + b1 * work + b2 * ahead + b3 * device_ahead

``work`` is the request's own, ``ahead`` what is in flight at the target, ``device_ahead`` what is in flight at
other targets of the same device. Fitted by recursive least squares with exponential forgetting (Ljung, *System
Identification*, 2nd ed., section 11.2) on relative residuals, so that a 1 ms request weighs as much as a
100 ms one; a residual is clipped at a multiple of its running scale (Huber's psi), so that one cold start or
garbage collection does not move the fit.
"""

from __future__ import annotations

FEATURES = 4
FORGETTING = 0.995
"""Weight of evidence that is one observation older; half of it is gone after 138."""
CLIP = 4.0
"""A relative residual beyond this many times its running mean is clipped there."""
_RESIDUAL_RATE = 0.05
"""Weight of the newest miss in the running mean; larger while there are few."""
FLOOR_MS = 0.01
"""No prediction is below this: a call into another model is never free."""
_PRIOR_SPREAD = (10.0, 3.0, 1.0, 1.0)
"""Standard deviation of each coefficient before any evidence, in units of the first latency and work seen. The
base is the widest: from one observation alone, most of a latency is taken to be there whatever the work."""


class AffineLatency:
    """Learns and predicts one target's latency, in milliseconds. Takes 4 floats, keeps 24."""

    __slots__ = ("_beta", "_covariance", "_residual", "_scale", "_trace_limit", "observations")

    def __init__(self) -> None:
        self._beta = [0.0] * FEATURES
        self._covariance = [[0.0] * FEATURES for _ in range(FEATURES)]
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
        scale = self._scale
        base, per_work, per_ahead, per_device = self._beta
        value = base if base > 0.0 else 0.0
        if per_work > 0.0:
            value += per_work * work * scale
        if per_ahead > 0.0:
            value += per_ahead * ahead * scale
        if per_device > 0.0:
            value += per_device * device_ahead * scale
        return value if value > FLOOR_MS else FLOOR_MS

    def observe(self, latency_ms: float, work: float, ahead: float = 0.0, device_ahead: float = 0.0) -> None:
        """Learn from one measured latency (milliseconds, positive) and the work and load it was measured under."""
        if self._scale == 0.0:
            self._start(latency_ms, work)
        predicted = self.predict(work, ahead, device_ahead)
        self._learn(latency_ms, predicted, (1.0, work * self._scale, ahead * self._scale, device_ahead * self._scale))
        self.observations += 1

    def _start(self, latency_ms: float, work: float) -> None:
        """Take the units of the first observation, so that all coefficients are of one magnitude."""
        self._scale = 1.0 / work if work > 0.0 else 1.0
        unit = max(latency_ms, FLOOR_MS)
        for i, spread in enumerate(_PRIOR_SPREAD):
            self._covariance[i][i] = (spread * unit) ** 2
        self._trace_limit = 1e3 * sum(self._covariance[i][i] for i in range(FEATURES))

    def _learn(self, latency_ms: float, predicted: float, features: tuple[float, ...]) -> None:
        beta, covariance = self._beta, self._covariance
        reference = latency_ms if latency_ms > FLOOR_MS else FLOOR_MS
        row = [feature / reference for feature in features]
        innovation = 1.0 - sum(b * x for b, x in zip(beta, row, strict=True))
        if predicted:
            miss = abs(latency_ms - predicted) / reference
            # A fast outlier has a large relative residual, a slow one at most 1: both are bounded here.
            rate = max(_RESIDUAL_RATE, 1.0 / self.observations)
            self._residual += rate * (min(miss, 2.0) - self._residual)
            limit = CLIP * max(self._residual, 0.02)
            innovation = max(-limit, min(limit, innovation))
        projected = [sum(c * x for c, x in zip(line, row, strict=True)) for line in covariance]
        denominator = FORGETTING + sum(x * p for x, p in zip(row, projected, strict=True))
        gain = [p / denominator for p in projected]
        for i in range(FEATURES):
            beta[i] += gain[i] * innovation
            line = covariance[i]
            for j in range(FEATURES):
                line[j] = (line[j] - gain[i] * projected[j]) / FORGETTING
        self._bound()

    def _bound(self) -> None:
        """Keep directions that no observation excites from winding up under forgetting."""
        covariance = self._covariance
        trace = sum(covariance[i][i] for i in range(FEATURES))
        if trace > self._trace_limit:
            shrink = self._trace_limit / trace
            for line in covariance:
                for j in range(FEATURES):
                    line[j] *= shrink
