"""``triton-router serve``: start a Triton that serves a repository, routed models included."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from triton_router.cli import output
from triton_router.cli.arguments import port, port_or_any, seconds
from triton_router.cli.command import Subparsers, add_parser

if TYPE_CHECKING:
    import argparse

    from triton_router.serving.launcher.plan import LaunchPlan
    from triton_router.serving.launcher.report import FailureReport

_KEY_VARIABLE = "TRITON_ROUTER_API_KEY"
"""As in serving.launcher.restricted, which is not imported before a command runs."""

_DESCRIPTION = """\
Find tritonserver (PATH, NVIDIA's images, the wheel of 'triton-router[serve]'), check what would hurt later,
start it, watch over it and exit with its status. A routed model whose process dies is loaded afresh, and so are
targets unless router.yaml says otherwise. SIGTERM drains first; a second one, or Ctrl-C twice, ends at once.

It listens on 127.0.0.1, unlike Triton's 0.0.0.0: pass --address 0.0.0.0 in a container or for other machines."""

_EXAMPLES = """\
  triton-router serve --repository models
  triton-router serve --repository models --check
  triton-router serve --repository models --model-control-mode explicit --load-model minilm
  triton-router serve --repository models --address 0.0.0.0 -- --log-verbose=1 --exit-timeout-secs=60"""


def register(subparsers: Subparsers) -> None:
    """Add the parser of this command."""
    parser = add_parser(
        subparsers,
        "serve",
        summary="start a Triton that serves a repository",
        description=_DESCRIPTION,
        examples=_EXAMPLES,
    )
    parser.add_argument(
        "--repository",
        type=Path,
        action="append",
        required=True,
        metavar="DIR",
        help="model repository; may be given more than once",
    )
    parser.add_argument(
        "--model-control-mode",
        choices=("none", "explicit", "poll"),
        default="none",
        help="none: load everything once; poll: follow changes on disk; explicit: load by name (default: %(default)s)",
    )
    parser.add_argument(
        "--load-model",
        action="append",
        default=[],
        metavar="NAME",
        help="load it at the start, with a routed model's targets; needs explicit mode; '*' means every model",
    )
    # The default stands in serving.launcher.options, which is not imported before a command runs.
    parser.add_argument("--address", default="127.0.0.1", help="interface to listen on (default: %(default)s)")
    parser.add_argument("--http-port", type=port, default=8000, metavar="PORT", help="default: %(default)s")
    parser.add_argument("--grpc-port", type=port, default=8001, metavar="PORT", help="default: %(default)s")
    parser.add_argument("--metrics-port", type=port, default=8002, metavar="PORT", help="default: %(default)s")
    parser.add_argument(
        "--tritonserver", type=Path, metavar="PATH", help="this server: its program or installation directory"
    )
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        help="where what the routers learn is kept (default: one directory for each repository under "
        "$XDG_STATE_HOME/triton-router or ~/.local/state/triton-router)",
    )
    kept.add_argument("--no-state", action="store_true", help="keep nothing: every start learns afresh")
    parser.add_argument(
        "--open-api",
        action="store_true",
        help="let everybody load and unload models, register shared memory, and change tracing and logging; otherwise "
        f"that takes a key, which the commands of the same user find, and others take from {_KEY_VARIABLE}",
    )
    parser.add_argument(
        "--health-port",
        type=port_or_any,
        metavar="PORT",
        help="serve GET /ready, /ready/MODEL, /live and /metrics there, for load balancers and probes; 0 for any port",
    )
    parser.add_argument(
        "--drain-grace",
        type=seconds,
        default=1.0,
        metavar="S",
        help="on SIGTERM: seconds between saying that it is not ready and closing (default: %(default)s)",
    )
    parser.add_argument(
        "--drain-timeout",
        type=seconds,
        default=30.0,
        metavar="S",
        help="then: seconds until it closes although requests are under way, and until it cuts them after that "
        "(default: %(default)s)",
    )
    parser.add_argument("--check", action="store_true", help="only run the checks; exit 1 if one fails")
    parser.add_argument("--skip-checks", action="store_true", help="start although a check fails")
    parser.add_argument("--json", action="store_true", help="findings (with --check) or endpoints as JSON on stdout")
    parser.add_argument("flags", nargs="*", metavar="-- FLAG", help="any flag of tritonserver; it wins over the above")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Check, and start the server unless only checks were asked for."""
    from triton_router.errors import InvalidInputError
    from triton_router.serving.launcher.options import ServeOptions
    from triton_router.serving.launcher.plan import plan

    if args.load_model and args.model_control_mode != "explicit":
        raise InvalidInputError(
            "--load-model names models to load, but this mode loads all of them",
            hint="add --model-control-mode explicit, or leave --load-model out",
        )
    decided = plan(
        ServeOptions(
            repositories=tuple(args.repository),
            control_mode=args.model_control_mode,
            load_models=tuple(args.load_model),
            address=args.address,
            http_port=args.http_port,
            grpc_port=args.grpc_port,
            metrics_port=args.metrics_port,
            health_port=args.health_port,
            tritonserver=args.tritonserver,
            state=_state(args),
            api_key=None if args.open_api else _key(),
            exit_timeout_s=max(1, math.ceil(args.drain_timeout)),
            extra=tuple(args.flags),
        )
    )
    for finding in decided.findings:
        output.note(str(finding))
    if args.check:
        return _report_checks(decided, as_json=args.json)
    if decided.errors and not args.skip_checks:
        output.note(f"not started: {len(decided.errors)} check(s) failed")
        return 1
    return _serve(decided, args)


def _state(args: argparse.Namespace) -> Path | None:
    from triton_router.serving.launcher.state_place import default_state_directory

    if args.no_state:
        return None
    given: Path | None = args.state
    return given.absolute() if given else default_state_directory(args.repository)


def _report_checks(decided: LaunchPlan, *, as_json: bool) -> int:
    installation = decided.installation
    if as_json:
        output.print_json(
            {
                "server": str(installation.executable),
                "kind": installation.kind,
                "version": installation.version,
                "release": decided.server.release,
                "missing_capabilities": decided.server.missing,
                "models": sorted(decided.models),
                "findings": [finding.to_json() for finding in decided.findings],
            }
        )
    else:
        version = installation.version or "of unknown version"
        print(f"server    {version} ({installation.kind}): {installation.executable}")
        print(f"lacks     {', '.join(decided.server.missing) or 'nothing'}")
        print(f"models    {', '.join(sorted(decided.models)) or 'none'}")
        print(f"findings  {len(decided.errors)} errors, {len(decided.findings) - len(decided.errors)} warnings")
    return 1 if decided.errors else 0


def _calibrate(directory: Path | None) -> None:
    """Have this machine's processor measured, once; the routers can do without."""
    from triton_router.hardware.calibration import keep_calibrated

    if directory is None:
        return
    try:
        keep_calibrated(directory)
    except OSError as error:
        output.note(f"warning: the state directory {directory} cannot be written: {error.strerror}")
        output.hint("pass --state DIR with a directory of yours, or --no-state: what is learned will not be kept")


