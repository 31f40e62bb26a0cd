"""How many retries and hedges there may be: a share of the requests, so that an outage cannot double the load.

A token bucket with two springs. Each request adds ``share`` tokens, which are forgotten with a time constant of
`MEMORY_S`; besides, there are ``burst`` tokens, which fill up again within `MEMORY_S`. Over any time of T seconds with
N requests at most

    burst * (1 + T / MEMORY_S) + share * (N + those not yet forgotten at its beginning)

retries are granted. This is Finagle's ``RetryBudget`` (twitter.github.io/finagle/guide/Clients.html#retries: a share
of the requests of the last 10 s, and a minimum a second) and Envoy's ``retry_budget`` (a share of the active requests,
and ``min_retry_concurrency``), computed only when a retry asks: requests that need none pay nothing. That retries must
be bounded so is argued in *Site Reliability Engineering* (Beyer et al., 2016), chapter 22, "Addressing Cascading
Failures".
"""

from __future__ import annotations

from math import exp

MEMORY_S = 10.0
_MOST_HEDGES = 10.0
"""Hedges that can be saved up: a quiet hour is no reserve to burst with."""


class RetryBudget:
    """Grants retries and hedges.

    Args:
        share: Retries and hedges together, as a share of the requests.
        burst: Those at hand besides.
        hedge_share: Hedges as a share of the requests.
    """

    __slots__ = ("_at", "_burst", "_earned", "_hedge_share", "_hedges", "_seen", "_share", "_standing")

    def __init__(self, share: float, burst: float, hedge_share: float = 0.0) -> None:
        self._share = share
        self._burst = burst
        self._hedge_share = hedge_share
        self._standing = float(burst)
        self._earned = 0.0
        self._hedges = 0.0
        self._seen = 0
        self._at = float("-inf")

    def left(self, requests: int, now: float) -> float:
        """Return the tokens at hand.

        Args:
            requests: How many requests there were so far; never fewer than before.
            now: Monotonic seconds.
        """
        self._settle(requests, now)
        return self._earned + self._standing

    def take(self, requests: int, now: float) -> bool:
        """Take a token for a retry, if there is one. Arguments as `left`."""
        self._settle(requests, now)
        return self._take()

    def take_for_hedge(self, requests: int, now: float) -> bool:
        """Take a token for a hedge, if there is one and hedges have not had their share. Arguments as `left`."""
        self._settle(requests, now)
        if self._hedges < 1.0 or not self._take():
            return False
        self._hedges -= 1.0
        return True

    def resize(self, share: float, burst: float, hedge_share: float) -> None:
        """Grant by other figures from now on; what is at hand stays, up to the new burst."""
        self._standing = min(burst, self._standing + max(0.0, burst - self._burst))
        self._share, self._burst, self._hedge_share = share, burst, hedge_share

    def _take(self) -> bool:
        if self._earned >= 1.0:
            self._earned -= 1.0
            return True
        if self._earned + self._standing < 1.0:
            return False
        self._standing -= 1.0 - self._earned
        self._earned = 0.0
        return True

    def _settle(self, requests: int, now: float) -> None:
        elapsed = max(0.0, now - self._at)
        new, self._seen = max(0, requests - self._seen), requests
        self._at = max(self._at, now)
        if elapsed:
            # As if the new requests had come evenly since the last look.
            kept = exp(-elapsed / MEMORY_S)
            self._earned = self._earned * kept + self._share * new * (1.0 - kept) * MEMORY_S / elapsed
            self._standing = min(self._burst, self._standing + self._burst * min(1.0, elapsed / MEMORY_S))
        else:
            self._earned += self._share * new
        self._hedges = min(_MOST_HEDGES, self._hedges + self._hedge_share * new)
