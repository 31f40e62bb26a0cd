"""``scripts/demo``: build MiniLM's variants, serve them, send real sentences, and show what the router did."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

_DESCRIPTION = """\
Compile the sentence encoder all-MiniLM-L6-v2 into variants, start Triton, send real sentences through the
pipeline minilm-embed, and print what the router chose, whether the answers are right, and what each variant costs.
Ctrl-C ends it, and the server with it, at any moment."""


def arguments() -> argparse.ArgumentParser:
    """Return the parser. Only the standard library is needed, so that --help works before anything is installed."""
    parser = argparse.ArgumentParser(
        prog="scripts/demo", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="then leave Triton serving until Ctrl-C, on ports 8000, 8001 and 8002 if they are free, "
        "and print commands that call it",
    )
    parser.add_argument("--quick", action="store_true", help="send fewer requests, for tests: the figures are rougher")
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path(".demo"),
        metavar="DIR",
        help="where the model repository and the server's log go (default: %(default)s in the checkout)",
    )
    return parser


def main() -> int:
    """Run the demonstration and return its exit code."""
    options = arguments().parse_args()
    try:
        from examples.minilm.demo.story import EFFORT, QUICK, tell
    except KeyboardInterrupt:  # while libraries are imported; nothing has been started yet
        return 130
    return tell(options.directory, QUICK if options.quick else EFFORT, keep=options.keep)


if __name__ == "__main__":
    sys.exit(main())