def _serve(decided: LaunchPlan, args: argparse.Namespace) -> int:
    from triton_router.serving.launcher.drain import DrainTimes
    from triton_router.serving.launcher.supervise import Care, Reports, supervise

    _calibrate(decided.options.state)
    version = decided.installation.version or "of unknown version"
    output.note(f"starting tritonserver {version} ({decided.installation.executable})")
    if decided.server.missing:
        output.note(f"this server lacks: {', '.join(decided.server.missing)}")
    reports = Reports(
        log=_log,
        ready=lambda port: _announce(decided, port, as_json=args.json),
        wait=lambda loading: output.note(
            f"not ready yet, still loading: {', '.join(loading) or 'nothing that is known'}"
        ),
        say=output.note,
    )
    times = DrainTimes(grace_s=args.drain_grace, timeout_s=args.drain_timeout)
    status, ended = supervise(decided, Care(health_port=args.health_port, drain=times), reports)
    _explain_failures(ended.process.report, status)
    return status


def _key() -> str:
    """Return the key of the administrative APIs: the user's own, or a new one."""
    from triton_router.serving.launcher.restricted import chosen_key

    return chosen_key(os.environ)


def _log(line: bytes) -> None:
    sys.stderr.buffer.write(line)
    sys.stderr.buffer.flush()


def _announce(decided: LaunchPlan, health_port: int | None, *, as_json: bool) -> None:
    from triton_router.serving.launcher.endpoints import Endpoint
    from triton_router.serving.launcher.process import reachable

    endpoints, models = decided.endpoints, len(decided.models)
    places = {
        "http": f"http://{endpoints.http}" if endpoints.http else None,
        "grpc": str(endpoints.grpc) if endpoints.grpc else None,
        "metrics": f"http://{endpoints.metrics}/metrics" if endpoints.metrics else None,
        "health": f"http://{Endpoint(reachable(decided.options.address), health_port)}/ready" if health_port else None,
    }
    offered = {name: place for name, place in places.items() if place}
    if as_json:
        output.print_json({"ready": True, "models": models, **offered})
    else:
        print(f"ready: {models} models")
        for name, place in offered.items():
            print(f"  {name:8}{place}")
    sys.stdout.flush()


def _explain_failures(report: FailureReport, status: int) -> None:
    if status == 0:
        return
    for model, reason in report.failures.items():
        output.note(f"error: model {model!r} failed to load: {reason}")
    if report.failures:
        output.hint("correct or remove these models, or pass -- --exit-on-error=false to serve the others")
    else:
        for text in report.errors:
            output.note(f"error: tritonserver: {text}")
    output.note(f"tritonserver ended with status {status}")
