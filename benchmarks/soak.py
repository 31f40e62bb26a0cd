"""``scripts/bench soak``: clients that never stop, and one random fault after the other, for as long as you like.

Every answer is checked against its question. At the end nothing may be in flight, no question without an end, no
answer another's, and the router's processes may hold no more than they did. It ends by itself, and with status 1 if
something is not as it has to be.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from triton_router.errors import TritonRouterError
from triton_router.testing.chaos import Chaos, await_event
from triton_router.testing.checked_load import Habits
from triton_router.testing.process_figures import figures_of, stub_of, stubs_of
from triton_router.testing.served_triton import served_triton
from triton_router.testing.switched_fleet import SwitchedFleet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from triton_router.testing.checked_load import CheckedLoad
    from triton_router.testing.process_figures import ProcessFigures

TARGETS = ("a", "b", "c", "d")
HEALTH = {"first_pause_s": 0.5, "longest_pause_s": 2.0, "slow_start_s": 1.0}
_SETTLE_S = 2.0
_GAP_S = 1.0
_EVENT_S = 30.0
_ALLOWED_GROWTH = 1.15
_ALLOWED_KB = 8 << 10
_ALLOWED_THREADS = 8
_ALLOWED_FILES = 8


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, how much, and of what.

    Attributes:
        seconds: Time of faults; starting, settling and ending come on top.
        clients: Over all routed models, HTTP and gRPC.
        models: The routed models.
        targets: What they route to; faults happen to these.
        faults: Names of the faults to draw from; all by default.
        seed: Of what is drawn.
        patience_s: After so long a client gives up.
    """

    seconds: float
    clients: int = 100
    models: tuple[str, ...] = ("routed", "merged")
    targets: tuple[str, ...] = TARGETS
    faults: tuple[str, ...] = ()
    seed: int = 0
    patience_s: float = 15.0


@dataclass(slots=True)
class FaultRow:
    """What clients saw of one kind of fault, all its occurrences together."""

    times: int = 0
    answered: int = 0
    failed: int = 0
    missing: int = 0
    worst_ms: float = 0.0
    longest_s: float = 0.0


@dataclass(slots=True)
class Sample:
    """What one routed model's process held at one moment, in seconds since the begin."""

    at_s: float
    model: str
    pid: int
    figures: ProcessFigures


@dataclass(slots=True)
class Report:
    """What a soak found; ``problems`` is empty if all is well."""

    seconds: float = 0.0
    asked: int = 0
    answered: int = 0
    failed: int = 0
    missing: int = 0
    wrong: int = 0
    unaccounted: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    in_flight: dict[str, int] = field(default_factory=dict[str, int])
    failures: dict[str, int] = field(default_factory=dict[str, int])
    faults: dict[str, FaultRow] = field(default_factory=dict[str, FaultRow])
    samples: list[Sample] = field(default_factory=list[Sample])
    problems: list[str] = field(default_factory=list[str])


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
    habits = Habits(clients=24, grpc_clients=8, leaves_within_s=0.03, questions=2000, pause_after_error_s=0.0)
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


