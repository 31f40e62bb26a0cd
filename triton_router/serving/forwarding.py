"""Turns a client's request into one for a target, unchanged, and tells the engine what it needs to know of it.

Everything a Python model can see of a request is forwarded. What it can see and Triton cannot forward by BLS is
refused, never dropped: a request must not silently mean something else behind a router.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from triton_router.errors import RequestError, UnsupportedError
from triton_router.routing.types import RoutingContext, Target
from triton_router.serving.overrides import OWN_PREFIX, overrides
from triton_router.serving.parameters import parameters_in, shown
from triton_router.tensor_work import string_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from triton_router.serving.exchange import Exchange
    from triton_router.serving.overrides import Overrides
    from triton_router.serving.stub import BlsRequest, Request, StubModule, Tensor

_LATEST = -1
"""BLS's model version for "whatever the version policy serves"."""
_AT_ONCE_S = 0.005
"""A request that has been here no longer is passed on as it came."""
_SPAN_S = 0.02
"""How long before a request's deadline its calls get no span any more."""


class Alike(NamedTuple):
    """What requests that go out together have in common besides their inputs' layout."""

    outputs: frozenset[str]
    parameters: str
    timeout_us: int


class Asked(Protocol):
    """What a request asks of a target besides its inputs: a client's own, or a copy of that."""

    def requested_output_names(self) -> Iterable[str]:
        """Return the outputs that are wanted."""
        ...

    def parameters(self) -> str:
        """Return the parameters as JSON."""
        ...


