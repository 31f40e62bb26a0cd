"""What can go wrong in a soak: each fault begins, ends, and leaves everything as it was."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from triton_router.testing.chaos import Chaos, await_event
from triton_router.testing.checked_load import Habits
from triton_router.testing.process_figures import stubs_of

if TYPE_CHECKING:
    from collections.abc import Callable

_EVENT_S = 70.0
"""A process that died again and again is loaded anew after a minute at worst."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, how much, and of what.

    Attributes:
        seconds: Time of faults; starting, settling and ending come on top.
        targets: What the routed models route to; faults happen to these.
        clients: Over all routed models, HTTP and gRPC.
        models: The routed models; some faults happen to the first.
        faults: Names of the faults to draw from; all by default.
        seed: Of what is drawn.
        patience_s: After so long a client gives up.
    """

    seconds: float
    targets: tuple[str, ...]
    clients: int = 100
    models: tuple[str, ...] = ("routed", "merged")
    faults: tuple[str, ...] = ()
    seed: int = 0
    patience_s: float = 15.0


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong for a while.

    Attributes:
        happens: Does it to a target, and returns when it is over and all is well again.
        may_fail: Whether clients may notice: nobody else can serve meanwhile.
        renews: Whether the router has a new process afterwards, so that growth has to be measured from there.
    """

    happens: Callable[[Chaos, Plan, str], None]
    may_fail: bool = False
    renews: bool = False


def _switched(line: str, seconds: float = 1.5) -> Callable[[Chaos, Plan, str], None]:
    def happens(chaos: Chaos, _plan: Plan, target: str) -> None:
        chaos.fleet.switch(target, line)
        time.sleep(seconds)
        chaos.fleet.switch(target)

    return happens


def _killed(chaos: Chaos, _plan: Plan, target: str) -> None:
    _renewed(chaos, target, chaos.kill_stub(target))


def _crashes(chaos: Chaos, _plan: Plan, target: str) -> None:
    pid = chaos.stub(target)
    chaos.fleet.switch(target, "crash")
    await_event(lambda: pid not in stubs_of(chaos.served.server_pid, target), f"the end of {target}")
    chaos.fleet.switch(target)
    _renewed(chaos, target, pid)


def _renewed(chaos: Chaos, model: str, pid: int) -> None:
    await_event(
        lambda: bool(set(stubs_of(chaos.served.server_pid, model)) - {pid}),
        f"a new process of {model}",
        within_s=_EVENT_S,
    )


def _unloaded(chaos: Chaos, _plan: Plan, target: str) -> None:
    chaos.served.unload_model(target)
    time.sleep(1.0)
    chaos.served.load_model(target)


def _reloaded(chaos: Chaos, _plan: Plan, target: str) -> None:
    chaos.reload(target)


def _all_out(chaos: Chaos, plan: Plan, _target: str) -> None:
    for one in plan.targets:
        chaos.fleet.switch(one, "error:INTERNAL:broken")
    time.sleep(1.5)
    for one in plan.targets:
        chaos.fleet.switch(one)


def _left(chaos: Chaos, plan: Plan, target: str) -> None:
    # Those that hang up over HTTP are invisible: fewer than the router takes on, or it would refuse others.
    habits = Habits(clients=24, grpc_clients=8, leaves_within_s=0.03, questions=800, pause_after_error_s=0.0)
    chaos.fleet.switch(target, "sleep:0.01")
    with chaos.served.load(plan.models[0], habits) as load:
        load.wait()
    chaos.fleet.switch(target)


def _router_killed(chaos: Chaos, plan: Plan, _target: str) -> None:
    _renewed(chaos, plan.models[0], chaos.kill_stub(plan.models[0]))


def _router_reloaded(chaos: Chaos, plan: Plan, _target: str) -> None:
    pid = chaos.stub(plan.models[0])
    chaos.reload(plan.models[0])
    await_event(lambda: pid not in stubs_of(chaos.served.server_pid, plan.models[0]), "the end of the old router")


def _settings_edited(chaos: Chaos, plan: Plan, _target: str) -> None:
    path = chaos.fleet.repository / plan.models[0] / "router.yaml"
    text = path.read_text()
    chaos.fleet.edit(plan.models[0], text.replace("least-request", "round-robin"))
    time.sleep(1.5)
    chaos.fleet.edit(plan.models[0], text)


FAULTS = {
    "target killed": Fault(_killed),
    "target crashes": Fault(_crashes),
    "target unloaded": Fault(_unloaded),
    "target reloaded": Fault(_reloaded),
    "target hangs": Fault(_switched("hang", 3.0)),
    "target fails": Fault(_switched("error:INTERNAL:broken")),
    "target busy": Fault(_switched("error:UNAVAILABLE:busy")),
    "target raises": Fault(_switched("raise:broken")),
    "out of memory": Fault(_switched("memory")),
    "target slow": Fault(_switched("sleep:0.1")),
    "slow and NaN": Fault(_switched("nan:0.1")),
    "clients leave": Fault(_left),
    "settings edited": Fault(_settings_edited),
    "all targets out": Fault(_all_out, may_fail=True),
    "router killed": Fault(_router_killed, may_fail=True, renews=True),
    "router reloaded": Fault(_router_reloaded, renews=True),
}
"""Every fault, by name."""