class Soak:
    """One soak over a served fleet.

    Args:
        chaos: The fleet.
        plan: What to do to it.
    """

    def __init__(self, chaos: Chaos, plan: Plan) -> None:
        self._chaos = chaos
        self._plan = plan
        self._rng = random.Random(plan.seed)
        self._report = Report()
        self._loads: list[CheckedLoad] = []
        self._began = 0.0
        self._sampled_at = float("-inf")
        self._renewed_s = 0.0

    def run(self) -> Report:
        """Run it to its end."""
        plan = self._plan
        with ExitStack() as stack:
            for model, habits in self._habits().items():
                self._loads.append(stack.enter_context(self._chaos.served.load(model, habits)))
            time.sleep(_SETTLE_S)
            self._began = time.monotonic()
            while time.monotonic() - self._began < plan.seconds:
                self._one_fault()
                self._sample()
            for load in self._loads:
                load.stop()
        self._sampled_at = float("-inf")
        self._sample()
        self._conclude()
        return self._report

    def _habits(self) -> dict[str, Habits]:
        share = self._plan.clients // len(self._plan.models)
        habits = Habits(
            clients=share - share // 5,
            grpc_clients=share // 5,
            patience_s=self._plan.patience_s,
            pause_s=0.02,
            seconds=self._plan.seconds + 600.0,
            questions=10_000_000,
        )
        return dict.fromkeys(self._plan.models, habits)

    def _one_fault(self) -> None:
        plan, elapsed = self._plan, time.monotonic() - self._began
        # Growth is told from one process: in the second half the router keeps the one it has.
        names = [name for name in plan.faults or FAULTS if elapsed < plan.seconds / 2 or not FAULTS[name].renews]
        seen = [min(names, key=self._times)] if self._rng.random() < 0.5 else names
        name, target = self._rng.choice(seen), self._rng.choice(plan.targets)
        fault, row = FAULTS[name], self._report.faults.setdefault(name, FaultRow())
        before = self._counts()
        for load in self._loads:
            load.seen.worst_ms = 0.0
        begun = time.monotonic()
        try:
            fault.happens(self._chaos, plan, target)
            for model in plan.models:
                self._chaos.await_none_out(model, within_s=_EVENT_S)
        except (TimeoutError, TritonRouterError) as error:
            self._report.problems.append(f"{name} ({target}) at {elapsed:.0f} s: {error}")
            self._chaos.heal(plan.models[0], *plan.targets)
        row.longest_s = max(row.longest_s, time.monotonic() - begun)
        time.sleep(_GAP_S + (plan.patience_s if fault.renews and fault.may_fail else 0.0))
        answered, failed, missing = (now - then for now, then in zip(self._counts(), before, strict=True))
        row.times += 1
        row.answered += answered
        row.failed += failed
        row.missing += missing
        row.worst_ms = max(row.worst_ms, *(load.seen.worst_ms for load in self._loads))
        if fault.renews:
            self._renewed_s = time.monotonic() - self._began
        if (failed or missing) and not fault.may_fail:
            self._report.problems.append(f"{name} ({target}) at {elapsed:.0f} s: {failed} failed, {missing} missing")
        print(
            f"{elapsed:6.0f} s  {name} ({target}): {answered} answers, {failed} failed, {missing} missing, "
            f"worst {max(load.seen.worst_ms for load in self._loads):.0f} ms",
            file=sys.stderr,
            flush=True,
        )

    def _times(self, name: str) -> int:
        row = self._report.faults.get(name)
        return row.times if row else 0

    def _counts(self) -> tuple[int, int, int]:
        seen = [load.seen for load in self._loads]
        return sum(s.answered for s in seen), sum(s.failed for s in seen), sum(s.missing for s in seen)

    def _sample(self) -> None:
        now = time.monotonic()
        if now - self._sampled_at < self._plan.seconds / 40:
            return
        self._sampled_at = now
        for model in self._plan.models:
            try:
                pid = stub_of(self._chaos.served.server_pid, model)
                sample = Sample(now - self._began, model, pid, figures_of(pid))
            except (TritonRouterError, OSError):  # it is being replaced
                continue
            self._report.samples.append(sample)

    def _conclude(self) -> None:
        report, seen = self._report, [load.seen for load in self._loads]
        report.seconds = time.monotonic() - self._began
        report.asked = sum(one.asked for one in seen)
        report.answered, report.failed, report.missing = self._counts()
        report.wrong = sum(one.wrong_count for one in seen)
        report.unaccounted = report.asked - sum(one.accounted for one in seen)
        report.p50_ms = max(one.quantile_ms(0.5) for one in seen)
        report.p99_ms = max(one.quantile_ms(0.99) for one in seen)
        for one in seen:
            for message, count in one.failures.items():
                report.failures[message] = report.failures.get(message, 0) + count
            report.problems += one.wrong
        if report.unaccounted:
            report.problems.append(f"{report.unaccounted} questions have no end")
        for model in self._plan.models:
            report.in_flight[model] = self._chaos.await_idle(model)
            if report.in_flight[model]:
                report.problems.append(f"{model}: {report.in_flight[model]} still counted as in flight")
            report.problems += self._growth(model)

    def _growth(self, model: str) -> list[str]:
        """Return in what respect a model's process has grown since the last time it was replaced."""
        mine = [one for one in self._report.samples if one.model == model and one.at_s > self._renewed_s]
        mine = [one for one in mine if one.pid == mine[-1].pid]
        if len(mine) < 8:
            return []
        first, last = mine[len(mine) // 3].figures, mine[-1].figures
        found: list[str] = []
        if last.private_kb > first.private_kb * _ALLOWED_GROWTH + _ALLOWED_KB:
            found.append(f"{model}: private memory grew from {first.private_kb} to {last.private_kb} kB")
        if last.threads > first.threads + _ALLOWED_THREADS:
            found.append(f"{model}: threads grew from {first.threads} to {last.threads}")
        if last.files > first.files + _ALLOWED_FILES:
            found.append(f"{model}: open files grew from {first.files} to {last.files}")
        return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the soak and print its tables."""
    args = _parser().parse_args(argv)
    plan = Plan(seconds=args.minutes * 60, clients=args.clients, seed=args.seed, faults=tuple(args.fault))
    with tempfile.TemporaryDirectory(prefix="triton-router-soak-") as scratch:
        fleet = SwitchedFleet(Path(scratch) / "fleet")
        write_fleet(fleet)
        with served_triton(fleet.repository, args.log or Path(scratch) / "log", ports=args.ports) as served:
            report = Soak(Chaos(fleet, served), plan).run()
    if args.json:
        print(json.dumps(asdict(report), indent=2))
    else:
        print_markdown(report)
    return 1 if report.problems else 0


def write_fleet(fleet: SwitchedFleet) -> None:
    """Write four targets of 2 ms, a routed model that sends to all alike, and one that merges and learns."""
    for target in TARGETS:
        fleet.add_target(target, service_ms=2.0)
    fleet.add_routed("routed", TARGETS, policy="least-request", health=HEALTH)
    merging = [{"name": name, "model": name, "batch_independent": True, "instances": 1} for name in TARGETS]
    fleet.add_routed("merged", merging, health=HEALTH)


def print_markdown(report: Report) -> None:
    """Print what a soak found."""
    print(
        f"{report.seconds:.0f} s: {report.asked} asked, {report.answered} answered, {report.failed} failed, "
        f"{report.missing} missing, {report.wrong} wrong, {report.unaccounted} without an end; "
        f"p50 {report.p50_ms:.1f} ms, p99 {report.p99_ms:.1f} ms; in flight at the end {report.in_flight}"
    )
    print("\n| fault | times | answers | failed | missing | worst ms | longest until all is well, s |")
    print("|---|---|---|---|---|---|---|")
    for name, row in sorted(report.faults.items()):
        print(
            f"| {name} | {row.times} | {row.answered} | {row.failed} | {row.missing} | {row.worst_ms:.0f} "
            f"| {row.longest_s:.1f} |"
        )
    print("\n| s | model | process | RSS MB | private MB | /dev/shm MB | threads | files |")
    print("|---|---|---|---|---|---|---|---|")
    for one in report.samples:
        held = one.figures
        print(
            f"| {one.at_s:.0f} | {one.model} | {one.pid} | {held.resident_kb / 1024:.0f} "
            f"| {held.private_kb / 1024:.0f} | {held.shared_kb / 1024:.0f} | {held.threads} | {held.files} |"
        )
    for message, count in sorted(report.failures.items(), key=lambda item: -item[1])[:10]:
        print(f"failure x {count}: {message}")
    for problem in report.problems:
        print(f"PROBLEM: {problem}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="time of faults (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=100, help="questions at once (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default: %(default)s)")
    parser.add_argument("--fault", action="append", default=[], choices=sorted(FAULTS), help="only these")
    parser.add_argument("--ports", type=int, nargs=3, default=(), metavar="PORT", help="HTTP, gRPC, metrics")
    parser.add_argument("--log", type=Path, help="keep the server's output here")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
