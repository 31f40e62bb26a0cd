"""Sends copies of sampled requests to other targets and compares their answers with those that clients got.

For the parity guard, a request that a guarded target served is asked again of the reference, and one that the
reference served of a guarded target: so a variant is judged whether it gets requests or not. A shadow gets copies of
what anybody served. What a request asks is copied before it is served, what its client got when that has been sent;
all else happens on a thread of its own.
"""

from __future__ import annotations

import traceback
from functools import partial
from typing import TYPE_CHECKING

from triton_router.config.parity_of import Comparing, Pair
from triton_router.parity.answer import kept
from triton_router.parity.sampling import Sampling
from triton_router.routing.types import Verdict
from triton_router.serving.copied_request import CopiedRequest, copied
from triton_router.serving.copy_lane import CopyLane
from triton_router.serving.second_answers import Live, SecondAnswers, outputs_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from triton_router.config.router_config import RouterConfig
    from triton_router.parity.tolerance import Tolerance
    from triton_router.routing.engine import RoutingEngine
    from triton_router.serving.exchange import Attempt, Exchange
    from triton_router.serving.forwarding import Forwarder
    from triton_router.serving.judge import Judge
    from triton_router.serving.outcomes import Finish
    from triton_router.serving.relay import Relay
    from triton_router.serving.stub import Response

_FAR = 1_000_000
"""Requests after which is looked for a next sample where there is none in sight."""


class Sample:
    """What a sampled request carries until it is answered. Its methods never raise.

    Args:
        comparisons: To whom it belongs.
        copy: What was asked.
        lanes: The kinds of copies that it is sampled for.
    """

    __slots__ = ("_comparisons", "copy", "lanes")

    def __init__(self, comparisons: Comparisons, copy: CopiedRequest, lanes: Sequence[_Kind]) -> None:
        self._comparisons = comparisons
        self.copy = copy
        self.lanes = lanes

    def answered(self, attempt: Attempt, verdict: Verdict, response: Response | None) -> None:
        """Take what the client was sent. It is read, never changed."""
        self._comparisons.answered(self, attempt, verdict, response)


class _Kind:
    """One kind of copies: how its requests are sampled, and which two targets' answers are compared."""

    def __init__(self, lane: CopyLane, pair: Callable[[str], Pair | None]) -> None:
        self.lane = lane
        self.pair = pair


