"""The ``triton-router`` command: one parser, one place where errors become messages and exit codes."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from typing import TYPE_CHECKING

from triton_router import __version__
from triton_router.cli import (
    add,
    canary,
    drain,
    experiments,
    explain,
    manifests,
    models,
    output,
    pipeline,
    replay,
    serve,
    simulate,
    status,
    watch,
)
from triton_router.errors import TritonRouterError, mapping_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# In the order in which a user meets them; --help lists them so.
COMMANDS = (
    add,
    serve,
    models,
    pipeline,
    status,
    explain,
    canary,
    experiments,
    watch,
    drain,
    manifests,
    simulate,
    replay,
)

EXIT_INTERRUPTED = 130
"""128 + SIGINT, what a shell reports for a program that Ctrl-C ended."""

_EPILOG = """\
examples:
  triton-router add model.onnx --name minilm --repository models
  triton-router serve --repository models
  triton-router models list
  triton-router COMMAND --help

Data goes to stdout, messages to stderr.
Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted.
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    root = argparse.ArgumentParser(
        prog="triton-router",
        description="Compile a model into variants, serve them, and route each request to the best one.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = root.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.register(subparsers)
    return root


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: Arguments without the program's name; those of the process by default.
    """
    try:
        return _run(argv)
    except TritonRouterError as error:
        output.print_error(error)
        return mapping_of(error).exit_code
    except KeyboardInterrupt as interrupt:
        _forget(interrupt)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has enough. Python flushes stdout once more at exit: give it a place.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(argv: Sequence[str] | None) -> int:
    try:
        args = parser().parse_args(argv)
        command: Callable[[argparse.Namespace], int] = args.func
        return command(args)
    finally:
        sys.stdout.flush()  # here a closed pipe can still be told from a failure, --help included


def _forget(interrupt: BaseException) -> None:
    """Collect what the interrupted calls held, without a word of the objects that it left half-made.

    An interrupt can fall into a library's constructor; the destructor of that object then fails, and Python would
    print the failure where only silence is due.
    """
    report = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        error: BaseException | None = interrupt
        while error is not None:
            traceback.clear_frames(error.__traceback__)
            error.__traceback__, error = None, error.__context__
    finally:
        sys.unraisablehook = report


if __name__ == "__main__":
    sys.exit(main())
