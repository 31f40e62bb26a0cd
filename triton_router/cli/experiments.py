"""``triton-router experiments``: the A/B tests of a routed model's policies, and what they have shown."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triton_router.cli import output
from triton_router.cli.command import Subparsers, add_parser
from triton_router.cli.connection import add_repository_option
from triton_router.config.printable import printable
from triton_router.errors import InvalidInputError, NotFoundError, UnavailableError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from triton_router.cli.rollout_source import Observed
    from triton_router.config.router_config import RouterConfig
    from triton_router.config.routing_settings import ExperimentSettings

_DESCRIPTION = """\
The experiments are those of 'ab_tests' in router.yaml. Results may be looked at as often as one likes: intervals and
p-values hold at all times. They come from the routers that serve here, else from the state directory."""

_EXAMPLES = """\
  triton-router experiments list minilm --repository models
  triton-router experiments results minilm --repository models
  triton-router experiments results minilm --repository models --plot results.svg
  triton-router experiments stop minilm --repository models          # takes it out of router.yaml"""

_LIST_HEADERS = ("experiment", "state", "treated", "by", "control", "treatment")
_ARM_HEADERS = ("arm", "policy", "answers", "failures", "failure share", "latency ms", "interval")


def register(subparsers: Subparsers) -> None:
    """Add the parser of this command."""
    parser = add_parser(
        subparsers,
        "experiments",
        summary="list, read and stop A/B tests of policies",
        description=_DESCRIPTION,
        examples=_EXAMPLES,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    _add_action(actions, "list", "the experiments of a routed model")
    results = _add_action(actions, "results", "what an experiment has shown so far")
    results.add_argument("--id", metavar="ID", help="the experiment (default: the one that takes place)")
    results.add_argument("--plot", type=Path, metavar="FILE", help="draw a picture, .png or .svg")
    stop = _add_action(actions, "stop", "take an experiment out of router.yaml")
    stop.add_argument("--id", metavar="ID", help="the experiment (default: the only one)")
    stop.add_argument(
        "--dry-run", "--print", action="store_true", help="print what router.yaml would be, and change nothing"
    )


def run(args: argparse.Namespace) -> int:
    """Run the chosen action."""
    return _ACTIONS[args.action](args)


def _add_action(actions: Subparsers, name: str, summary: str) -> argparse.ArgumentParser:
    parser = add_parser(actions, name, summary=summary)
    parser.add_argument("model", metavar="MODEL", help="the routed model")
    add_repository_option(parser, required=True, purpose="the server's model repository")
    parser.add_argument(
        "--state", type=Path, metavar="DIR", help="state directory, for when nobody serves (default: that of 'serve')"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(func=run, action=name)
    return parser


def _list(args: argparse.Namespace) -> int:
    config = _config(args)
    rows = [(test, _state(config, test, args.model)) for test in config.ab_tests]
    if args.json:
        output.print_json([{"state": state, **test.model_dump(mode="json")} for test, state in rows])
    elif rows:
        output.print_table(_LIST_HEADERS, [_listed(test, state) for test, state in rows])
    else:
        output.note(_none(args.model))
    return 0


def _results(args: argparse.Namespace) -> int:
    from triton_router.cli.rollout_source import experiment_reports

    if args.plot:
        from triton_router.cli.experiment_plot import require_plotting

        require_plotting(args.plot)
    config = _config(args)
    test = _meant(args, config, running=True)
    reports = experiment_reports(args, config, test)
    if not reports:
        raise UnavailableError(
            f"nothing is known of experiment {test.experiment_id!r} of {args.model!r}",
            hint="a router has to serve it here, or to have left its state directory; name that with --state",
        )
    if args.json:
        output.print_json({"model": args.model, "instances": _as_json(reports)})
    else:
        _print_results(args.model, reports)
    if args.plot:
        from triton_router.cli.experiment_plot import plot

        plot(args.plot, args.model, reports)
    return 0


def _stop(args: argparse.Namespace) -> int:
    from triton_router.cli.rollout_source import experiment_reports
    from triton_router.cli.router_edit import apply
    from triton_router.config.rollout_edits import stop_experiment
    from triton_router.config.router_config import ROUTER_FILE

    config = _config(args)
    test = _meant(args, config, running=False)
    reports = experiment_reports(args, config, test)
    followed = apply(
        args, args.repository / args.model / ROUTER_FILE, lambda splice: stop_experiment(splice, test.experiment_id)
    )
    if args.dry_run:
        command = f"triton-router experiments results {args.model} --id {shlex.quote(test.experiment_id)} --json"
        where = f"--repository {shlex.quote(str(args.repository))}"
        output.hint(f"its results are not shown any more once it is stopped; save them first: {command} {where}")
        return 0
    if args.json:
        done = {"model": args.model, "stopped": test.experiment_id, "followed": followed}
        output.print_json({**done, "instances": _as_json(reports)})
    else:
        _print_results(args.model, reports)
        output.note(f"experiment {test.experiment_id} of {args.model} has been taken out of router.yaml")
    last = "; these are the last" if reports else ""
    output.note(f"note: from now on its results are not shown any more{last}")
    return 0


def _config(args: argparse.Namespace) -> RouterConfig:
    from triton_router.config.router_config import ROUTER_FILE, load_router_config

    return load_router_config(args.repository / args.model / ROUTER_FILE)


def _meant(args: argparse.Namespace, config: RouterConfig, *, running: bool) -> ExperimentSettings:
    """Return the experiment that is asked for.

    Raises:
        NotFoundError: There are none at all.
        InvalidInputError: There is none such, or several.
    """
    known = {test.experiment_id: test for test in config.ab_tests}
    if not known:
        raise NotFoundError(
            _none(args.model), hint="write one there: docs/experiments.md; what was stopped is not shown"
        )
    if args.id is not None and args.id in known:
        return known[args.id]
    taking_place = [test for test in known.values() if _state(config, test, args.model) == "running"]
    if args.id is None and running and taking_place:
        return taking_place[0]
    if args.id is None and len(known) == 1:
        return next(iter(known.values()))
    names = ", ".join(known)
    what = f"there is no experiment {args.id!r}" if args.id is not None else "say which experiment with --id"
    raise InvalidInputError(f"{what} of {args.model!r}", hint=f"router.yaml has: {names}")


def _state(config: RouterConfig, test: ExperimentSettings, model: str) -> str:
    """Return whether an experiment takes place: of several that cover a model, the first does."""
    from triton_router.config.routing_of import splits_of

    if not config.router_config.enable_ab_testing:
        return "off (enable_ab_testing)"
    covering = [split.experiment_id for split in splits_of(config) if split.covers(model)]
    if test.experiment_id not in covering:
        return "for other models"
    return "running" if covering[0] == test.experiment_id else f"behind {covering[0]}"


def _listed(test: ExperimentSettings, state: str) -> tuple[object, ...]:
    return (
        test.experiment_id,
        state,
        f"{test.treatment_percentage:.4g}",
        test.assignment.value,
        test.control_policy.name,
        test.treatment_policy.name,
    )


def _none(model: str) -> str:
    return f"{model} has no experiments: 'ab_tests' in its router.yaml is empty"


def _as_json(reports: Sequence[Observed]) -> list[dict[str, Any]]:
    return [{"source": one.source, **one.report} for one in reports]


def _print_results(model: str, reports: Sequence[Observed]) -> None:
    for source, report in reports:
        print(printable(f"{model}: experiment {report['experiment_id']}, {report['fraction']:.4g} treated"))
        output.print_table(_ARM_HEADERS, [_arm(name, report) for name in report["arms"]])
        ratio = report["sample_ratio"]
        if ratio["observed"] is not None:
            print(
                f"treated: {ratio['observed']:.2%} of the requests where {ratio['expected']:.2%} were meant to be "
                f"(p {ratio['p_value']:.3g})"
            )
        print(printable(f"latency: {_comparison(report['latency'], 'change')}"))
        print(printable(f"failures: {_comparison(report['failures'], 'difference')}"))
        print(printable(f"verdict: {report['verdict']}"))
        print(printable(f"({source})"))


def _arm(name: str, report: dict[str, Any]) -> tuple[object, ...]:
    arm = report["arms"][name]
    share, latency, interval = arm["failure_share"], arm["latency_ms"], arm["latency_interval_ms"]
    return (
        name,
        report["policies"].get(name, ""),
        arm["answers"],
        arm["failures"],
        "-" if share is None else f"{share:.3%}",
        "-" if latency is None else f"{latency:.3f}",
        "-" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}",
    )


def _comparison(found: dict[str, Any], key: str) -> str:
    if found[key] is None:
        return f"too few requests to say ({found['basis']})"
    interval = found["interval"]
    bounds = f", {interval[0]:+.2%} to {interval[1]:+.2%}" if interval else ""
    return f"{found[key]:+.2%}{bounds}, p {found['p_value']:.3g} ({found['basis']})"


_ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {"list": _list, "results": _results, "stop": _stop}
