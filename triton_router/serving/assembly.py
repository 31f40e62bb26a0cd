"""Puts together what serves the requests of one routed model."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from triton_router.serving.answering import Answering
from triton_router.serving.call_lane import CallLane
from triton_router.serving.capabilities import has_response_parameters
from triton_router.serving.dispatch import Dispatcher
from triton_router.serving.forwarding import Forwarder
from triton_router.serving.inline_gate import InlineGate
from triton_router.serving.merging import MergedCalls, Merging
from triton_router.serving.mirrors import Mirrors
from triton_router.serving.relay import Relay
from triton_router.serving.worker_pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Mapping

    from triton_router.config.router_config import RouterConfig, TargetConfig
    from triton_router.routing.engine import RoutingEngine
    from triton_router.routing.types import Outcome, RoutingDecision
    from triton_router.serving.answering import Finish
    from triton_router.serving.stub import StubModule
    from triton_router.telemetry.decision_log import DecisionLog

_NO_LANES: Mapping[str, CallLane] = {}


def observed(engine: RoutingEngine, log: DecisionLog | None) -> Finish:
    """Return what is told how each request ended: the engine, and around it whoever observes."""
    if log is None:
        return engine.finish

    def finish(decision: RoutingDecision, outcome: Outcome, now: float) -> None:
        engine.finish(decision, outcome, now)
        log.observe(decision, outcome, now)

    return finish


def dispatcher(
    stub: StubModule, engine: RoutingEngine, finish: Finish, config: RouterConfig, model_config: dict[str, Any]
) -> Dispatcher:
    """Return the dispatcher of a routed model.

    Args:
        stub: The Python backend's module.
        engine: Chooses.
        finish: Is told how each request ended.
        config: The model's settings.
        model_config: Its ``config.pbtxt``, completed.
    """
    max_batch_size = model_config["max_batch_size"]
    explains = has_response_parameters(stub) and not config.streaming
    forwarder = Forwarder(stub, batched=max_batch_size > 0, explains=explains)
    relay = Relay(stub, forwarder, streaming=config.streaming, clock=time.monotonic)
    pool = WorkerPool(config.dispatch.max_concurrency, name="dispatch")
    answering = Answering(finish, relay, pool, clock=time.monotonic)
    merging = Merging(
        _lanes(config, max_batch_size),
        MergedCalls(stub, forwarder, relay),
        answering,
        stub.Logger.log_warn,
        clock=time.monotonic,
    )
    # A thread of their own: a copy to a slow target must not keep a request from a worker.
    mirrors = Mirrors(engine, finish, forwarder, relay, WorkerPool(1, name="mirrors"), clock=time.monotonic)
    gate = InlineGate(enabled=config.dispatch.inline and not config.streaming)
    return Dispatcher(engine, forwarder, answering, merging, mirrors, gate, clock=time.monotonic)


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
    serving.reconfigure(config.dispatch, lanes, inline=config.dispatch.inline and not config.streaming)


def _lanes(config: RouterConfig, max_batch_size: int, kept: Mapping[str, CallLane] = _NO_LANES) -> dict[str, CallLane]:
    """Return a lane for each target that takes merged calls, by its name.

    Where nobody has said how many calls a target takes at once, it has none: fewer than it could take would keep its
    instances idle.

    Args:
        config: The routed model's settings.
        max_batch_size: The most rows of a call.
        kept: Lanes to go on with, with what they have learned and what waits there.
    """
    if not config.merge.enabled or config.streaming or max_batch_size <= 0:
        return {}
    lanes: dict[str, CallLane] = {}
    for target in config.targets:
        limit = config.merge.calls_in_flight or target.instances
        if not (target.batch_independent and limit):
            continue
        lane = kept.get(target.name)
        if lane is None:
            measured = [(point.work, point.latency_ms) for point in target.measured_latency]
            lane = CallLane(limit=limit, max_rows=max_batch_size, measured=measured)
        else:
            lane.resize(limit)
        lanes[target.name] = lane
    return lanes


def _merged_as(target: TargetConfig) -> tuple[object, ...]:
    """Return what makes a target's lane another one when it changes."""
    return target.name, target.model, target.version, target.measured_latency
