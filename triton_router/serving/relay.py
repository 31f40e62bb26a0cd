"""One call to a target: the request forwarded, the answer or answers sent on, and whose fault an error was."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

from triton_router.errors import TritonRouterError, mapping_of
from triton_router.routing.types import Verdict
from triton_router.serving.exchange import NOT_SENT
from triton_router.serving.explanation_json import as_json
from triton_router.serving.optional_outputs import OptionalOutputs
from triton_router.serving.target_errors import code_of, has_expired, is_late, is_overloaded, own_words

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
_SLACK_US = 1000
"""A request that its target gave up so shortly before its own time is over was given up for that."""


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
        compares: Whether another target may be asked for a request, so that one that leaves outputs out can be told
            from a model that has none to give.

    Attributes:
        compares: As passed; it may be changed while requests are served.
        optional: What is known of outputs that answers lack.
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
        self.optional = OptionalOutputs()
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
            return exchange.incomplete  # better than an error
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
        if self.compares and len(response.output_tensors()) < len(outputs) and self.optional.missing(response, outputs):
            return Verdict.TARGET_ERROR, response
        return Verdict.SUCCESS, response

    def relayed_for(self, attempt: Attempt, response: Response) -> tuple[Verdict, Response]:
        """Return the same for the response that an attempt brought, in the light of what its request allows.

        That the request's own time has passed is nobody's failure. A routed model that refuses it for having too much
        to do is no broken one: it may be tried elsewhere, and the attempt is marked as turned away.
        """
        exchange = attempt.exchange
        verdict, relayed = self.relayed(response, exchange.outputs)
        if verdict is Verdict.TARGET_ERROR and relayed.has_error():
            message = relayed.error().message()
            if self._was_too_short(exchange, message):
                verdict = Verdict.CANCELLED
            attempt.is_turned_away = is_overloaded(message)
        return verdict, relayed

    def verdict_on_copy(self, response: Response) -> Verdict:
        """Return the verdict on a target's response to a copy, which has its request's bound but not its time."""
        verdict, relayed = self.relayed(response)
        if verdict is Verdict.TARGET_ERROR:
            message = relayed.error().message()
            if is_overloaded(message) or is_late(message):
                return Verdict.CANCELLED
        return verdict

    def _call(self, attempt: Attempt) -> tuple[Verdict, Response | None]:
        exchange = attempt.exchange
        request = self._forwarder.request_for(attempt.decision.target, exchange)
        if request is None:
            return NOT_SENT
        return self.relayed_for(attempt, request.exec())

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
                return self.relayed_for(attempt, response)
            if self._clock() > look_at:
                look_at = self._clock() + _LOOK_EVERY_S
                is_wanted = is_wanted and not exchange.is_cancelled()
            # A decoupled target may end its stream with an empty response: the final flag says as much. What comes
            # after a cancellation is taken from the target, which cannot be stopped, and dropped.
            if response.output_tensors() and is_wanted:
                is_wanted = exchange.send_part(attempt, self.relayed(response)[1])
        return (Verdict.SUCCESS if is_wanted else Verdict.CANCELLED), None

    def _was_too_short(self, exchange: Exchange, message: str) -> bool:
        """Whether a target gave a request up because the time that its client gave it has passed."""
        if has_expired(message):
            given_us = exchange.timeout_us
        elif is_late(message) and exchange.context.max_latency_ms:  # else it had a time of its own
            given_us = exchange.bound_ms * 1e3
        else:
            return False
        return 0 < given_us < (self._clock() - exchange.taken_at) * 1e6 + _SLACK_US

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
