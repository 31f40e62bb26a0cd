"""How much work a tensor is: what latency is learned by.

As many as it has elements; strings as many as they have bytes, because what reads a text takes as long as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LOOKED_AT = 512
"""Strings whose length is looked at, spread over the tensor: a request does not wait for a million to be counted."""


def work_of(values: NDArray[Any]) -> int:
    """Return the elements of a tensor; the bytes of one of strings, estimated where there are many.

    Args:
        values: Numbers of any kind, or strings as ``bytes`` or text.
    """
    return string_bytes(values) if values.dtype.kind in "OSU" else int(values.size)


def string_bytes(values: NDArray[Any]) -> int:
    """Return how many bytes the strings of a tensor have, all together; at least one each, as an empty one is work."""
    count = int(values.size)
    if not count:
        return 0
    looked_at = values.reshape(-1)[:: max(1, count // _LOOKED_AT)]
    held = sum(map(_bytes_of, looked_at))
    return max(count, round(held * count / len(looked_at)))


def _bytes_of(value: object) -> int:
    return len(value) if isinstance(value, bytes) else len(str(value).encode("utf-8", "surrogatepass"))
