"""``triton-router models``: drive the model repository API of a running Triton."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from triton_router.cli.command import Subparsers, add_parser

if TYPE_CHECKING:
    from triton_router.repository.control import VersionChoice

DEFAULT_URL = "http://localhost:8000"
"""As in repository.control, which is not imported before a command runs: it brings an HTTP library."""

_EXAMPLES = """\
  triton-router models list --repository models
  triton-router models load minilm --repository models      # its targets first, then itself
  triton-router models load minilm-onnx-cpu --version 2
  triton-router models load minilm-onnx-cpu --version 1,2   # clients choose by /versions/N/infer
  triton-router models load minilm-onnx-cpu --version latest
  triton-router models unload minilm --targets --repository models
  triton-router models versions minilm-onnx-cpu --json

load and unload need a server in explicit mode: triton-router serve --model-control-mode explicit"""


def register(subparsers: Subparsers) -> None:
    """Add the parser of this command."""
    parser = add_parser(
        subparsers,
        "models",
        summary="list, load and unload the models of a running server",
        examples=_EXAMPLES,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    listing = add_parser(actions, "list", summary="every model and version, its state and what it is")
    listing.set_defaults(func=run, action="list")
    load = add_parser(actions, "load", summary="load a model, a routed model's targets first")
    load.add_argument("model", metavar="MODEL")
    load.add_argument(
        "--version",
        type=_versions,
        metavar="N",
        help="serve this version (or 1,2, or latest, or all) instead of those of its config.pbtxt",
    )
    load.set_defaults(func=run, action="load")
    unload = add_parser(actions, "unload", summary="unload a model, and an ensemble's own steps with it")
    unload.add_argument("model", metavar="MODEL")
    unload.add_argument(
        "--targets",
        action="store_true",
        help="also unload the routed model's targets that no other loaded model needs (with --repository)",
    )
    unload.set_defaults(func=run, action="unload")
    versions = add_parser(actions, "versions", summary="the versions of one model")
    versions.add_argument("model", metavar="MODEL")
    versions.set_defaults(func=run, action="versions")
    for action in (listing, load, unload, versions):
        _add_common(action)


def run(args: argparse.Namespace) -> int:
    """Connect to the server and run the chosen action."""
    # These bring an HTTP library; --help stays quick without it.
    import gevent

    from triton_router.cli.models_actions import ACTIONS
    from triton_router.repository.control import ModelControl

    # gevent, on which tritonclient's HTTP runs, would print a Ctrl-C before main() sees it.
    hub = gevent.get_hub()
    hub.NOT_ERROR = (*hub.NOT_ERROR, KeyboardInterrupt)
    headers = dict(args.header) or _key_headers(args.url, args.api_key)
    with ModelControl(args.url, headers=headers, timeout_s=args.timeout) as control:
        return ACTIONS[args.action](control, args)


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


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", default=DEFAULT_URL, help="Triton's HTTP address (default: %(default)s)")
    parser.add_argument(
        "--repository", type=Path, metavar="DIR", help="the server's model repository; router.yaml is read from it"
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
        "--timeout", type=float, default=900.0, metavar="S", help="longest wait for an answer (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON for machines")


def _versions(text: str) -> VersionChoice:
    if text == "latest" or text == "all":  # noqa: PLR1714 - narrows the type
        return text
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a version: give 2, or 1,2, or latest, or all")
    return tuple(int(part) for part in parts)


def header(text: str) -> tuple[str, str]:
    """Return the name and the value of ``KEY:VALUE``."""
    key, separator, value = text.partition(":")
    if not separator or not key.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form KEY:VALUE")
    return key.strip(), value.strip()
