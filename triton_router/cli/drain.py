"""``triton-router drain``: stop a server without losing what clients have sent."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from triton_router.cli import output
from triton_router.cli.arguments import positive, seconds, server_url
from triton_router.cli.command import Subparsers, add_parser

if TYPE_CHECKING:
    import argparse

_DESCRIPTION = """\
Tell a running 'triton-router serve' (or 'watch') of this user on this machine to drain: it says that it is not ready,
waits for its grace, finishes what is under way and ends the server. The same as SIGTERM to 'serve'; this waits for the
end, too."""

_EXAMPLES = """\
  triton-router drain
  triton-router drain --url http://localhost:8000
  triton-router drain --pid 4711 --timeout 120"""


def register(subparsers: Subparsers) -> None:
    """Add the parser of this command."""
    parser = add_parser(
        subparsers,
        "drain",
        summary="stop a server after finishing what is under way",
        description=_DESCRIPTION,
        examples=_EXAMPLES,
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--url", type=server_url, metavar="URL", help="the server with this HTTP address (default: the only one)"
    )
    which.add_argument("--pid", type=positive, help="the process id of 'serve', 'watch', or their tritonserver")
    parser.add_argument(
        "--timeout", type=seconds, default=120.0, metavar="S", help="longest wait for its end (default: %(default)s)"
    )
    parser.add_argument("--no-wait", action="store_true", help="begin, and wait for nothing")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Find the process, tell it, and wait until the server has ended."""
    import os

    from triton_router.errors import UnavailableError
    from triton_router.serving.launcher.runtime_record import chosen, wait_for_end

    record = chosen(args.url, args.pid)
    os.kill(record.pid, signal.SIGTERM if record.kind == "serve" else signal.SIGUSR1)
    output.note(f"draining the server {record.server_pid} by way of {record.kind} {record.pid}")
    if args.no_wait:
        return 0
    if not wait_for_end(record.server_pid, args.timeout):
        raise UnavailableError(
            f"the server {record.server_pid} still runs after {args.timeout:g} s",
            hint=f"wait longer with --timeout, or end it at once with a second SIGTERM to the process {record.pid}",
        )
    output.note("drained")
    return 0
