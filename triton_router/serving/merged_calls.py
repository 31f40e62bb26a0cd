"""Several requests as one call, and its answer as one for each: joined on the way there, cut apart on the way back.

What cannot be joined or cut apart as if each request had been alone is not: it is for others to see to that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from triton_router.routing.types import Verdict
from triton_router.serving.forwarding import Alike
from triton_router.serving.lane_request import LaneRequest
from triton_router.serving.relay import parameters_of
from triton_router.serving.rows import batch_rows, joined, layout, separated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triton_router.routing.types import Target
    from triton_router.serving.exchange import Attempt
    from triton_router.serving.forwarding import Forwarder
    from triton_router.serving.relay import Relay
    from triton_router.serving.stub import Response, StubModule

MAX_REQUEST_BYTES = 4 << 20
"""Inputs of a request that may be merged: copying more costs more than a call."""
MAX_STRINGS = 64
"""Likewise elements of a BYTES tensor, each of which costs a microsecond on each way."""


class MergedCalls:
    """Makes one call of several requests, and several answers of one.

    Args:
        stub: The Python backend's module.
        forwarder: Rewrites requests.
        relay: Reads a target's answer.
    """

    def __init__(self, stub: StubModule, forwarder: Forwarder, relay: Relay) -> None:
        self._stub = stub
        self._forwarder = forwarder
        self.relayed = relay.relayed
        self.relayed_for = relay.relayed_for

    def lacks_outputs(self, response: Response, group: Sequence[LaneRequest]) -> bool:
        """Whether a good response leaves outputs out that another target may have."""
        alike = group[0].alike
        return alike is not None and self.relayed(response, alike.outputs)[0] is not Verdict.SUCCESS

    def execute(self, target: Target, group: Sequence[LaneRequest]) -> Response:
        """Call the target. Raises whatever keeps the requests from being joined or forwarded."""
        first = group[0]
        if first.alike is None:
            raise TypeError("a request that nobody has read cannot be joined with others")
        tensors = joined([member.tensors for member in group])
        inputs = [self._stub.Tensor(name, array) for name, array in tensors.items()]
        exchange = first.attempt.exchange
        # A target's queue that refused the call for one of them would refuse it for all.
        left_us = max(self._forwarder.time_left_us(member.attempt.exchange) for member in group)
        with exchange.lock:
            request = self._forwarder.merged_request_for(target, first.alike, exchange, inputs, left_us)
        return request.exec()

    def parts(self, response: Response, group: Sequence[LaneRequest]) -> list[Response] | None:
        """Return each request's own rows of a good response; None if it cannot be cut into them."""
        if parameters_of(response):  # they say something of the call as a whole
            return None
        tensors = response.output_tensors()
        if not all(tensor.is_cpu() for tensor in tensors):
            return None
        outputs = {tensor.name(): tensor.as_numpy() for tensor in tensors}
        parts = separated(outputs, [member.rows for member in group])
        if parts is None:
            return None
        stub = self._stub
        return [stub.InferenceResponse([stub.Tensor(name, array) for name, array in part.items()]) for part in parts]

    def readable(self, attempt: Attempt) -> LaneRequest | None:
        """Return a request as one that can be merged; None if it cannot."""
        exchange = attempt.exchange
        with exchange.lock:
            if exchange.is_answered:
                return None
            try:
                return _readable(attempt)
            except Exception:  # noqa: BLE001 - the stub's own class: BF16 has no array. It goes out alone, as it is
                return None


def _readable(attempt: Attempt) -> LaneRequest | None:
    exchange = attempt.exchange
    request = exchange.request
    inputs = request.inputs()
    if request.flags() or not all(tensor.is_cpu() for tensor in inputs):
        return None
    tensors = {tensor.name(): tensor.as_numpy() for tensor in inputs}
    rows = batch_rows(tensors)
    size = sum(array.nbytes for array in tensors.values())
    if not rows or size > MAX_REQUEST_BYTES or not all(map(_is_cheap, tensors.values())):
        return None
    alike = Alike(frozenset(request.requested_output_names()), request.parameters(), exchange.timeout_us)
    return LaneRequest(attempt, tensors, (layout(tensors), alike), rows, size, alike)


def _is_cheap(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bool:
    return array.dtype != np.object_ or array.size <= MAX_STRINGS