class Forwarder:
    """Reads requests of one routed model and rewrites them for its targets.

    Args:
        stub: The Python backend's module.
        batched: Whether dimension 0 of every input is the batch.
        strings: Names of the inputs that hold strings.
        explains: Whether answers can say why their target was chosen.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        stub: StubModule,
        *,
        batched: bool,
        strings: Collection[str] = (),
        explains: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stub = stub
        self._clock = clock
        self._batched = batched
        self._strings = strings
        self._explains = explains

    def wish(self, request: Request) -> Overrides | None:
        """Return what the request's parameters ask of the router; None for nothing.

        Raises:
            RequestError: A value is not valid.
            UnsupportedError: It asks for an explanation, which this server cannot carry.
        """
        wish = overrides(request.parameters())
        if wish is not None and wish.explain and not self._explains:
            raise UnsupportedError(
                "the request asks for an explanation, which travels as a response parameter, and this server has none",
                hint="leave router_explain out, use Triton 25.02 or newer and a routed model that does not stream, or "
                "ask triton-router explain",
            )
        return wish

    def context(self, request: Request, wish: Overrides | None = None, *, may_explore: bool = True) -> RoutingContext:
        """Return what the engine needs to know: rows, work of the largest input, and what else is asked."""
        batch, work = 1, 1
        for tensor in request.inputs():
            shape = tensor.shape()
            elements = 1
            for extent in shape:
                elements *= extent
            # Their array is there already: the stub takes strings apart as it takes the request.
            if self._strings and tensor.name() in self._strings:
                elements = string_bytes(tensor.as_numpy())
            work = max(work, elements)
            if self._batched and shape:
                batch = max(batch, shape[0])
        if wish is None:
            return RoutingContext(batch, work, "", may_explore)
        return RoutingContext(
            batch,
            work,
            may_explore=may_explore,
            max_latency_ms=wish.max_latency_ms,
            optimization_goal=wish.goal,
            allowed_backends=wish.backends,
            key=wish.key,
        )

    def own_key(self, request: Request) -> str:
        """Return what a request without a key is assigned by: its id, or ""."""
        try:
            return request.request_id()
        except Exception:  # noqa: BLE001 - no text: the request is refused with a reason when it is passed on
            return ""

    def request_for(self, target: Target, exchange: Exchange) -> BlsRequest | None:
        """Return a new request for ``target``: a BLS request object serves one call from one thread only.

        Returns:
            None if the exchange has been answered: nothing may be asked of its request any more.

        Raises:
            RequestError: A part of it cannot be read or forwarded. That is never the target's fault.
        """
        try:
            with exchange.lock:
                return None if exchange.is_answered else self._rewritten(target, exchange)
        except RequestError:
            raise
        except Exception as error:
            raise RequestError(
                f"the request cannot be forwarded to a target: {error}",
                hint="ids, parameters and correlation ids must be valid UTF-8",
            ) from error

    def merged_request_for(
        self, target: Target, like: Alike, span_of: Exchange, inputs: Sequence[Tensor], timeout_us: int
    ) -> BlsRequest:
        """Return a new request for ``target`` with the inputs of several requests that are alike.

        It carries nothing that is one client's own, so that nothing can come back to another.

        Args:
            target: Where it goes.
            like: What they have in common.
            span_of: One of them, to which its span belongs if that is traced.
            inputs: Of all of them.
            timeout_us: What is left of their ``timeout``, 0 for none.

        Raises:
            RequestError: As for `request_for`.
        """
        return self._stub.InferenceRequest(
            model_name=target.model,
            model_version=target.version or _LATEST,
            requested_output_names=list(like.outputs),
            inputs=inputs,
            timeout=timeout_us,
            parameters=_forwardable(like.parameters) if len(like.parameters) > len("{}") else None,
            **self._span(span_of),
        )

    def copy_for(self, target: Target, request: Asked, inputs: Mapping[str, NDArray[Any]]) -> BlsRequest:
        """Return a request for ``target`` like a client's, which may outlive that: its own inputs, no id, no span.

        Raises:
            RequestError: As for `request_for`.
        """
        text = request.parameters()
        return self._stub.InferenceRequest(
            model_name=target.model,
            model_version=target.version or _LATEST,
            requested_output_names=list(request.requested_output_names()),
            inputs=[self._stub.Tensor(name, array) for name, array in inputs.items()],
            parameters=_forwardable(text) if len(text) > len("{}") else None,
        )

    def time_left_us(self, exchange: Exchange) -> int:
        """Return what is left of Triton's ``timeout``; as it came, if it came just now."""
        if not exchange.timeout_us:
            return 0
        spent = self._clock() - exchange.taken_at
        return exchange.timeout_us if spent < _AT_ONCE_S else max(1, exchange.timeout_us - int(spent * 1e6))

    def _rewritten(self, target: Target, exchange: Exchange) -> BlsRequest:
        request = exchange.request
        text = request.parameters()
        exchange.outputs = outputs = list(request.requested_output_names())
        return self._stub.InferenceRequest(
            model_name=target.model,
            model_version=target.version or _LATEST,
            requested_output_names=outputs,
            inputs=request.inputs(),
            request_id=request.request_id(),
            correlation_id=request.correlation_id(),
            flags=request.flags(),
            timeout=exchange.timeout_us and self.time_left_us(exchange),
            # Most requests carry none, and should not pay for their being parsed and written again.
            parameters=_forwardable(text) if len(text) > len("{}") else None,
            **self._span(exchange),
        )

    def _span(self, exchange: Exchange) -> dict[str, object]:
        """Return the trace to hang a call's span on, as an argument, where it is sure to live until the call begins.

        It dies with the request's last response, which another attempt or the deadline may bring at any time.
        """
        # Of those in a merged call, one may have been answered by another attempt meanwhile.
        if exchange.is_answered:
            return {}
        if len(exchange.attempts) > 1:
            return {}
        if exchange.bound_ms and self._clock() > exchange.deadline - _SPAN_S:
            return {}
        return {"trace": exchange.request.trace()}


def _forwardable(text: str) -> dict[str, bool | int | str]:
    """Return the parameters, if BLS can carry every one of them: it takes booleans, integers and strings."""
    parameters = parameters_in(text)
    for key, value in parameters.items():
        if isinstance(value, float) and key.startswith(OWN_PREFIX):
            # It was meant for the router, which has read it; for the target it is written as a header would be.
            parameters[key] = str(value)
        elif not isinstance(value, bool | int | str):
            raise RequestError(
                f"request parameter '{shown(key)}' is a {type(value).__name__}; Triton forwards only booleans, "
                f"integers and strings from a routed model to its targets",
                hint=f"send '{shown(key)}' as a string, or call the target model directly",
            )
    return cast("dict[str, bool | int | str]", parameters)
