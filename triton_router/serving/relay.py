"""One call to a target: the request forwarded, the answer or answers sent on, and whose fault an error was."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

from triton_router.errors import TritonRouterError, mapping_of
from triton_router.routing.types import Verdict
from triton_router.serving.exchange import NOT_SENT
from triton_router.serving.explanation_json import as_json
from triton_router.serving.target_errors import code_of, has_expired, own_words

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from triton_router.routing.explanation import Explanation
    from triton_router.serving.exchange import Attempt, Exchange
    from triton_router.serving.forwarding import Forwarder
    from triton_router.serving.stub import Response, ResponseSender, StubError, StubModule

_CLIENT_CODES = frozenset({"INVALID_ARG", "UNSUPPORTED"})
EXPLANATION_PARAMETER = "router_explanation"
"""Response parameter that carries the explanation that ``router_explain`` asked for, as JSON."""
_LOOK_EVERY_S = 0.05
"""How often a stream asks whether its client is still there; asking takes 85 us."""
_TIMEOUT_SLACK_US = 1000
"""A request that a target's queue gave up so shortly before its own time is over was given up for that."""


def parameters_of(response: Response) -> dict[str, object]:
    """Return a response's own parameters; servers before 25.02 have none."""
    read: Callable[[], str] | None = getattr(response, "parameters", None)
    return cast("dict[str, object]", json.loads(read() or "{}") or {}) if read is not None else {}


