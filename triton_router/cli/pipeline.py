"""``triton-router pipeline``: write an ensemble from a short YAML."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_router.cli.command import Subparsers, add_parser
from triton_router.errors import UnsupportedError

if TYPE_CHECKING:
    import argparse


def register(subparsers: Subparsers) -> None:
    """Add the parser of this command."""
    add_parser(subparsers, "pipeline", summary="write an ensemble from a short YAML file").set_defaults(
        func=run
    )


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    raise UnsupportedError(f"{args} is not there yet")
