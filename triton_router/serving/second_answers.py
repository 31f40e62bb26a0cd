"""Asks another target what a client has asked, and has judged what comes of it; on the threads of the copies' lanes."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any, NamedTuple

from triton_router.errors import RequestError
from triton_router.parity.answer import Answer, compared, kept
from triton_router.parity.difference import Difference
from triton_router.routing.types import Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from numpy.typing import NDArray

    from triton_router.config.parity_of import Pair
    from triton_router.parity.tolerance import Tolerance
    from triton_router.routing.engine import RoutingEngine
    from triton_router.routing.types import RoutingDecision
    from triton_router.serving.copied_request import CopiedRequest
    from triton_router.serving.copy_lane import CopyLane
    from triton_router.serving.forwarding import Forwarder
    from triton_router.serving.judge import Judge
    from triton_router.serving.outcomes import Finish
    from triton_router.serving.relay import Relay
    from triton_router.serving.stub import BlsRequest, Response


class Live(NamedTuple):
    """What a client got, and how far another answer may be from it."""

    answer: Answer
    tolerance: Tolerance


class SecondAnswers:
    """Asks again for one routed model. `compare` and `question` never raise.

    Args:
        engine: Reserves the slots of copies.
        finish: Is told how each copy ended.
        forwarder: Writes the copies.
        relay: Judges whether they were answered.
        judge: Is told what was found.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        engine: RoutingEngine,
        finish: Finish,
        forwarder: Forwarder,
        relay: Relay,
        judge: Judge,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._finish = finish
        self._forwarder = forwarder
        self._relay = relay
        self._judge = judge
        self._clock = clock
        self._turns: dict[Pair, int] = {}
        self._turn = 0

    def turn_of(self, pair: Pair) -> int:
        """Return when a pair had its last turn: the smaller, the longer ago; 0 for never."""
        return self._turns.get(pair, 0)

    def forget_all_but(self, judged: Container[str]) -> None:
        """Forget the turns of targets that are gone."""
        self._turns = {pair: turn for pair, turn in self._turns.items() if pair.judged in judged}

    def compare(
        self, lane: CopyLane, copy: CopiedRequest, served: RoutingDecision, pair: Pair, live: Live | None
    ) -> None:
        """Ask the other target and compare, on a thread of the lane's own."""
        self._note_turn(pair)
        begun_at = self._clock()
        decision: RoutingDecision | None = None
        try:
            decision = self._engine.copy(served, pair.other_than(served.target.name), begun_at)
            if decision is None:
                return
            lane.begin(decision)
            verdict, response = self._answer(decision, copy)
            if verdict is Verdict.CLIENT_ERROR and live is not None and pair.judged != served.target.name:
                self._note_refusal(pair, copy)
            elif response is None:
                self._judge.note_failed(pair)
            elif live is not None:
                self._compare(pair, copy, live, response, is_live_judged=pair.judged == served.target.name)
        except Exception:  # noqa: BLE001 - nobody waits for it; the server's log shows it
            traceback.print_exc()
        finally:
            lane.end(decision, (self._clock() - begun_at) * 1e3)

    def question(self, lane: CopyLane, copy: CopiedRequest, served: RoutingDecision, pair: Pair) -> None:
        """Ask the one that is right whether a request is at fault that the judged one has refused.

        If it is not, the judged one is asked again: a client's request has more than a copy, such as an id, and with
        what only the one was asked nobody is to have a target put out of service.
        """
        self._note_turn(pair)
        begun_at = self._clock()
        decision: RoutingDecision | None = None
        try:
            decision = self._engine.copy(served, pair.by, begun_at)
            if decision is None:
                return
            lane.begin(decision)
            if self._answer(decision, copy)[0] is not Verdict.SUCCESS:
                return
            again = self._engine.copy(decision, pair.judged, self._clock())
            if again is None:
                return
            if not lane.go_on(decision, again):
                self._finish(again, Outcome(Verdict.CANCELLED, 0.0), self._clock())
                return
            decision = again
            if self._answer(decision, copy)[0] is Verdict.CLIENT_ERROR:
                self._note_refusal(pair, copy)
        except Exception:  # noqa: BLE001 - nobody waits for it; the server's log shows it
            traceback.print_exc()
        finally:
            lane.end(decision, (self._clock() - begun_at) * 1e3)

    def _note_turn(self, pair: Pair) -> None:
        self._turn += 1
        self._turns[pair] = self._turn

    def _note_refusal(self, pair: Pair, copy: CopiedRequest) -> None:
        # Its clients are told that they are at fault, which no count of its failures shows.
        refusal = f"refuses what {pair.by!r} answers"
        self._judge.note(pair, Difference(problem=refusal), refusal, copy.inputs)

    def _answer(self, decision: RoutingDecision, copy: CopiedRequest) -> tuple[Verdict, Response | None]:
        """Return how a copy ended, of which the engine has learned, and the target's answer; None if there is none."""
        begun_at = self._clock()
        verdict, response = Verdict.CANCELLED, None
        try:
            response = _executed(self._forwarder.copy_for(decision.target, copy, copy.inputs))
            if response is not None:
                verdict = self._relay.verdict_on_copy(response)
        except RequestError:  # it could not be forwarded to who was to serve it either
            pass
        finally:
            ended_at = self._clock()
            self._finish(decision, Outcome(verdict, (ended_at - begun_at) * 1e3), ended_at)
        return verdict, response if verdict is Verdict.SUCCESS else None

    def _compare(
        self, pair: Pair, copy: CopiedRequest, live: Live, response: Response, *, is_live_judged: bool
    ) -> None:
        answer, tolerance = live
        outputs = outputs_of(response)
        if outputs is None:
            self._judge.note_failed(pair)
            return
        other = kept(copy.inputs, outputs, tolerance)
        found = compared(answer, other, tolerance) if is_live_judged else compared(other, answer, tolerance)
        self._judge.note(pair, found, found.exceeds(tolerance), copy.inputs)


def _executed(request: BlsRequest) -> Response | None:
    try:
        return request.exec()
    except Exception:  # noqa: BLE001 - the stub's own class; what does not come back is counted as failed
        return None


def outputs_of(response: Response) -> dict[str, NDArray[Any]] | None:
    """Return a response's outputs; None if they do not lie in this machine's memory.

    That costs nothing: they lie in shared memory, but for strings, which the stub has made when the response came.
    """
    tensors = response.output_tensors()
    if not all(tensor.is_cpu() for tensor in tensors):
        return None
    return {tensor.name(): tensor.as_numpy() for tensor in tensors}
