"""Which outputs a model may leave out, and which a target owes: learned where two targets answer the same request.

Triton asks for every output on behalf of a client that names none, so that a target that leaves one out may be broken,
or the model may be like that. One answer cannot tell. So another target is asked; what it leaves out as well is
optional, and passed on from then on. What it supplies the first one owes, whose next answer without it is a failure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from triton_router.serving.exchange import Attempt, Exchange
    from triton_router.serving.stub import Response


class OptionalOutputs:
    """What is known of the outputs of one routed model. Safe to use from several threads."""

    def __init__(self) -> None:
        # Adding to a set is atomic; of each there are at most as many as the model has outputs.
        self._optional: set[str] = set()
        self._owed: dict[str, set[str]] = {}

    def missing(self, response: Response, outputs: Collection[str]) -> set[str]:
        """Return which of the wanted outputs a good response lacks that are not known to be optional."""
        return set(outputs).difference((tensor.name() for tensor in response.output_tensors()), self._optional)

    def left_out(self, attempt: Attempt, response: Response) -> bool:
        """Take a good response that lacks outputs, and keep it unless there is a better one; whether it is a failure.

        The caller holds the exchange's lock.
        """
        exchange = attempt.exchange
        target = attempt.decision.target.name
        missing = self.missing(response, exchange.outputs)
        if exchange.incomplete is not None:
            before = self.missing(exchange.incomplete, exchange.outputs)
            self._compare(exchange, before - missing, by=target)
            self._optional |= before & missing
            if len(before) <= len(missing):
                return self._is_owed(target, missing)
        exchange.incomplete, exchange.incomplete_of = response, target
        return self._is_owed(target, missing)

    def supplied(self, attempt: Attempt) -> None:
        """Take note that a target's answer has what another's lacked."""
        exchange = attempt.exchange
        if exchange.incomplete is not None:
            before = self.missing(exchange.incomplete, exchange.outputs)
            self._compare(exchange, before, by=attempt.decision.target.name)

    def _compare(self, exchange: Exchange, supplied: set[str], *, by: str) -> None:
        # What each of two targets leaves out now and then depends on something else than the target.
        self._optional |= supplied & self._owed.get(by, set())
        self._owed.setdefault(exchange.incomplete_of, set()).update(supplied)

    def _is_owed(self, target: str, missing: set[str]) -> bool:
        return not self._owed.get(target, set()).isdisjoint(missing - self._optional)
