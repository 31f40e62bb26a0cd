"""How a command reaches a running server's model repository API."""

from __future__ import annotations

import argparse
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from triton_router.cli.arguments import seconds, server_url

if TYPE_CHECKING:
    from collections.abc import Generator

    from triton_router.repository.control import ModelControl

DEFAULT_URL = "http://localhost:8000"
"""As in repository.control, which is not imported before a command runs: it brings an HTTP library."""


def add_connection_options(parser: argparse.ArgumentParser) -> None:
    """Add what says where the server is and what opens its API."""
    parser.add_argument(
        "--url", type=server_url, default=DEFAULT_URL, help="Triton's HTTP address (default: %(default)s)"
    )
    parser.add_argument(
        "--api-key",
        metavar="KEY",
        help="of 'triton-router serve' (default: that of your own server on this machine, or $TRITON_ROUTER_API_KEY)",
    )
    parser.add_argument(
        "--header",
        action="append",
        type=header,
        default=[],
        metavar="KEY:VALUE",
        help="sent with every request, for a server with an --http-restricted-api of its own; may be repeated",
    )
    parser.add_argument(
        "--timeout", type=seconds, default=900.0, metavar="S", help="longest wait for an answer (default: %(default)s)"
    )


def add_repository_option(parser: argparse.ArgumentParser, *, required: bool, purpose: str) -> None:
    """Add where the repository lies."""
    parser.add_argument("--repository", type=Path, required=required, metavar="DIR", help=purpose)


@contextmanager
def connected(args: argparse.Namespace) -> Generator[ModelControl]:
    """Yield a connection to the server that the options name."""
    # These bring an HTTP library; --help stays quick without it.
    import gevent

    from triton_router.repository.control import ModelControl

    # gevent, on which tritonclient's HTTP runs, would print a Ctrl-C before main() sees it.
    hub = gevent.get_hub()
    hub.NOT_ERROR = (*hub.NOT_ERROR, KeyboardInterrupt)
    headers = dict(args.header) or _key_headers(args.url, args.api_key)
    with ModelControl(args.url, headers=headers, timeout_s=args.timeout) as control:
        yield control


def header(text: str) -> tuple[str, str]:
    """Return the name and the value of ``KEY:VALUE``."""
    key, separator, value = text.partition(":")
    if not separator or not key.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form KEY:VALUE")
    return key.strip(), value.strip()


def _key_headers(url: str, given: str | None) -> dict[str, str]:
    """Return what opens the server's repository API: a key that was given, or that of a server of this user's here."""
    import os
    from urllib.parse import urlsplit

    from triton_router.serving.launcher.restricted import KEY_HEADER, KEY_VARIABLE
    from triton_router.serving.launcher.runtime_record import key_headers

    parts = urlsplit(url if "://" in url else f"http://{url}")
    own = key_headers(parts.port or 80, parts.hostname or "")
    key = given or os.environ.get(KEY_VARIABLE, "")
    return {KEY_HEADER: key} if given or (key and not own) else own