class Relay:
    """Calls targets for one routed model.

    Args:
        stub: The Python backend's module.
        forwarder: Rewrites requests.
        streaming: Whether the routed model is decoupled, so that a target may answer several times.
        clock: Monotonic seconds.
        compares: Whether there are several targets, so that one that leaves outputs out can be told from a model that
            has none to give.

    Attributes:
        compares: As passed; it may be changed while requests are served.
    """

    def __init__(
        self,
        stub: StubModule,
        forwarder: Forwarder,
        *,
        streaming: bool,
        clock: Callable[[], float],
        compares: bool = False,
    ) -> None:
        self._stub = stub
        self._forwarder = forwarder
        self._clock = clock
        self.compares = compares
        # What several targets left out of their answers to the same request.
        self._optional: set[frozenset[str]] = set()
        self._final = stub.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        self._codes = {
            name: getattr(stub.TritonError, name)
            for name in ("UNKNOWN", "INTERNAL", "NOT_FOUND", "INVALID_ARG", "UNAVAILABLE", "UNSUPPORTED", "CANCELLED")
            if hasattr(stub.TritonError, name)
        }
        self._names = {code: name for name, code in self._codes.items()}
        self.answer = self._stream if streaming else self._call

    def send_last(self, sender: ResponseSender, response: Response | None) -> None:
        """Send the last response of a request; None ends a stream without one more."""
        if response is None:
            sender.send(flags=self._final)
        else:
            sender.send(response, flags=self._final)

    def refused(self, error: TritonRouterError) -> Response:
        """Return the response for an error of the router's own."""
        return self._error(str(error), mapping_of(error).triton)

    def broken(self, error: BaseException) -> Response:
        """Return the response for an exception that nobody foresaw: the client must hear something."""
        return self._error(f"the router failed on this request: {type(error).__name__}: {error}", "INTERNAL")

    def explained(self, response: Response, explanation: Explanation, target: str) -> Response:
        """Return a good response with the explanation of its target as a parameter; an error as it is."""
        if response.has_error():
            return response
        explained = json.dumps({"target": target, **as_json(explanation)})
        parameters = {**parameters_of(response), EXPLANATION_PARAMETER: explained}
        return self._stub.InferenceResponse(output_tensors=response.output_tensors(), parameters=parameters)

    def failed(self, exchange: Exchange) -> Response | None:
        """Return the answer for a request that no target could answer: the first error, which says most."""
        if exchange.incomplete is not None:
            # Better than an error. What several targets leave out is no failure, but what the model is like.
            if exchange.failure is None and len(exchange.failed) > 1:
                self._optional.add(frozenset(self._missing(exchange.incomplete, exchange.outputs)))
            return exchange.incomplete
        if exchange.failure is None or len(exchange.failed) == 1:
            return exchange.failure
        error = exchange.failure.error()
        names = ", ".join(repr(decision.target.name) for decision in exchange.failed)
        message = f"{error.message()} ({len(exchange.failed)} targets were tried: {names})"
        return self._stub.InferenceResponse(output_tensors=[], error=self._stub.TritonError(message, error.code()))

    def relayed(self, response: Response, outputs: Collection[str] = ()) -> tuple[Verdict, Response]:
        """Return the verdict on a target's response, and what the client gets: a good one as it is, uncopied.

        Args:
            response: The target's.
            outputs: Names of the outputs that were asked for.
        """
        if response.has_error():
            return self._relayed_error(response.error())
        if self.compares and len(response.output_tensors()) < len(outputs) and self._lacks(response, outputs):
            return Verdict.TARGET_ERROR, response
        return Verdict.SUCCESS, response

    def _call(self, attempt: Attempt) -> tuple[Verdict, Response | None]:
        exchange = attempt.exchange
        request = self._forwarder.request_for(attempt.decision.target, exchange)
        if request is None:
            return NOT_SENT
        return self._in_its_time(exchange, *self.relayed(request.exec(), exchange.outputs))

    def _stream(self, attempt: Attempt) -> tuple[Verdict, Response | None]:
        exchange = attempt.exchange
        if exchange.sender is None:
            raise TypeError("a streaming routed model answers through a sender")
        request = self._forwarder.request_for(attempt.decision.target, exchange)
        if request is None:
            return NOT_SENT
        is_wanted = True
        look_at = self._clock() + _LOOK_EVERY_S
        for response in request.exec(decoupled=True):
            if response.has_error():
                return self._in_its_time(exchange, *self.relayed(response))
            if self._clock() > look_at:
                look_at = self._clock() + _LOOK_EVERY_S
                is_wanted = is_wanted and not exchange.is_cancelled()
            # A decoupled target may end its stream with an empty response: the final flag says as much. What comes
            # after a cancellation is taken from the target, which cannot be stopped, and dropped.
            if response.output_tensors() and is_wanted:
                is_wanted = exchange.send_part(attempt, self.relayed(response)[1])
        return (Verdict.SUCCESS if is_wanted else Verdict.CANCELLED), None

    def _in_its_time(self, exchange: Exchange, verdict: Verdict, response: Response) -> tuple[Verdict, Response]:
        """Return an answer with its verdict: that the request's own ``timeout`` has passed is nobody's failure."""
        if verdict is Verdict.TARGET_ERROR and exchange.timeout_us and response.has_error():
            spent_us = (self._clock() - exchange.taken_at) * 1e6
            if spent_us > exchange.timeout_us - _TIMEOUT_SLACK_US and has_expired(response.error().message()):
                return Verdict.CANCELLED, response
        return verdict, response

    def _lacks(self, response: Response, outputs: Collection[str]) -> bool:
        """Whether a good response lacks outputs that another target could be expected to have."""
        return frozenset(self._missing(response, outputs)) not in self._optional

    @staticmethod
    def _missing(response: Response, outputs: Collection[str]) -> set[str]:
        return set(outputs) - {tensor.name() for tensor in response.output_tensors()}

    def _relayed_error(self, error: StubError) -> tuple[Verdict, Response]:
        message = own_words(error.message())
        code = self._names.get(error.code(), "INTERNAL")
        if code == "INTERNAL":
            code = code_of(message)
        if code in _CLIENT_CODES:
            verdict = Verdict.CLIENT_ERROR
        elif code == "CANCELLED":
            verdict = Verdict.CANCELLED
        else:
            verdict = Verdict.TARGET_ERROR
        return verdict, self._error(message, code)

    def _error(self, message: str, code: str) -> Response:
        triton_error = self._stub.TritonError(message, self._codes.get(code, self._codes["INTERNAL"]))
        return self._stub.InferenceResponse(output_tensors=[], error=triton_error)
