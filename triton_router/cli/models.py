"""``triton-router models``: drive the model repository API of a running Triton."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from triton_router.cli.command import Subparsers, add_parser
from triton_router.cli.connection import add_connection_options, add_repository_option, connected

if TYPE_CHECKING:
    from triton_router.repository.control import VersionChoice

_EXAMPLES = """\
  triton-router models list --repository models
  triton-router models load minilm --repository models      # its targets first, then itself
  triton-router models load minilm-onnx-cpu --version 2
  triton-router models load minilm-onnx-cpu --version 1,2   # clients choose by /versions/N/infer
  triton-router models load minilm-onnx-cpu --version latest
  triton-router models unload minilm --targets --repository models
  triton-router models versions minilm-onnx-cpu --json

load and unload work with 'triton-router serve' as it starts by default and with --model-control-mode explicit; not with
--model-control-mode poll, nor with --open-api in the default mode"""


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
    from triton_router.cli.models_actions import ACTIONS

    with connected(args) as control:
        return ACTIONS[args.action](control, args)


def _add_common(parser: argparse.ArgumentParser) -> None:
    add_connection_options(parser)
    add_repository_option(parser, required=False, purpose="the server's model repository; router.yaml is read from it")
    parser.add_argument("--json", action="store_true", help="print JSON for machines")


def _versions(text: str) -> VersionChoice:
    if text == "latest" or text == "all":  # noqa: PLR1714 - narrows the type
        return text
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a version: give 2, or 1,2, or latest, or all")
    return tuple(int(part) for part in parts)
