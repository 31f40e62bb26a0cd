"""Puts together what serves the requests of one routed model."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from triton_router.config.parity_of import comparing_of
from triton_router.config.resilience_settings import DeadlineConfig, HedgeConfig, QueueConfig, RetryConfig
from triton_router.serving.admission import Admission
from triton_router.serving.answering import Answering
from triton_router.serving.bounds import Bounds
from triton_router.serving.call_lane import CallLane
from triton_router.serving.capabilities import has_response_parameters
from triton_router.serving.comparisons import Comparisons
from triton_router.serving.dispatch import Dispatcher
from triton_router.serving.failover import Failover
from triton_router.serving.forwarding import Forwarder
from triton_router.serving.further_attempts import FurtherAttempts
from triton_router.serving.inline_gate import InlineGate
from triton_router.serving.intake import Intake
from triton_router.serving.judge import NOBODY
from triton_router.serving.lane_worker import LaneWorker
from triton_router.serving.merged_calls import MergedCalls
from triton_router.serving.merging import Merging
from triton_router.serving.mirrors import Mirrors
from triton_router.serving.outcomes import Outcomes
from triton_router.serving.relay import Relay
from triton_router.serving.replies import Replies
from triton_router.serving.resilience_counts import ResilienceCounts
from triton_router.serving.sequence_intake import SequenceIntake
from triton_router.serving.waiting_room import WaitingRoom
from triton_router.serving.worker_pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from triton_router.config.router_config import RouterConfig, TargetConfig
    from triton_router.routing.engine import RoutingEngine
    from triton_router.routing.types import Outcome, RoutingDecision
    from triton_router.serving.judge import Judge
    from triton_router.serving.outcomes import Finish
    from triton_router.serving.stub import StubModule
    from triton_router.telemetry.decision_log import DecisionLog

_MIRRORS = 4
"""Copies that may hang at their targets, all but one of them given up, before no more are made."""
_NO_LANES: Mapping[str, CallLane] = {}


def observed(engine: RoutingEngine, log: DecisionLog | None) -> Finish:
    """Return what is told how each request ended: the engine, and around it whoever observes."""
    if log is None:
        return engine.finish

    def finish(decision: RoutingDecision, outcome: Outcome, now: float) -> None:
        engine.finish(decision, outcome, now)
        log.observe(decision, outcome, now)

    return finish


@dataclass(frozen=True)
class Way:
    """How the requests of one routed model go, as its settings and its ``config.pbtxt`` say.

    Attributes:
        batched: Whether dimension 0 of every input is the batch.
        strings: Names of the inputs that hold strings.
        streaming: Whether a request may be answered several times.
        explains: Whether answers can say why their target was chosen.
        takes_sequences: Whether all requests of a sequence come here: they do not where there are several instances and
            Triton does not keep sequences together.
        inline: Whether a lone request may be served without a thread.
        workers: Most calls in flight at once.
        targets: How many there are.
        lanes: For targets that take merged calls, by name.
        retry, deadline, hedge, queue: As in ``router.yaml``.
    """

    batched: bool = True
    strings: frozenset[str] = frozenset()
    streaming: bool = False
    explains: bool = False
    takes_sequences: bool = True
    inline: bool = False
    workers: int = 64
    targets: int = 1
    lanes: Mapping[str, CallLane] = field(default_factory=dict[str, CallLane])
    retry: RetryConfig = field(default_factory=RetryConfig)
    deadline: DeadlineConfig = field(default_factory=DeadlineConfig)
    hedge: HedgeConfig = field(default_factory=HedgeConfig)
    queue: QueueConfig = field(default_factory=QueueConfig)

    @property
    def compares(self) -> bool:
        """Whether one target that leaves outputs out can be told from a model that has none to give."""
        return self.retries

    @property
    def retries(self) -> bool:
        """Whether there is anything else to try when a target fails."""
        return self.retry.idempotent and self.retry.attempts > 1 and self.targets > 1

    @property
    def hedges(self) -> bool:
        """Whether a request may go to a second target while the first is at it."""
        return self.retries and self.hedge.share > 0.0 and not self.streaming


def way_of(config: RouterConfig, model_config: dict[str, Any], *, explains: bool = False) -> Way:
    """Return the way of a routed model's requests.

    Args:
        config: The model's settings.
        model_config: Its ``config.pbtxt``, completed.
        explains: Whether this server carries explanations.
    """
    max_batch_size = model_config["max_batch_size"]
    return Way(
        batched=max_batch_size > 0,
        strings=frozenset(io["name"] for io in model_config.get("input", ()) if io["data_type"] == "TYPE_STRING"),
        streaming=config.streaming,
        explains=explains and not config.streaming,
        takes_sequences=_takes_sequences(model_config),
        inline=config.dispatch.inline and not config.streaming,
        workers=config.dispatch.max_concurrency,
        targets=len(config.targets),
        lanes=_lanes(config, max_batch_size),
        retry=config.retry,
        deadline=config.deadline,
        hedge=config.hedge,
        queue=config.queue,
    )


def dispatcher(
    stub: StubModule,
    engine: RoutingEngine,
    finish: Finish,
    config: RouterConfig,
    model_config: dict[str, Any],
    *,
    judge: Judge = NOBODY,
) -> Dispatcher:
    """Return the dispatcher of a routed model.

    Args:
        stub: The Python backend's module.
        engine: Chooses.
        finish: Is told how each request ended.
        config: The model's settings.
        model_config: Its ``config.pbtxt``, completed.
        judge: Is told how answers of several targets to the same request differ.
    """
    way = way_of(config, model_config, explains=has_response_parameters(stub))
    serving = assembled(stub, engine, finish, way, warn=stub.Logger.log_warn, judge=judge)
    serving.comparisons.go_by(comparing_of(config), config)
    return serving


def assembled(
    stub: StubModule,
    engine: RoutingEngine,
    finish: Finish,
    way: Way,
    *,
    warn: Callable[[str], None],
    judge: Judge = NOBODY,
) -> Dispatcher:
    """Put the parts of a dispatcher together.

    Args:
        stub: The Python backend's module.
        engine: Chooses.
        finish: Is told how each request ended.
        way: How requests go.
        warn: Tells the server's log.
        judge: Is told how answers of several targets to the same request differ.
    """
    clock = time.monotonic
    forwarder = Forwarder(stub, batched=way.batched, strings=way.strings, explains=way.explains, clock=clock)
    relay = Relay(stub, forwarder, streaming=way.streaming, compares=way.compares, clock=clock)
    counts = ResilienceCounts()
    failover = Failover(engine, counts, retries=way.retries, hedges=way.hedges)
    outcomes = Outcomes(finish, clock=clock)
    replies = Replies(relay, outcomes, counts)
    further = FurtherAttempts(failover, replies, outcomes, relay.optional, clock=clock)
    answering = Answering(relay, WorkerPool(way.workers, name="dispatch"), replies, outcomes, further, clock=clock)
    calls = MergedCalls(stub, forwarder, relay)
    worker = LaneWorker(calls, answering, warn, clock=clock)
    merging = Merging(way.lanes, calls, worker, answering, clock=clock)
    # A thread of their own: a copy to a slow target must not keep a request from a worker.
    mirrors = Mirrors(engine, finish, forwarder, relay, WorkerPool(_MIRRORS, name="mirrors"), clock=clock)
    mirrors.enabled = way.retry.idempotent
    comparisons = Comparisons(
        engine, finish, forwarder, relay, judge, is_busy=answering.is_busy, rng=random.random, clock=clock
    )
    room = WaitingRoom()
    admission = Admission(
        way.queue.limit,
        reject_late=way.queue.reject_late,
        replies=replies,
        room=room,
        merging=merging,
        counts=counts,
    )
    bounds = Bounds(enforce=way.deadline.enforce, default_ms=way.deadline.default_ms)
    intake = Intake(engine, forwarder, bounds, failover, clock=clock)
    sequences = SequenceIntake(intake, answering, admission, WorkerPool(way.workers, name="sequences"))
    sequences.is_open = way.takes_sequences
    return Dispatcher(
        engine,
        intake,
        sequences,
        answering,
        merging,
        mirrors,
        comparisons=comparisons,
        gate=InlineGate(enabled=way.inline),
        failover=failover,
        admission=admission,
        room=room,
        counts=counts,
        clock=clock,
    )


def reconfigure(serving: Dispatcher, before: RouterConfig, config: RouterConfig, model_config: dict[str, Any]) -> None:
    """Have a dispatcher serve further requests by other settings.

    Args:
        serving: As `dispatcher` made it.
        before: The settings that it follows now.
        config: Those to follow from now on.
        model_config: As it was made with.
    """
    unchanged = {_merged_as(target) for target in before.targets}
    kept = {
        target.name: serving.lanes[target.name]
        for target in config.targets
        if target.name in serving.lanes and _merged_as(target) in unchanged
    }
    lanes = _lanes(config, model_config["max_batch_size"], kept)
    way = way_of(config, model_config)
    serving.reconfigure(way.workers, lanes, inline=way.inline, compares=way.compares)
    serving.failover.go_by(retries=way.retries, hedges=way.hedges)
    serving.mirrors.enabled = way.retry.idempotent
    serving.comparisons.go_by(comparing_of(config), config)
    serving.intake.bounds.go_by(enforce=way.deadline.enforce, default_ms=way.deadline.default_ms)
    serving.admission.limit = way.queue.limit
    serving.admission.reject_late = way.queue.reject_late


def _lanes(config: RouterConfig, max_batch_size: int, kept: Mapping[str, CallLane] = _NO_LANES) -> dict[str, CallLane]:
    """Return a lane for each target that takes merged calls, by its name.

    Args:
        config: The routed model's settings.
        max_batch_size: The most rows of a call.
        kept: Lanes to go on with, with what they have learned and what waits there.
    """
    lanes: dict[str, CallLane] = {}
    for target in config.targets if max_batch_size > 0 else ():
        limit = config.calls_in_flight_at(target)
        if not limit:
            continue
        lane = kept.get(target.name)
        if lane is None:
            measured = [(point.work, point.latency_ms) for point in target.measured_latency]
            lane = CallLane(limit=limit, max_rows=max_batch_size, measured=measured)
        else:
            lane.resize(limit)
        lanes[target.name] = lane
    return lanes


def _takes_sequences(model_config: dict[str, Any]) -> bool:
    instances = sum(group.get("count", 1) for group in model_config.get("instance_group", []))
    return instances <= 1 or "sequence_batching" in model_config


def _merged_as(target: TargetConfig) -> tuple[object, ...]:
    """Return what makes a target's lane another one when it changes."""
    return target.name, target.model, target.version, target.measured_latency
