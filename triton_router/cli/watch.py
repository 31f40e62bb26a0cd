"""``triton-router watch``: what `serve` does for its server, beside one that something else has started."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_router.cli import output
from triton_router.cli.arguments import port_or_any, positive, seconds, server_url
from triton_router.cli.command import Subparsers, add_parser
from triton_router.cli.connection import header

if TYPE_CHECKING:
    import argparse

DEFAULT_URL = "http://localhost:8000"
"""As in repository.control, which is not imported before a command runs: it brings an HTTP library."""

_DESCRIPTION = """\
Watch over a tritonserver on this machine that 'triton-router serve' has not started: notice when a process of a model
dies, report it, have the model loaded afresh, and serve readiness. It needs the server's process ids (the same PID
namespace) and its user's rights. Repairs need a server that loads on request (--model-control-mode=explicit)."""

_EXAMPLES = """\
  triton-router watch --health-port 8003
  triton-router watch --url http://localhost:9000 --header admin-key:VALUE
  triton-router watch --pid 4711 --no-repair"""


def register(subparsers: Subparsers) -> None:
    """Add the parser of this command."""
    parser = add_parser(
        subparsers,
        "watch",
        summary="watch over a server that something else started",
        description=_DESCRIPTION,
        examples=_EXAMPLES,
    )
    parser.add_argument(
        "--url", type=server_url, default=DEFAULT_URL, help="Triton's HTTP address (default: %(default)s)"
    )
    parser.add_argument("--pid", type=positive, help="process id of tritonserver (default: whose port that is)")
    parser.add_argument(
        "--header",
        action="append",
        type=header,
        default=[],
        metavar="KEY:VALUE",
        help="opens the model repository API of a server that restricts it; may be repeated",
    )
    parser.add_argument("--no-repair", action="store_true", help="report only")
    parser.add_argument("--address", default="127.0.0.1", help="interface of --health-port (default: %(default)s)")
    parser.add_argument(
        "--health-port",
        type=port_or_any,
        metavar="PORT",
        help="serve GET /ready, /ready/MODEL, /live and /metrics there",
    )
    parser.add_argument(
        "--drain-grace",
        type=seconds,
        default=1.0,
        metavar="S",
        help="on 'triton-router drain': seconds between saying that it is not ready and SIGTERM (default: %(default)s)",
    )
    parser.add_argument(
        "--drain-timeout",
        type=seconds,
        default=30.0,
        metavar="S",
        help="then: seconds until SIGTERM although requests are under way (default: %(default)s)",
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Watch until the server ends, or this is told to stop."""
    from triton_router.serving.launcher.drain import DrainTimes
    from triton_router.serving.launcher.supervise import Care
    from triton_router.serving.launcher.watch import Watched, watch

    watched = Watched.at(args.url, args.pid, dict(args.header))
    care = Care(args.health_port, DrainTimes(args.drain_grace, args.drain_timeout))
    return watch(watched, care, address=args.address, repairs=not args.no_repair, say=output.note)
