"""A first guess of a target's latency, from what the model computes and what the device can do.

    latency = max(flops / peak, bytes / bandwidth) + overhead

(Williams, Waterman & Patterson, *Roofline: an insightful visual performance model for multicore architectures*, CACM
2009.) ``flops`` grow with the samples of a request; the parameters are read once however many there are.
"""

from __future__ import annotations

from math import isfinite
from typing import NamedTuple

_GIGA_PER_MS = 1e6
"""1 GFLOPS, or 1 GB/s, is this many operations, or bytes, in a millisecond."""


class RooflinePrior(NamedTuple):
    """One model on one device.

    Attributes:
        flops: Floating point operations for one sample, a multiply-add counted as two.
        parameter_bytes: Bytes of parameters, read once for each call.
        peak_gflops: What the device computes at most.
        bandwidth_gb_s: What it reads at most.
        overhead_ms: What a call costs that computes nothing.
        elements: Elements of a sample's largest input when ``flops`` were counted; with it, longer samples cost
            more. 0 where all samples are of one size.
        sample_bytes: Bytes moved for each sample besides.
    """

    flops: float
    parameter_bytes: float
    peak_gflops: float
    bandwidth_gb_s: float
    overhead_ms: float = 0.05
    elements: float = 0.0
    sample_bytes: float = 0.0

    def latency_ms(self, work: float, rows: float = 1.0) -> float:
        """Return the expected latency of a request alone on the device; 0.0 if the figures say nothing."""
        samples = work / self.elements if self.elements > 0.0 else rows
        samples = samples if samples > 0.0 else 0.0
        compute = self.flops * samples / (self.peak_gflops * _GIGA_PER_MS) if self.peak_gflops > 0.0 else 0.0
        moved = self.parameter_bytes + self.sample_bytes * samples
        memory = moved / (self.bandwidth_gb_s * _GIGA_PER_MS) if self.bandwidth_gb_s > 0.0 else 0.0
        value = max(compute, memory) + self.overhead_ms
        return value if isfinite(value) and value > 0.0 else 0.0
