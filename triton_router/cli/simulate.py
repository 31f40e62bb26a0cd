"""``triton-router simulate``: compare policies on a fleet that does not exist, with the engine that does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from triton_router.cli import output
from triton_router.cli.arguments import positive
from triton_router.cli.command import Subparsers, add_parser
from triton_router.errors import InvalidInputError

if TYPE_CHECKING:
    import argparse

    from triton_router.routing.types import Outcome, RoutingDecision
    from triton_router.simulation.measures import Measures
    from triton_router.simulation.run import Run, Simulation
    from triton_router.simulation.scenario import Scenario

_HEADERS = (
    "policy", "mean ms", "p50", "p90", "p99", "per s", "failed", "oracle+", "regret 1k", "later", "peak",
    "cost/M", "J", "targets",
)  # fmt: skip
_MOST_SHARES = 4

_EXAMPLES = """\
  triton-router simulate --list
  triton-router simulate --scenario slowdown --policies latency,ewma,oracle
  triton-router simulate --scenario fleet.yaml --requests 20000 --seed 7 --json
  triton-router simulate --scenario single --policies random --log trace.jsonl"""


def register(subparsers: Subparsers) -> None:
    """Add the parser of this command."""
    parser = add_parser(
        subparsers,
        "simulate",
        summary="compare routing policies on a simulated fleet",
        description="Drive the routing engine with a fake clock over a simulated fleet, once for each policy and over "
        "the same traffic. The same seed gives the same output. 'oracle+' is the mean latency above that of an oracle "
        "that knows every true latency and queue; 'regret' is what the choices cost against the best target at that "
        "moment, over the first 1000 requests and later; 'peak' is the busiest target's load over the mean; 'cost/M' "
        "is for a million requests, 'J' joules for one.",
        examples=_EXAMPLES,
    )
    parser.add_argument("--list", action="store_true", help="list the built-in scenarios and the policies")
    parser.add_argument("--scenario", default="single", metavar="NAME|FILE", help="what to simulate (default: single)")
    parser.add_argument("--policies", metavar="A,B", help="what to compare (default: as the scenario says, or all)")
    parser.add_argument("--requests", type=positive, metavar="N", help="how many (default: as the scenario says)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of every random number (default: 1)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw a picture, .png or .svg")
    parser.add_argument("--log", type=Path, metavar="FILE", help="write the decisions of one policy as a decision log")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Simulate, and print what came of it."""
    from triton_router.simulation.plot import plot, require_plotting
    from triton_router.simulation.scenario import load_scenario

    if args.list:
        return _list(as_json=args.json)
    scenario = load_scenario(args.scenario)
    policies = _policies(args.policies, scenario)
    if args.log and len(policies) != 1:
        raise InvalidInputError("--log writes the decisions of one policy", hint="name it: --policies latency")
    if args.plot:
        require_plotting(args.plot)
    lines: list[str] = []
    simulation = _simulation(args, scenario, lines)
    runs = _compare(simulation, policies)
    if args.log:
        _write_log(args.log, simulation, policies[0], lines)
    if args.plot:
        plot(args.plot, scenario, [one for one, _ in runs], title=f"{args.scenario}, seed {args.seed}")
    if args.json:
        output.print_json(_json(args, simulation, runs))
    else:
        output.print_table(_HEADERS, [_row(measures) for _, measures in runs])
    return 0


def _list(*, as_json: bool) -> int:
    from triton_router.simulation.contenders import CONTENDERS
    from triton_router.simulation.scenario import built_in_names, load_scenario

    found = {name: load_scenario(name).description for name in built_in_names()}
    if as_json:
        output.print_json({"scenarios": found, "policies": list(CONTENDERS)})
        return 0
    output.print_table(("scenario", "what it is"), list(found.items()))
    print(f"\npolicies: {', '.join(CONTENDERS)}")
    return 0


def _policies(asked: str | None, scenario: Scenario) -> list[str]:
    from triton_router.simulation.contenders import CONTENDERS

    names = [name.strip() for name in asked.split(",")] if asked else list(scenario.policies or CONTENDERS)
    for name in names:
        if name not in CONTENDERS:
            raise InvalidInputError(f"there is no policy {name!r}", hint=f"use some of {', '.join(CONTENDERS)}")
    return list(dict.fromkeys(names))


def _simulation(args: argparse.Namespace, scenario: Scenario, lines: list[str]) -> Simulation:
    from triton_router.simulation.run import Simulation
    from triton_router.telemetry.decision_format import decision_line

    def observe(decision: RoutingDecision, outcome: Outcome, now: float) -> None:
        lines.append(decision_line("simulated", decision, outcome, monotonic=now, time=now))

    return Simulation(scenario, args.seed, args.requests, observe if args.log else None)


def _compare(simulation: Simulation, policies: list[str]) -> list[tuple[Run, Measures]]:
    from triton_router.simulation.measures import compare

    output.note(
        f"{len(simulation.requests)} requests, {len(simulation.fleet.targets)} targets, {len(policies)} policies"
    )
    runs = compare(simulation, policies)
    for one, _ in runs:
        output.note(f"{one.policy}: {one.decision_s / len(simulation.requests) * 1e6:.1f} us for each decision")
    return runs


def _write_log(path: Path, simulation: Simulation, policy: str, lines: list[str]) -> None:
    from triton_router.telemetry.decision_format import start_line

    if not lines:
        raise InvalidInputError(f"{policy} is no engine and makes no decisions to log", hint="name another policy")
    head = start_line("simulated", policy, [target.entry() for target in simulation.fleet.targets])
    try:
        path.write_text(head + "".join(lines))
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be written: {error.strerror}", hint="check the path") from error
    output.note(f"{len(lines)} decisions written to {path}")


def _row(measures: Measures) -> tuple[object, ...]:
    shares = [f"{name} {share:.0%}" for name, share in list(measures.shares.items())[:_MOST_SHARES]]
    peak = measures.peak if measures.peak is not None else measures.cell_peak
    return (
        measures.policy,
        f"{measures.mean_ms:.2f}",
        f"{measures.p50_ms:.2f}",
        f"{measures.p90_ms:.2f}",
        f"{measures.p99_ms:.2f}",
        f"{measures.per_second:.0f}",
        measures.failed,
        _share(measures.above_oracle),
        _share(measures.regret_early),
        _share(measures.regret_late),
        "-" if peak is None else f"{peak:.2f}",
        f"{measures.cost:.3g}",
        f"{measures.energy_j:.3g}",
        ", ".join(shares),
    )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _json(args: argparse.Namespace, simulation: Simulation, runs: list[tuple[Run, Measures]]) -> dict[str, object]:
    from dataclasses import asdict

    return {
        "scenario": args.scenario,
        "seed": args.seed,
        "requests": len(simulation.requests),
        "targets": len(simulation.fleet.targets),
        "policies": [asdict(measures) for _, measures in runs],
    }
