"""Latency quantiles in constant memory: counts in buckets that grow geometrically.

Any quantile read from it is within half a bucket (5%) of the true one (cf. Masson et al., *DDSketch*, VLDB 2019).
"""

from __future__ import annotations

from array import array
from math import log

_LOWEST_MS = 0.02
_GROWTH = 1.1
_BUCKETS = 180
"""Up to 0.02 ms * 1.1**180, about 9 minutes; anything slower counts in the last bucket."""
_FULL = 2**32 - 1
"""Most that a bucket counts."""
_LOG_GROWTH = log(_GROWTH)


class LatencyHistogram:
    """Counts latencies, in milliseconds."""

    __slots__ = ("_counts", "count", "total_ms")

    def __init__(self) -> None:
        self._counts = array("I", bytes(4 * _BUCKETS))
        self.count = 0
        self.total_ms = 0.0

    def add(self, latency_ms: float) -> None:
        """Count one latency."""
        index = int(log(latency_ms / _LOWEST_MS) / _LOG_GROWTH) + 1 if latency_ms > _LOWEST_MS else 0
        index = min(index, _BUCKETS - 1)
        if self._counts[index] < _FULL:
            self._counts[index] += 1
        self.count += 1
        self.total_ms += latency_ms

    def quantile(self, q: float) -> float:
        """Return the latency that a share ``q`` (0..1) of the counted ones did not exceed, or 0.0 if none was."""
        if not self.count:
            return 0.0
        rank = q * (self.count - 1)
        seen = 0
        for index, bucket in enumerate(self._counts):
            seen += bucket
            if seen > rank:
                return _middle(index)
        return _middle(_BUCKETS - 1)

    def merge(self, other: LatencyHistogram) -> None:
        """Add another's counts."""
        for index, bucket in enumerate(other._counts):
            self._counts[index] = min(_FULL, self._counts[index] + bucket)
        self.count += other.count
        self.total_ms += other.total_ms

    def buckets(self) -> list[tuple[int, int]]:
        """Return (index, count) of every bucket that holds any."""
        return [(index, bucket) for index, bucket in enumerate(self._counts) if bucket]

    def restore(self, buckets: list[tuple[int, int]], total_ms: float) -> None:
        """Take the counts that `buckets` gave.

        Raises:
            ValueError: A bucket does not exist.
        """
        for index, bucket in buckets:
            if not 0 <= index < _BUCKETS:
                raise ValueError(f"there is no histogram bucket {index}, only 0 to {_BUCKETS - 1}")
            self._counts[index] = min(_FULL, bucket)
        self.count = sum(self._counts)
        self.total_ms = total_ms


def _middle(index: int) -> float:
    return _LOWEST_MS * _GROWTH ** (index - 0.5)
