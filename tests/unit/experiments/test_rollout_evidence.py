"""What other instances have seen is read while requests are decided."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.experiments.rollouts import gate, plan
from triton_router.experiments.rollout import Rollout
from triton_router.experiments.splitting_engine import SplittingEngine, Trials
from triton_router.profiling.profile import TargetProfile
from triton_router.routing.policies import policy_named
from triton_router.routing.rules import RoutingRules
from triton_router.routing.types import Target, Verdict


def engine_of(**changes: Any) -> SplittingEngine:
    wanted = plan(gate=gate(), **changes)
    names = ("old", *sorted(wanted.canary))
    targets = [(Target(name, name), TargetProfile([(1, 4.0), (100, 4.0)])) for name in names]
    routing = policy_named("latency"), RoutingRules(explore=0.0, mirror=0.0)
    return SplittingEngine(targets, routing, Trials(plan=wanted), "m", rng=lambda: 0.5)


def test_no_request_waits_while_evidence_is_read() -> None:
    """With dozens of instances that takes as long as many requests: it happens outside of the engine's lock."""
    engine, other = engine_of(), engine_of()
    locked: list[bool] = []

    class Watched(dict[str, object]):
        def __contains__(self, key: object) -> bool:
            locked.append(engine._lock.locked())
            return super().__contains__(key)

    assert other._rollout is not None
    for _ in range(7):
        other._rollout.canary.note(Verdict.SUCCESS, 4.0, 0.0)
    state = other.rollout_state()
    assert state is not None
    engine.step(1.0, [Watched(state), "none"])
    report = engine.rollout_report(1.0)
    assert report is not None
    assert locked
    assert not any(locked)
    assert report["answers_in_step"] == 7
    assert report["ignored_peers"] == 1


@pytest.mark.parametrize(("outcome", "phase"), [("abort", "rolled_back"), ("promote", "promoted")])
def test_an_end_stands_without_its_evidence(outcome: str, phase: str) -> None:
    """As after an upgrade that counts otherwise; while a rollout goes on, it begins anew instead."""
    ended = Rollout(plan(gate=gate(), outcome=outcome))
    ended.step(0.0)
    again = Rollout.from_state(plan(gate=gate()), ended.state() | {"strata": {"rows": "of another time"}})
    assert again.step(1.0) == []
    assert (again.phase, again.share) == (phase, ended.share)
    older = {key: value for key, value in ended.state().items() if key != "generation"}
    assert Rollout.from_state(plan(gate=gate()), older).phase == phase
    with pytest.raises(ValueError, match="rollout"):
        Rollout.from_state(plan(gate=gate()), ended.state() | {"strata": {"rows": []}, "phase": "running"})