class Comparisons:
    """Compares the answers of one routed model. `take` is for the thread that takes requests.

    Args:
        engine: Reserves the slots of copies.
        finish: Is told how each copy ended.
        forwarder: Writes the copies.
        relay: Judges whether they were answered.
        judge: Is told what was found.
        is_busy: Whether every worker there may be has something to do.
        rng: Uniform numbers in [0, 1).
        clock: Monotonic seconds.

    Attributes:
        uncopied: Requests that were sampled and were too large to be copied.
    """

    def __init__(  # noqa: PLR0913 - the way of a copy
        self,
        engine: RoutingEngine,
        finish: Finish,
        forwarder: Forwarder,
        relay: Relay,
        judge: Judge,
        *,
        is_busy: Callable[[], bool],
        rng: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._judge = judge
        self._asking = SecondAnswers(engine, finish, forwarder, relay, judge, clock=clock)
        self._is_busy = is_busy
        self._clock = clock
        self._comparing = Comparing()
        self._guard = CopyLane("comparisons", engine, Sampling(rng), clock=clock)
        self._shadow = CopyLane("shadow", engine, Sampling(rng), clock=clock)
        self._kinds = (_Kind(self._guard, self._guarded_pair), _Kind(self._shadow, self._shadow_pair))
        self.uncopied = 0
        self._arm()

    def go_by(self, comparing: Comparing, config: RouterConfig) -> None:
        """Compare by these settings from now on."""
        self._comparing = comparing
        parity, shadow = config.parity, config.shadow
        self._guard.sampling.go_by(parity.share if comparing.guarded or comparing.canary else 0.0, parity.budget)
        self._shadow.sampling.go_by(
            shadow.share if shadow and comparing.shadow else 0.0, shadow.budget if shadow else 0.0
        )
        self._asking.forget_all_but(comparing.targets)
        self._arm()

    def hurry(self, every_s: float) -> None:
        """Compare about every so many seconds besides, as far as the budget allows; infinite for no more."""
        self._guard.sampling.hurry(every_s, self._clock())
        self._due_at = self._guard.sampling.due_at

    def take(self, attempt: Attempt) -> None:
        """Copy what a decided request asks, if it is sampled. Never raises."""
        self._left -= 1
        if self._left > 0 and attempt.begun_at < self._due_at:
            return
        try:
            self._sample(attempt)
        except Exception:  # noqa: BLE001 - shown in the server's log; the request itself must go its way
            traceback.print_exc()

    def answered(self, sample: Sample, attempt: Attempt, verdict: Verdict, response: Response | None) -> None:
        """Have what a sampled request's client was sent compared, or questioned if it was refused. Never raises."""
        try:
            if verdict is Verdict.CLIENT_ERROR:
                self._question(sample, attempt)
            else:
                self._compare(sample, attempt, response if verdict is Verdict.SUCCESS else None)
        except Exception:  # noqa: BLE001 - an output without an array, such as BF16: its client has it all the same
            for kind in sample.lanes:
                kind.lane.let_go(attempt.exchange)

    def close(self) -> None:
        """Wait for the copies under way, if there are any."""
        self._guard.close()
        self._shadow.close()

    def _compare(self, sample: Sample, attempt: Attempt, response: Response | None) -> None:
        exchange, served = attempt.exchange, attempt.decision
        outputs = outputs_of(response) if response is not None else None
        for kind in sample.lanes:
            pair = kind.pair(served.target.name) if outputs is not None else None
            if pair is None or outputs is None:
                kind.lane.let_go(exchange)
                continue
            tolerance = self._tolerance(kind, pair)
            live = Live(kept(sample.copy.inputs, outputs, tolerance), tolerance) if tolerance is not None else None
            kind.lane.submit(exchange, partial(self._asking.compare, kind.lane, sample.copy, served, pair, live))

    def _question(self, sample: Sample, attempt: Attempt) -> None:
        """Find out whether who served a request is alone in taking it for faulty."""
        exchange, served = attempt.exchange, attempt.decision
        for kind in sample.lanes:
            pair = kind.pair(served.target.name)
            if pair is not None and pair.judged == served.target.name:
                kind.lane.submit(exchange, partial(self._asking.question, kind.lane, sample.copy, served, pair))
            else:
                kind.lane.let_go(exchange)

    def _arm(self) -> None:
        """Set after how many requests, and when, is looked again."""
        samplings = [kind.lane.sampling for kind in self._kinds]
        self._left = self._drawn = int(min(_FAR, *(sampling.left for sampling in samplings)))
        self._due_at = self._guard.sampling.due_at

    def _sample(self, attempt: Attempt) -> None:
        decision, now = attempt.decision, attempt.begun_at
        requests = self._drawn - self._left
        served_ms = decision.alone_ms or decision.expected_latency_ms
        due = [kind for kind in self._kinds if kind.lane.sampling.passed(requests, served_ms, now)]
        self._arm()
        if not due or self._is_busy():
            return
        exchange = attempt.exchange
        held = [kind for kind in due if kind.pair(decision.target.name) and kind.lane.hold(exchange, now)]
        if not held:
            return
        copy = _copied(exchange)
        if copy is None:
            self.uncopied += 1
            for kind in held:
                kind.lane.let_go(exchange)
        else:
            exchange.sample = Sample(self, copy, held)

    def _guarded_pair(self, served_by: str) -> Pair | None:
        """Return which answers are compared where this target served, of several pairs the one whose turn it is."""
        comparing = self._comparing
        pairs: list[Pair] = []
        if served_by in comparing.guarded:
            pairs.append(Pair(served_by, comparing.reference))
        elif served_by == comparing.reference:
            pairs += [Pair(judged, served_by) for judged in comparing.guarded]
        canary = [name for name in comparing.canary if self._judge.judges(name)]
        if served_by in canary:
            pairs = [Pair(served_by, comparing.stable)]
        elif canary and served_by != comparing.shadow:
            pairs = [pair for pair in pairs if pair.judged not in canary]
            pairs += [Pair(judged, served_by) for judged in canary]
        return min(pairs, key=self._asking.turn_of) if pairs else None

    def _shadow_pair(self, served_by: str) -> Pair | None:
        shadow = self._comparing.shadow
        return Pair(shadow, served_by) if shadow and served_by != shadow else None

    def _tolerance(self, kind: _Kind, pair: Pair) -> Tolerance | None:
        """Return how far two answers may be apart; None where they are not compared."""
        if kind.lane is self._shadow and not self._comparing.compares_shadow:
            return None
        return self._comparing.tolerance(pair)


def _copied(exchange: Exchange) -> CopiedRequest | None:
    try:
        return copied(exchange.request)
    except Exception:  # noqa: BLE001 - an input without an array, such as BF16, cannot be copied
        return None
