"""Which arm of an experiment a request belongs to: by a stable hash, so that no one has to remember it.

    treated = hash(experiment id, key) / 2**64 < fraction

The same key stays in its arm as long as the experiment lives. As the fraction grows, keys only ever move from control
to treatment. Two experiments split independently, because the hash takes in the experiment's id.
"""

from __future__ import annotations

from hashlib import blake2b

_RANGE = float(1 << 64)


def position(experiment_id: str, key: str) -> float:
    """Return where a key stands in an experiment: evenly distributed in [0, 1), the same on every machine."""
    digest = blake2b(digest_size=8)
    name = _bytes(experiment_id)
    # The length keeps ("ab", "c") and ("a", "bc") apart.
    digest.update(len(name).to_bytes(8, "big") + name + _bytes(key))
    # 64 bits do not fit a float: the largest would round up to 1.
    return (int.from_bytes(digest.digest(), "big") >> 11 << 11) / _RANGE


def is_treated(experiment_id: str, key: str, fraction: float) -> bool:
    """Return whether a key gets the treatment when a ``fraction`` (0 to 1) of all keys does."""
    return position(experiment_id, key) < fraction


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
