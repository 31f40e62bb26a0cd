"""A request at a lane of merged calls, and what is counted of a lane."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from triton_router.serving.exchange import Attempt
    from triton_router.serving.forwarding import Alike


@dataclass(slots=True, eq=False)
class LaneRequest:
    """A request at a lane. One that goes out at once, alone, needs no more than ``attempt``.

    Attributes:
        attempt: The request, decided.
        tensors: Its inputs by name.
        key: What requests in one call have in common.
        rows: Its batch size.
        size: Bytes of its inputs.
        alike: What its call says besides.
    """

    attempt: Attempt
    tensors: Mapping[str, NDArray[np.generic]] = field(default_factory=dict[str, "NDArray[np.generic]"])
    key: object = None
    rows: int = 0
    size: int = 0
    alike: Alike | None = None

    @property
    def order(self) -> tuple[int, float]:
        """The smaller, the earlier it goes out: the more urgent first, then who came first."""
        exchange = self.attempt.exchange
        return -exchange.priority, exchange.taken_at


@dataclass(frozen=True, slots=True)
class CallCounts:
    """What went to one target through its lane, since the routed model was loaded.

    Attributes:
        calls: Calls made.
        merged_calls: Those of them that carried several requests.
        merged_requests: Requests that those carried.
        split_calls: Merged calls that failed, so that their requests went out apart.
    """

    calls: int = 0
    merged_calls: int = 0
    merged_requests: int = 0
    split_calls: int = 0
