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
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.soak_faults import FAULTS, Plan
from benchmarks.soak_report import FaultRow, Report, Sample, growth, print_markdown
from triton_router.errors import TritonRouterError
from triton_router.routing.retry_budget import MEMORY_S
from triton_router.testing.chaos import Chaos
from triton_router.testing.checked_load import Habits
from triton_router.testing.process_figures import figures_of, stub_of
from triton_router.testing.served_triton import served_triton
from triton_router.testing.switched_fleet import SwitchedFleet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triton_router.testing.checked_load import CheckedLoad

TARGETS = ("a", "b", "c", "d")
HEALTH = {"first_pause_s": 0.5, "longest_pause_s": 2.0, "slow_start_s": 1.0}
_SETTLE_S = 2.0
_GAP_S = 1.0
_EVENT_S = 30.0
_SAMPLES = 40


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
            pause_s=0.0,
            seconds=self._plan.seconds + 600.0,
            questions=10_000_000,
        )
        return dict.fromkeys(self._plan.models, habits)

    def _one_fault(self) -> None:
        name, target = self._drawn()
        fault, plan = FAULTS[name], self._plan
        elapsed, before, known = time.monotonic() - self._began, self._counts(), self._failures()
        for load in self._loads:
            load.seen.worst_ms = 0.0
        lasted_s = self._happens(name, target, elapsed)
        # Those whose router was killed hear nothing until their patience ends. And what an outage of all targets has
        # spent of the retry budget is back after its memory: what fails before that reaches its client, as it should.
        time.sleep(_GAP_S + (0.0 if not fault.may_fail else plan.patience_s if fault.renews else MEMORY_S))
        if fault.renews:
            self._renewed_s = time.monotonic() - self._began
        row = FaultRow(
            1,
            *(now - then for now, then in zip(self._counts(), before, strict=True)),
            worst_ms=max(load.seen.worst_ms for load in self._loads),
            longest_s=lasted_s,
        )
        self._report.faults.setdefault(name, FaultRow()).add(row)
        line = f"{name} ({target}) at {elapsed:.0f} s: {row.failed} failed, {row.missing} missing"
        print(f"{line}, {row.answered} answers, worst {row.worst_ms:.0f} ms", file=sys.stderr, flush=True)
        if (row.failed or row.missing) and not fault.may_fail:
            self._report.problems.append(f"{line}: {dict(self._failures() - known)}")

    def _drawn(self) -> tuple[str, str]:
        """Return the next fault and its target: half of the time one that has been rare so far."""
        late = time.monotonic() - self._began > self._plan.seconds / 2
        # Growth is told from one process: in the second half the router keeps the one it has.
        names = [name for name in self._plan.faults or FAULTS if not (late and FAULTS[name].renews)]
        self._rng.shuffle(names)
        rare = min(names, key=lambda name: self._report.faults.get(name, FaultRow()).times)
        name = rare if self._rng.random() < 0.5 else names[0]
        return name, self._rng.choice(self._plan.targets)

    def _happens(self, name: str, target: str, elapsed: float) -> float:
        """Have a fault happen and wait until nobody is left out for it; returns the seconds it took."""
        begun = time.monotonic()
        try:
            FAULTS[name].happens(self._chaos, self._plan, target)
            for model in self._plan.models:
                self._chaos.await_none_out(model, within_s=_EVENT_S)
        except (TimeoutError, TritonRouterError) as error:
            self._report.problems.append(f"{name} ({target}) at {elapsed:.0f} s: {error}")
            self._chaos.heal(self._plan.models[0], *self._plan.targets)
        return time.monotonic() - begun

    def _counts(self) -> tuple[int, int, int]:
        seen = [load.seen for load in self._loads]
        return sum(s.answered for s in seen), sum(s.failed for s in seen), sum(s.missing for s in seen)

    def _failures(self) -> Counter[str]:
        return sum((load.seen.failures for load in self._loads), Counter[str]())

    def _sample(self) -> None:
        now = time.monotonic()
        if now - self._sampled_at < self._plan.seconds / _SAMPLES:
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
        report.failures = dict(self._failures())
        report.problems += [text for one in seen for text in one.wrong]
        if report.unaccounted:
            report.problems.append(f"{report.unaccounted} questions have no end")
        for model in self._plan.models:
            report.in_flight[model] = self._chaos.await_idle(model)
            if report.in_flight[model]:
                report.problems.append(f"{model}: {report.in_flight[model]} still counted as in flight")
            report.problems += growth(report.samples, model, self._renewed_s)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the soak and print its tables."""
    args = _parser().parse_args(argv)
    plan = Plan(args.minutes * 60, TARGETS, clients=args.clients, seed=args.seed, faults=tuple(args.fault))
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
    """Write four targets of 8 ms, a routed model that sends to all alike, and one that merges and learns."""
    for target in TARGETS:
        fleet.add_target(target, service_ms=8.0)
    fleet.add_routed("routed", TARGETS, policy="least-request", health=HEALTH)
    merging = [{"name": name, "model": name, "batch_independent": True, "instances": 1} for name in TARGETS]
    fleet.add_routed("merged", merging, health=HEALTH)


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
