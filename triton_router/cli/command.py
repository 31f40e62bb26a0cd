"""The shape that every command of the command line shares.

A command is a module with ``register(subparsers)``, which adds its parser and sets ``func``, and
``run(args)``, which does the work and returns the exit code. Heavy libraries are imported inside ``run``,
so that ``--help`` is quick.
"""

from __future__ import annotations

import argparse
import shutil
import textwrap
from typing import Protocol


class Subparsers(Protocol):
    """What a parser's ``add_subparsers`` returns, as far as a command needs it."""

    def add_parser(
        self,
        name: str,
        *,
        help: str | None = ...,  # noqa: A002 - argparse's own name
        description: str | None = ...,
        epilog: str | None = ...,
        formatter_class: type[argparse.HelpFormatter] = ...,
    ) -> argparse.ArgumentParser:
        """Add the parser of one command."""
        ...


def add_parser(
    subparsers: Subparsers, name: str, *, summary: str, description: str = "", examples: str = ""
) -> argparse.ArgumentParser:
    """Add the parser of a command, its examples printed as they are written.

    Args:
        subparsers: Where ``register`` was told to add it.
        name: What the user types.
        summary: One line for the list of commands.
        description: What the command does, at the head of its own help; the summary by default.
        examples: Lines at the end of its own help.
    """
    return subparsers.add_parser(
        name,
        help=summary,
        description=_filled(description or f"{summary[:1].upper()}{summary[1:]}."),
        epilog=f"examples:\n{examples}" if examples else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _filled(text: str) -> str:
    """Break paragraphs into lines as argparse breaks what it says of options; it would break examples, too."""
    width = shutil.get_terminal_size().columns - 2
    return "\n\n".join(textwrap.fill(paragraph, width) for paragraph in text.split("\n\n"))
